"""Is this server one that can let somebody into that room, and may the server that asks come near it at all?

Server-server API, "Server Access Control Lists (ACLs)".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.api.errors import not_found
from synapse.api.identifiers import parse_room_id

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.handlers.federation_door import FederationDoor
    from synapse.push.bulk import RoomMembers
    from synapse.state.heads import RoomHeads


class Residence:
    """Knows the rooms that this server takes part in, in any process. Of rooms that it has never heard of it keeps
    nothing in mind, since anybody may ask about any number of those."""

    def __init__(self, door: FederationDoor, heads: RoomHeads, members: RoomMembers) -> None:
        self._door = door
        self._heads = heads
        self._members = members

    async def version(self, origin: str, room_id: str) -> RoomVersion:
        """The version of a room that somebody of this server is joined to.

        Raises 400 M_INVALID_PARAM; 403 M_FORBIDDEN where the room keeps `origin` out; 404 M_NOT_FOUND for all others.
        """
        parse_room_id(room_id)
        await self.check_acl(origin, room_id)
        head = await self._heads.get(room_id)
        if head is None or not await self.is_in(room_id):
            raise not_found("Nobody of this server is in such a room.")
        return head.version

    async def is_in(self, room_id: str) -> bool:
        """Whether somebody of this server is joined to the room."""
        return await self._heads.get(room_id) is not None and bool((await self._members.get(room_id)).local)

    async def check_acl(self, origin: str, room_id: str) -> None:
        """Raises 403 M_FORBIDDEN where the room, as far as it is known here, keeps `origin` out."""
        if await self._heads.get(room_id) is not None:
            await self._door.check_acl(origin, room_id)
