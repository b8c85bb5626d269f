"""The ends of rooms as the writer of events keeps them: in memory, as committed; read from the database once."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from synapse.api.errors import not_found
from synapse.api.room_versions import RoomVersion, room_version
from synapse.events.event import Event, StateKey
from synapse.state.groups import Line
from synapse.storage.extremities import Extremity

if TYPE_CHECKING:
    from synapse.storage.events import EventsStore
    from synapse.storage.extremities import ExtremitiesStore
    from synapse.util.caches import LruCache

MAX_RECENT: Final = 32


class RoomEnd:
    """Where a room ends. `line` ends in the group of the room's present state (None: the room has no event yet).

    `recent` are the states after events that were extremities a moment ago, `changed` the entries of the present
    state that a batch under way has changed.
    """

    __slots__ = ("changed", "extremities", "line", "recent", "room_id", "state_ordering", "version")

    def __init__(
        self, room_id: str, version: RoomVersion, extremities: dict[str, Extremity], line: Line | None, position: int
    ) -> None:
        self.room_id = room_id
        self.version = version
        self.extremities = extremities
        self.line = line
        self.state_ordering = position
        self.recent: dict[str, int] = {}
        self.changed: dict[StateKey, Event | None] = {}

    def copy(self) -> RoomEnd:
        copy = RoomEnd(self.room_id, self.version, dict(self.extremities), self.line, self.state_ordering)
        copy.recent = dict(self.recent)
        copy.changed = dict(self.changed)
        return copy

    def is_after(self, prev_event_ids: Collection[str]) -> bool:
        """Whether an event with these predecessors comes after everything in the room."""
        return self.extremities.keys() == set(prev_event_ids)

    def advance(self, event: Event, group: int) -> None:
        """The event becomes an extremity in the place of those that it refers to."""
        for event_id in event.prev_event_ids:
            gone = self.extremities.pop(event_id, None)
            if gone is not None:
                self.recent[event_id] = gone.group
        while len(self.recent) > MAX_RECENT:
            del self.recent[next(iter(self.recent))]
        self.extremities[event.event_id] = Extremity(event.depth, group)


class RoomEnds:
    """The ends of all rooms, as committed."""

    def __init__(self, store: ExtremitiesStore, events: EventsStore, cache: LruCache[str, RoomEnd]) -> None:
        self._store = store
        self._events = events
        self._cache = cache

    def new(self, room_id: str, version: RoomVersion) -> RoomEnd:
        """Of a room without events."""
        return RoomEnd(room_id, version, {}, None, 0)

    async def get(self, room_id: str) -> RoomEnd | None:
        """The end of a room that this server takes part in. No statement when warm, else one."""
        end = self._cache.get(room_id)
        if end is None:
            row = await self._store.head(room_id)
            if row is None:
                return None
            line = Line.unknown(row.state_group, row.group_number)
            end = RoomEnd(room_id, room_version(row.room_version), row.extremities, line, row.state_ordering)
            self._cache.set(room_id, end)
        return end

    async def group_after(self, event_id: str) -> int:
        """The state after an event. Raises M_NOT_FOUND."""
        groups = await self._events.state_groups([event_id])
        if event_id not in groups:
            raise not_found(f"This server does not have the event {event_id}, to which a new one refers.")
        return groups[event_id]

    def commit(self, end: RoomEnd) -> None:
        """The end is in the database now."""
        end.changed.clear()
        self._cache.set(end.room_id, end)

    def forget(self, room_id: str) -> None:
        """Drop what is known, since it may not be what the database says."""
        self._cache.pop(room_id)
