"""Who of another server may say something, and of whom it matters here."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from synapse.api.errors import forbidden

if TYPE_CHECKING:
    from synapse.federation.hosts import RoomHosts
    from synapse.handlers.federation_door import FederationDoor
    from synapse.replication.contacts import RoomsOf


class Speakers:
    """Answers in any process; no statement when warm.

    :param rooms_of: the rooms that users are joined to, as far as this server knows.
    """

    def __init__(self, door: FederationDoor, hosts: RoomHosts, rooms_of: RoomsOf, server_name: str) -> None:
        self._door = door
        self._hosts = hosts
        self._rooms_of = rooms_of
        self._server_name = server_name

    async def in_room(self, origin: str, room_id: str, user_ids: Collection[str]) -> set[str]:
        """Those of these users who are joined to the room. Raises 403 where the server may say nothing about it, or
        nobody of this one is there to hear it.
        """
        await self._door.check(origin, room_id)
        if not await self.is_in(room_id):
            raise forbidden("Nobody of this server is in the room.")
        rooms = await self._rooms_of(user_ids)
        return {user_id for user_id in user_ids if room_id in rooms.get(user_id, ())}

    async def is_in(self, room_id: str) -> bool:
        """Whether somebody of this server is in the room."""
        return self._server_name in await self._hosts.joined(room_id)

    async def sharing(self, user_ids: Collection[str]) -> set[str]:
        """Those of these users who share a room with somebody of this server."""
        rooms = await self._rooms_of(user_ids)
        hosts = await self._hosts.joined_many({room_id for each in rooms.values() for room_id in each})
        return {
            user_id
            for user_id in user_ids
            if any(self._server_name in hosts.get(room_id, ()) for room_id in rooms.get(user_id, ()))
        }
