"""Endpoints for room aliases and the directory of rooms. Client-server API, "Room aliases", "Published room
directory"."""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.api.errors import invalid_param
from synapse.handlers.aliases import Aliases
from synapse.handlers.public_rooms import PublicRooms, Wish
from synapse.http.server import Request, serves


class NewAlias(msgspec.Struct, frozen=True):
    """The body of `PUT /directory/room/{roomAlias}`."""

    room_id: str


class RoomAliases:
    """`/directory/room/{roomAlias}`, `/rooms/{roomId}/aliases` and `/directory/list/room/{roomId}`."""

    def __init__(self, aliases: Aliases) -> None:
        self._aliases = aliases

    @serves("alias_get")
    async def get(self, request: Request, room_alias: str) -> dict[str, Any]:
        return (await self._aliases.locate(room_alias))._asdict()

    @serves("alias_set")
    async def set(self, request: Request, room_alias: str) -> dict[str, Any]:
        await self._aliases.create(request.user, room_alias, request.body_as(NewAlias).room_id)
        return {}

    @serves("alias_delete")
    async def delete(self, request: Request, room_alias: str) -> dict[str, Any]:
        await self._aliases.delete(request.user, room_alias)
        return {}

    @serves("room_aliases")
    async def of_room(self, request: Request, room_id: str) -> dict[str, Any]:
        return {"aliases": await self._aliases.of_room(request.user, room_id)}

    @serves("room_visibility_get")
    async def visibility(self, request: Request, room_id: str) -> dict[str, Any]:
        return {"visibility": "public" if await self._aliases.is_listed(room_id) else "private"}

    @serves("room_visibility_set")
    async def set_visibility(self, request: Request, room_id: str) -> dict[str, Any]:
        visibility = request.json_object(allow_empty=True).get("visibility", "public")
        if visibility not in ("public", "private"):
            raise invalid_param("The visibility of a room is 'public' or 'private'.")
        await self._aliases.list_room(request.user, room_id, visibility == "public")
        return {}


class RoomDirectory:
    """`/publicRooms`."""

    def __init__(self, rooms: PublicRooms) -> None:
        self._rooms = rooms

    @serves("public_rooms")
    async def public_rooms(self, request: Request) -> dict[str, Any]:
        wish = Wish(limit=request.int_arg("limit"), since=request.arg("since"), server=request.arg("server"))
        return await self._rooms.page(request.requester, wish)

    @serves("public_rooms_search")
    async def search(self, request: Request) -> dict[str, Any]:
        wish = request.body_as(Wish, allow_empty=True)
        server = request.arg("server")
        wish = wish if server is None else msgspec.structs.replace(wish, server=server)
        return await self._rooms.page(request.user, wish)
