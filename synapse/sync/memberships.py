"""Where each local user stands in each room, from memory.

Every sync begins with this question, so the answer is kept for the users who ask, and dropped when a row of the
events stream says that a membership of theirs changed (or a row of the caches stream that they have forgotten a
room). A user's rooms are read in one statement.
"""

from __future__ import annotations

from collections import OrderedDict

from synapse.api.constants import Membership
from synapse.storage.user_rooms import RoomMembership, UserRoomStore

Rooms = dict[str, RoomMembership]
"""A user's memberships by room id, in the order in which they came about. Not to be changed."""


class Memberships:
    """The cache. `invalidate` is called for each changed membership of a local user, in every process.

    :param size: of how many users to remember the rooms.
    """

    def __init__(self, store: UserRoomStore, size: int = 10_000) -> None:
        self._store = store
        self._size = size
        self._rooms: OrderedDict[str, Rooms] = OrderedDict()
        self._joined: dict[str, frozenset[str]] = {}
        self._changes = 0  # invalidations so far: tells a reader whether what it read may be out of date

    async def of(self, user_id: str) -> Rooms:
        """The user's memberships; at most one statement."""
        rooms = self._rooms.get(user_id)
        if rooms is not None:
            self._rooms.move_to_end(user_id)
            return rooms
        changes = self._changes
        rooms = {membership.room_id: membership for membership in await self._store.of_user(user_id)}
        if changes == self._changes:  # else a change may have come while we read; the next caller reads again
            self._rooms[user_id] = rooms
            if len(self._rooms) > self._size:
                self._joined.pop(self._rooms.popitem(last=False)[0], None)
        return rooms

    async def joined(self, user_id: str) -> frozenset[str]:
        """The rooms that the user is joined to; at most one statement."""
        rooms = await self.of(user_id)
        joined = self._joined.get(user_id)
        if joined is None or self._rooms.get(user_id) is not rooms:
            joined = frozenset(room.room_id for room in rooms.values() if room.membership == Membership.JOIN)
            if self._rooms.get(user_id) is rooms:
                self._joined[user_id] = joined
        return joined

    def invalidate(self, user_id: str) -> None:
        self._changes += 1
        self._rooms.pop(user_id, None)
        self._joined.pop(user_id, None)

    def clear(self) -> None:
        """Forgets everything: changes may have been missed."""
        self._changes += 1
        self._rooms.clear()
        self._joined.clear()
