"""`StateReader`: the state of rooms, now or at an event, from memory where it can.

What a room is now is remembered entry by entry, as far as somebody has asked; the events stream keeps it true
(`learn`). So authorising a message in a room that is in use asks the database nothing. Historical state is always read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from synapse.state.filters import ALL, StateFilter, StateKey

if TYPE_CHECKING:
    from synapse.storage.current_state import CurrentStateStore
    from synapse.storage.events import EventsStore, StoredEvent
    from synapse.storage.state import StateStore
    from synapse.util.caches import LruCache

MAX_REMEMBERED: Final = 10_000
"""Entries of one room that are remembered; beyond, it starts over."""


class RoomEntries:
    """What is remembered of one room's present state.

    `entries` are event ids (None where it is known that there is nothing), each with the position of the events
    stream as of which it was read or announced; `heard` is the position of the last change that the stream has told.
    An entry is true as of the later of the two. `complete`: an entry that is not here does not exist.
    """

    __slots__ = ("complete", "entries", "heard")

    def __init__(self, complete: bool = False) -> None:
        self.entries: dict[StateKey, tuple[str | None, int]] = {}
        self.complete = complete
        self.heard = 0

    def unknown(self, keys: Iterable[StateKey], as_of: int) -> list[StateKey]:
        """Those of the keys of which nothing is known, or nothing as of that position."""
        if self.heard >= as_of:
            return [] if self.complete else [key for key in keys if key not in self.entries]
        return [key for key in keys if key not in self.entries or self.entries[key][1] < as_of]

    def set(self, key: StateKey, event_id: str | None, position: int) -> None:
        """An entry as of a position; nothing changes if a later one is known."""
        known = self.entries.get(key)
        if known is None or known[1] <= position:
            self.entries[key] = (event_id, position)

    def get(self, key: StateKey) -> str | None:
        """The event id, None where there is none, or nothing is known."""
        return self.entries.get(key, (None, 0))[0]


class StateReader:
    """Reads state, in any process."""

    def __init__(
        self,
        current: CurrentStateStore,
        groups: StateStore,
        events: EventsStore,
        cache: LruCache[str, RoomEntries],
    ) -> None:
        self._current = current
        self._groups = groups
        self._events = events
        self._cache = cache

    async def current(
        self, room_id: str, wanted: StateFilter | Collection[StateKey], as_of: int = 0
    ) -> dict[StateKey, StoredEvent]:
        """The room's present state, as far as the filter wants it (or those entries), as of a position of the events
        stream or later. No statement where it is remembered, one where it is not, two if its events have been
        forgotten."""
        keys = wanted.exact() if isinstance(wanted, StateFilter) else wanted
        if keys is None:
            assert isinstance(wanted, StateFilter)
            return {stored.event.key: stored for stored in (await self._current.events(room_id, wanted)).events}
        room = self._room(room_id)
        unknown = room.unknown(keys, as_of)
        if unknown:
            await self._read(room_id, room, unknown)
        ids = {key: event_id for key in keys if (event_id := room.get(key)) is not None}
        return await self._with_events(ids)

    def position(self, room_id: str, keys: Iterable[StateKey]) -> int:
        """The latest position of the events stream as of which one of these entries was read or announced."""
        room = self._cache.peek(room_id)
        return 0 if room is None else max((room.entries[key][1] for key in keys if key in room.entries), default=0)

    async def current_ids(self, room_id: str, wanted: StateFilter = ALL) -> dict[StateKey, str]:
        """The same as event ids; a filter that does not name every entry costs one statement."""
        keys = wanted.exact()
        if keys is None:
            return await self._current.ids(room_id, wanted)
        return {key: stored.event.event_id for key, stored in (await self.current(room_id, keys)).items()}

    async def at_event(self, event_id: str, wanted: StateFilter = ALL) -> dict[StateKey, StoredEvent]:
        """The state after an event of the timeline; empty for outliers and events that are not here."""
        groups = await self._events.state_groups([event_id])
        return await self.at_group(groups[event_id], wanted) if event_id in groups else {}

    async def before_event(self, event_id: str, wanted: StateFilter = ALL) -> dict[StateKey, StoredEvent]:
        """The state that the event found."""
        stored = await self._events.get(event_id)
        if stored is None or stored.state_group is None:
            return {}
        if not stored.event.is_state():
            return await self.at_group(stored.state_group, wanted)
        place = (await self._groups.places([stored.state_group]))[stored.state_group]
        return {} if place.prev_group is None else await self.at_group(place.prev_group, wanted)

    async def at_group(self, group: int, wanted: StateFilter = ALL) -> dict[StateKey, StoredEvent]:
        """The state that a state group names. One statement, and one for those of its events that are not cached."""
        return await self._with_events((await self._groups.ids([group], wanted))[group])

    async def at_group_ids(self, group: int, wanted: StateFilter = ALL) -> dict[StateKey, str]:
        """The same as event ids."""
        return (await self._groups.ids([group], wanted))[group]

    # -- fed by the events stream ------------------------------------------------------------------------------

    def learn(self, room_id: str, key: StateKey, event_id: str | None, position: int) -> None:
        """Take in a change of a room's present state, in the order of the stream."""
        room = self._cache.get(room_id)
        if room is not None:
            room.set(key, event_id, position)
            room.heard = position

    def learn_new_room(self, room_id: str) -> None:
        """A room begins: whatever is not announced of it from now on does not exist."""
        if self._cache.peek(room_id) is None:
            self._cache.set(room_id, RoomEntries(complete=True))

    def forget(self, room_id: str) -> None:
        """Drop what is remembered of a room."""
        self._cache.pop(room_id)

    def forget_all(self) -> None:
        """Drop everything: rows of the stream may have been missed."""
        self._cache.clear()

    # ------------------------------------------------------------------------------------------------------------

    def _room(self, room_id: str) -> RoomEntries:
        room = self._cache.get(room_id)
        if room is None or len(room.entries) > MAX_REMEMBERED:
            room = RoomEntries()
            self._cache.set(room_id, room)
        return room

    async def _read(self, room_id: str, room: RoomEntries, keys: list[StateKey]) -> None:
        reading = self._current.events(room_id, StateFilter.keys(keys))
        (_events, position), known = await self._events.guarded(reading, lambda snapshot: snapshot.events)
        found = {stored.event.key: stored.event.event_id for stored in known}
        for key in keys:
            room.set(key, found.get(key), position)

    async def _with_events(self, ids: Mapping[StateKey, str]) -> dict[StateKey, StoredEvent]:
        events = await self._events.get_many(ids.values())
        return {key: events[event_id] for key, event_id in ids.items() if event_id in events}
