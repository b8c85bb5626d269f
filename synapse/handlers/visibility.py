"""May this user look into this room, and how far?

Joined members see it as it is. Who has left sees it as it was then; who is banned sees of that the events, not the
state. Everybody may look into a room that is world-readable now. All others get 403 M_FORBIDDEN, whether the room
exists or not. Which events are seen is then for history visibility: `synapse.sync.visibility`.

Client-server API, "Room history visibility" and "Guest access".
"""

from __future__ import annotations

from typing import NamedTuple

from synapse.api.constants import HistoryVisibility, Membership
from synapse.api.errors import forbidden
from synapse.storage.user_rooms import UserRoomStore
from synapse.sync.memberships import Memberships
from synapse.sync.plan import last_access
from synapse.sync.visibility import Access, VisibilityFilter

PEEKING = Access(None, None)
"""As somebody who was never there, in a room that everybody may look into."""


class Standing(NamedTuple):
    """How a user stands to a room that they may look into; `membership` is None where they have none."""

    membership: str | None
    access: Access


class RoomDoor:
    """Lets in who may look into a room."""

    def __init__(self, memberships: Memberships, store: UserRoomStore, visibility: VisibilityFilter) -> None:
        self._memberships = memberships
        self._store = store
        self._visibility = visibility

    async def standing(self, user_id: str, room_id: str) -> Standing:
        """Raises 403 M_FORBIDDEN for whom the room is closed. Members cost no statement when warm."""
        found = (await self._memberships.of(user_id)).rooms.get(room_id)
        if found is not None and found.membership == Membership.JOIN:
            return Standing(Membership.JOIN, Access(found.stream, None))
        if found is not None and not found.forgotten:
            access = last_access(await self._store.steps(user_id, [room_id]))
            if access.joined is not None:
                return Standing(found.membership, access)
        if await self._visibility.now(room_id) == HistoryVisibility.WORLD_READABLE:
            return Standing(found.membership if found else None, PEEKING)
        raise forbidden("You are not in this room, and it is not open to everybody.")

    async def state_standing(self, user_id: str, room_id: str) -> Standing:
        """The same for who asks for the room's state, which those who are banned get nothing of, not even what they
        knew, unless everybody does. Raises 403 M_FORBIDDEN.

        They "will not be able to send or receive events in the room": client-server API, "Banning users in a room".
        """
        standing = await self.standing(user_id, room_id)
        banned = standing.membership == Membership.BAN
        if banned and await self._visibility.now(room_id) != HistoryVisibility.WORLD_READABLE:
            raise forbidden("You are banned from this room.")
        return standing

    async def check_joined(self, user_id: str, room_id: str) -> None:
        """Raises 403 M_FORBIDDEN for whoever is not joined to the room now."""
        if room_id not in (await self._memberships.of(user_id)).joined:
            raise forbidden("You are not in this room.")
