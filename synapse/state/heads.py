"""`RoomHeads`: where each room's next event goes, known without asking the database.

A head is read once and then kept true by the events stream (`learn`). It may lag behind the main process for the
moment that a row takes to arrive; who builds an event on a head says how far that head knew the room's state, and
`synapse.storage.persist` sees whether that still holds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from synapse.api.constants import MAX_PREV_EVENTS
from synapse.api.room_versions import RoomVersion, room_version

if TYPE_CHECKING:
    from synapse.storage.extremities import ExtremitiesStore, HeadRow
    from synapse.util.caches import LruCache


class Growth(NamedTuple):
    """An event that the stream announces, as far as it moves a head. `changes_state`: the room's present state did."""

    stream_ordering: int
    event_id: str
    prev_event_ids: tuple[str, ...]
    depth: int
    changes_state: bool


class Head(NamedTuple):
    """The end of a room: its forward extremities with their depths, and positions of the events stream."""

    room_id: str
    version: RoomVersion
    extremities: dict[str, int]
    state_ordering: int  # the last change of the room's present state
    stream_ordering: int  # the last event that this head knows of

    @property
    def prev_events(self) -> list[str]:
        """What the next event refers to: all extremities, or some of them where there are too many.

        Which ones is chance, so that events made at the same time do not all refer to the same few and leave the
        rest; the deepest is always among them.
        """
        if len(self.extremities) <= MAX_PREV_EVENTS:
            return list(self.extremities)
        deepest = max(self.extremities, key=lambda event_id: self.extremities[event_id])
        others = [event_id for event_id in self.extremities if event_id != deepest]
        return [deepest, *random.sample(others, MAX_PREV_EVENTS - 1)]

    @property
    def next_depth(self) -> int:
        return max(self.extremities.values()) + 1

    def grown(self, growth: Growth) -> Head:
        """The head after one more event."""
        if growth.stream_ordering <= self.stream_ordering:
            return self
        extremities = {e: depth for e, depth in self.extremities.items() if e not in growth.prev_event_ids}
        extremities[growth.event_id] = growth.depth
        state_ordering = growth.stream_ordering if growth.changes_state else self.state_ordering
        return Head(self.room_id, self.version, extremities, state_ordering, growth.stream_ordering)


class _Reading:
    """A question to the database, and what the stream tells until it is answered. `is_void`: that is not enough."""

    __slots__ = ("is_void", "meanwhile")

    def __init__(self) -> None:
        self.meanwhile: list[Growth] = []
        self.is_void = False


class RoomHeads:
    """The heads of rooms, in any process that creates events."""

    def __init__(self, store: ExtremitiesStore, cache: LruCache[str, Head]) -> None:
        self._store = store
        self._cache = cache
        self._reading: dict[str, list[_Reading]] = {}

    async def get(self, room_id: str) -> Head | None:
        """The head of a room that this server takes part in. No statement when warm, else one."""
        head = self._cache.get(room_id)
        return head if head is not None else await self.reload(room_id)

    async def reload(self, room_id: str) -> Head | None:
        """The head as the database has it now. One statement, and another where the room has been changed meanwhile."""
        while True:
            reading = _Reading()
            readings = self._reading.setdefault(room_id, [])
            readings.append(reading)
            try:
                row = await self._store.head(room_id)
            finally:
                readings.remove(reading)
                if not readings:
                    self._reading.pop(room_id, None)
            if not reading.is_void:
                break
        if row is None:
            return None
        head = _head_of(row)
        for growth in reading.meanwhile:
            head = head.grown(growth)
        self._cache.set(room_id, head)
        return head

    # -- fed by the events stream ------------------------------------------------------------------------------

    def learn(self, room_id: str, growths: Sequence[Growth]) -> None:
        """Take in a room's new events, in the order of the stream."""
        for reading in self._reading.get(room_id, ()):
            reading.meanwhile.extend(growths)
        head = self._cache.get(room_id)
        if head is None:
            return
        for growth in growths:
            head = head.grown(growth)
        self._cache.set(room_id, head)

    def version(self, room_id: str) -> RoomVersion | None:
        """The room's version, if its head is remembered."""
        head = self._cache.peek(room_id)
        return None if head is None else head.version

    def learn_new_room(self, room_id: str, version: RoomVersion, create: Growth) -> None:
        """A room begins with this event."""
        if self._cache.peek(room_id) is not None:
            return  # it has been read, with all that came after
        extremities = {create.event_id: create.depth}
        position = create.stream_ordering
        self._cache.set(room_id, Head(room_id, version, extremities, position, position))

    def forget(self, room_id: str) -> None:
        """The room's end has moved in a way that its events do not tell."""
        self._cache.pop(room_id)
        for reading in self._reading.get(room_id, ()):
            reading.is_void = True

    def forget_all(self) -> None:
        """Drop everything: rows of the stream may have been missed."""
        self._cache.clear()
        for readings in self._reading.values():
            for reading in readings:
                reading.is_void = True


def _head_of(row: HeadRow) -> Head:
    extremities = {event_id: extremity.depth for event_id, extremity in row.extremities.items()}
    return Head(row.room_id, room_version(row.room_version), extremities, row.state_ordering, row.stream_ordering)
