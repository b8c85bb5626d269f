"""Where each local user stands in each room, from memory.

Every sync begins with this question, so the answer is kept for the users who ask, and dropped when a row of the
events stream says that a membership of theirs changed (or a row of the caches stream that they have forgotten a
room). A user's rooms are read in one statement.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from synapse.api.constants import Membership
from synapse.storage.user_rooms import RoomMembership, UserRoomStore
from synapse.util.caches import Cache

CACHE: Final = "user_rooms"

Rooms = dict[str, RoomMembership]
"""A user's memberships by room id, in the order in which they came about. Not to be changed."""


class UserRooms(NamedTuple):
    """All memberships of a user, and the rooms that they are joined to."""

    rooms: Rooms
    joined: frozenset[str]


class Memberships:
    """The cache. `cache` is invalidated by user id, in every process, for each changed membership of a local user."""

    def __init__(self, store: UserRoomStore, cache: Cache[str, UserRooms]) -> None:
        self._store = store
        self.cache = cache

    async def of(self, user_id: str) -> UserRooms:
        """At most one statement."""
        known = self.cache.get(user_id)
        return known if known is not None else await self.cache.fetch(user_id, self._load)

    def holds(self, user_id: str, rooms: UserRooms) -> bool:
        """Whether this is still what is known: nothing has been heard since that changes it."""
        return self.cache.peek(user_id) is rooms

    async def _load(self, user_id: str) -> UserRooms:
        rooms = {membership.room_id: membership for membership in await self._store.of_user(user_id)}
        return UserRooms(rooms, frozenset(r for r, m in rooms.items() if m.membership == Membership.JOIN))
