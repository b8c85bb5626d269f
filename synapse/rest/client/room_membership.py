"""Endpoints that change memberships. Client-server API, "Room membership"."""

from __future__ import annotations

from typing import Any

from synapse.api.identifiers import parse_room_id
from synapse.handlers.membership import Memberships
from synapse.http.server import Request, serves


class RoomMembership:
    """`/join`, `/knock`, and what stands below `/rooms/{roomId}`."""

    def __init__(self, memberships: Memberships) -> None:
        self._memberships = memberships

    @serves("join")
    async def join(self, request: Request, room_id_or_alias: str) -> dict[str, Any]:
        body = request.json_object(allow_empty=True)
        return {"room_id": await self._memberships.join(request.user, room_id_or_alias, body, _via(request))}

    @serves("room_join")
    async def join_by_id(self, request: Request, room_id: str) -> dict[str, Any]:
        parse_room_id(room_id)
        return await self.join(request, room_id)

    @serves("knock")
    async def knock(self, request: Request, room_id_or_alias: str) -> dict[str, Any]:
        body = request.json_object(allow_empty=True)
        return {"room_id": await self._memberships.knock(request.user, room_id_or_alias, body, _via(request))}

    @serves("room_leave")
    async def leave(self, request: Request, room_id: str) -> dict[str, Any]:
        await self._memberships.leave(request.user, room_id, request.json_object(allow_empty=True))
        return {}

    @serves("room_invite")
    async def invite(self, request: Request, room_id: str) -> dict[str, Any]:
        await self._memberships.invite(request.user, room_id, request.json_object())
        return {}

    @serves("room_kick")
    async def kick(self, request: Request, room_id: str) -> dict[str, Any]:
        await self._memberships.kick(request.user, room_id, request.json_object())
        return {}

    @serves("room_ban")
    async def ban(self, request: Request, room_id: str) -> dict[str, Any]:
        await self._memberships.ban(request.user, room_id, request.json_object())
        return {}

    @serves("room_unban")
    async def unban(self, request: Request, room_id: str) -> dict[str, Any]:
        await self._memberships.unban(request.user, room_id, request.json_object())
        return {}

    @serves("room_forget")
    async def forget(self, request: Request, room_id: str) -> dict[str, Any]:
        await self._memberships.forget(request.user, room_id)
        return {}

    @serves("joined_rooms")
    async def joined_rooms(self, request: Request) -> dict[str, Any]:
        return {"joined_rooms": await self._memberships.joined_rooms(request.user.user_id)}


def _via(request: Request) -> list[str]:
    """The servers that the client names: `via`, and `server_name`, which it replaces."""
    return [*request.args("via"), *request.args("server_name")]
