"""Who is typing where, as every process knows it: the snapshot of now that the typing stream keeps up to date.

Written by the typing handler of the main process; here is what readers see. Nothing is stored: after a restart nobody
types.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple


class Typists(NamedTuple):
    """Who types in a room, since that position of the stream."""

    position: int
    user_ids: tuple[str, ...]


_NOBODY = Typists(0, ())


class TypingRooms:
    """Rooms in which somebody types or lately stopped to: those a client may have to be told of."""

    def __init__(self, size: int = 5_000) -> None:
        self._size = size
        self._rooms: OrderedDict[str, Typists] = OrderedDict()  # the room that changed last is the last

    def record(self, room_id: str, position: int, user_ids: Sequence[str]) -> None:
        """A row of the stream."""
        self._rooms[room_id] = Typists(position, tuple(user_ids))
        self._rooms.move_to_end(room_id)
        if len(self._rooms) > self._size:
            self._rooms.popitem(last=False)

    def reset(self, position: int) -> None:
        """A snapshot follows: whoever typed before, and is not in it, has stopped."""
        for room_id in list(self._rooms):
            if self._rooms[room_id].user_ids:
                self.record(room_id, position, ())

    def __contains__(self, room_id: object) -> bool:
        return room_id in self._rooms

    def users(self, room_id: str) -> tuple[str, ...]:
        return self._rooms.get(room_id, _NOBODY).user_ids

    def changed(self, after: int) -> set[str]:
        """The rooms that changed after the position."""
        changed: set[str] = set()
        for room_id in reversed(self._rooms):
            if self._rooms[room_id].position <= after:
                break
            changed.add(room_id)
        return changed
