"""The last few thousand events of the whole server, in memory, in every process that syncs.

The events stream brings each new event with its JSON, and each changed entry of current state. Kept for a while, they
answer the question that nearly every sync asks, "what is new since a moment ago?", without the database: which rooms
changed, which events came, what became of the state. A question that reaches further back gets None, and the asker
reads the tables.

Rows are added in the reactor's thread, in the order of the stream.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable
from operator import attrgetter
from typing import TypeVar

from synapse.storage.past_state import Delta
from synapse.storage.timeline import TimelineRow

T = TypeVar("T", TimelineRow, Delta)

_stream = attrgetter("stream")


class _Room:
    __slots__ = ("deltas", "rows")

    def __init__(self) -> None:
        self.rows: list[TimelineRow] = []
        self.deltas: list[Delta] = []


class RecentEvents:
    """What the events stream said after position `complete_after`.

    :param size: how many rows to keep.
    """

    def __init__(self, size: int = 5_000) -> None:
        self._size = size
        self._rooms: OrderedDict[str, _Room] = OrderedDict()  # the room that changed last is the last
        self._order: deque[tuple[int, str]] = deque()
        self.complete_after: int | None = None

    def start(self, position: int) -> None:
        """Begin to listen: everything after `position` will be added. What was kept is forgotten."""
        self._rooms.clear()
        self._order.clear()
        self.complete_after = position

    def add_event(self, row: TimelineRow) -> None:
        """A new event of a timeline. `json` may be "": it was too large to carry, or is not true any more."""
        self._room(row.room_id, row.stream).rows.append(row)

    def add_delta(self, delta: Delta) -> None:
        self._room(delta.room_id, delta.stream).deltas.append(delta)

    def spoil(self, room_id: str, event_id: str) -> None:
        """The event was redacted, so what is kept of it is not true any more: it is to be read anew."""
        room = self._rooms.get(room_id)
        if room is not None:
            room.rows = [
                row._replace(json="", contains_url=False) if row.event_id == event_id else row for row in room.rows
            ]

    def knows(self, after: int) -> bool:
        """Whether everything after this position is at hand."""
        return self.complete_after is not None and after >= self.complete_after

    def changed_rooms(self, after: int) -> list[str] | None:
        """The rooms with events or changed state after the position, or None if that reaches too far back."""
        if not self.knows(after):
            return None
        changed: list[str] = []
        for room_id in reversed(self._rooms):
            if _last(self._rooms[room_id]) <= after:
                break
            changed.append(room_id)
        return changed

    def has_changed(self, room_ids: Iterable[str], after: int) -> bool:
        """Whether one of the rooms has changed; True where that is not known."""
        changed = self.changed_rooms(after)
        return changed is None or not set(changed).isdisjoint(room_ids)

    def rows(self, room_id: str, after: int, until: int) -> list[TimelineRow]:
        """The room's events, `after` < stream ≤ `until`, oldest first. Only where `knows(after)`."""
        room = self._rooms.get(room_id)
        return [] if room is None else _between(room.rows, after, until)

    def deltas(self, room_id: str, after: int, until: int) -> list[Delta]:
        """The changes of the room's state, likewise."""
        room = self._rooms.get(room_id)
        return [] if room is None else _between(room.deltas, after, until)

    def _room(self, room_id: str, stream: int) -> _Room:
        room = self._rooms.get(room_id)
        if room is None:
            room = self._rooms[room_id] = _Room()
        else:
            self._rooms.move_to_end(room_id)
        self._order.append((stream, room_id))
        if len(self._order) > self._size:
            self._forget_oldest()
        return room

    def _forget_oldest(self) -> None:
        """Drops a tenth, by whole positions: what is complete is complete."""
        for _ in range(self._size // 10):
            self.complete_after, _room_id = self._order.popleft()
        oldest = self.complete_after or 0
        while self._order and self._order[0][0] <= oldest:
            self._order.popleft()
        for room_id, room in list(self._rooms.items()):
            del room.rows[: bisect_right(room.rows, oldest, key=_stream)]
            del room.deltas[: bisect_right(room.deltas, oldest, key=_stream)]
            if not room.rows and not room.deltas and room_id != next(reversed(self._rooms)):
                del self._rooms[room_id]


def _last(room: _Room) -> int:
    rows = room.rows[-1].stream if room.rows else 0
    return max(rows, room.deltas[-1].stream) if room.deltas else rows


def _between(kept: list[T], after: int, until: int) -> list[T]:
    start = bisect_right(kept, after, key=_stream)
    return [row for row in kept[start:] if row.stream <= until]
