"""The ends of rooms as the writer of events keeps them: in memory, as committed; read from the database once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Final

from synapse.api.constants import EventTypes, Membership
from synapse.api.identifiers import domain_of
from synapse.api.room_versions import RoomVersion, room_version
from synapse.events.event import Event, StateKey
from synapse.state.groups import Line
from synapse.storage.awaited import Awaited
from synapse.storage.extremities import Extremity

if TYPE_CHECKING:
    from synapse.storage.awaited import AwaitedStore
    from synapse.storage.events import EventsStore
    from synapse.storage.extremities import ExtremitiesStore
    from synapse.storage.persist_derived import Change
    from synapse.util.caches import LruCache

MAX_RECENT: Final = 32


class RoomEnd:
    """Where a room ends. `line` ends in the group of the room's present state (None: the room has no event yet).

    `recent` are the states after events that were extremities a moment ago, `changed` the entries of the present
    state that a batch under way has changed. `residents` is how many of this server's users are joined: if there are
    none, the end is that of the past, for all that is known. `awaited` is what the room lacks, once somebody has asked.
    `is_new`: the batch under way replaces the whole of it. `obsolete` are extremities that others turned out to have
    behind them, when what lies between came late and moved nothing; the next event that does leaves them behind.
    """

    __slots__ = (
        "awaited",
        "changed",
        "extremities",
        "is_new",
        "line",
        "obsolete",
        "recent",
        "residents",
        "room_id",
        "state_ordering",
        "version",
    )

    def __init__(
        self,
        room_id: str,
        version: RoomVersion,
        extremities: dict[str, Extremity],
        line: Line | None,
        position: int,
        residents: int = 0,
    ) -> None:
        self.room_id = room_id
        self.version = version
        self.extremities = extremities
        self.line = line
        self.state_ordering = position
        self.residents = residents
        self.is_new = False
        self.obsolete: frozenset[str] = frozenset()
        self.awaited: Awaited | None = None
        self.recent: dict[str, int] = {}
        self.changed: dict[StateKey, Event | None] = {}

    def copy(self) -> RoomEnd:
        copy = RoomEnd(
            self.room_id, self.version, dict(self.extremities), self.line, self.state_ordering, self.residents
        )
        copy.recent = dict(self.recent)
        copy.changed = dict(self.changed)
        copy.awaited = self.awaited
        copy.is_new = self.is_new
        copy.obsolete = self.obsolete
        return copy

    def is_after(self, prev_event_ids: Collection[str]) -> bool:
        """Whether an event with these predecessors comes after everything in the room."""
        return self.extremities.keys() == set(prev_event_ids)

    def advance(self, event: Event, group: int) -> None:
        """The event becomes an extremity in the place of those that it refers to."""
        self.leave_behind(event.prev_event_ids)
        self.extremities[event.event_id] = Extremity(event.depth, group)

    def leave_behind(self, event_ids: Iterable[str]) -> bool:
        """These are no extremities any more; whether one was."""
        found = False
        for event_id in event_ids:
            gone = self.extremities.pop(event_id, None)
            if gone is not None:
                self.recent[event_id] = gone.group
                found = True
        while len(self.recent) > MAX_RECENT:
            del self.recent[next(iter(self.recent))]
        return found

    def change(self, changes: Iterable[Change], position: int, server_name: str) -> None:
        """The present state changes."""
        self.state_ordering = position
        for key, old, new in changes:
            self.changed[key] = new
            if key[0] == EventTypes.MEMBER and domain_of(key[1]) == server_name:
                is_joined = new is not None and new.membership == Membership.JOIN
                self.residents += is_joined - (old.membership == Membership.JOIN)


class RoomEnds:
    """The ends of all rooms, as committed."""

    def __init__(
        self, store: ExtremitiesStore, awaited: AwaitedStore, events: EventsStore, cache: LruCache[str, RoomEnd]
    ) -> None:
        self._store = store
        self._awaited = awaited
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
            version = room_version(row.room_version)
            end = RoomEnd(room_id, version, row.extremities, line, row.state_ordering, row.residents)
            self._cache.set(room_id, end)
        return end

    async def groups_after(self, room_id: str, event_ids: Collection[str]) -> dict[str, int]:
        """The states after those of the events that are here, in that room, and no outliers. One statement, or none."""
        stored = await self._events.get_many(event_ids)
        return {
            event_id: each.state_group
            for event_id, each in stored.items()
            if each.state_group is not None and each.event.room_id == room_id
        }

    async def awaited(self, end: RoomEnd) -> Awaited:
        """What the room lacks. One statement, the first time."""
        if end.awaited is None:
            end.awaited = await self._awaited.of_room(end.room_id)
        return end.awaited

    async def awaited_events(self, end: RoomEnd, event_ids: Collection[str]) -> Awaited:
        """Which of these events the room lacks. A statement, unless all that it lacks is known."""
        known = await self.awaited(end)
        if known.is_all or all(event_id in known.missing or event_id in known.redactors for event_id in event_ids):
            return known
        stored = await self._awaited.of_events(end.room_id, event_ids)
        return Awaited({**stored.missing, **known.missing}, {**stored.redactors, **known.redactors}, False)

    async def group_near(self, room_id: str, depth: int) -> int | None:
        """The state after some event that is not far above that depth. One statement."""
        return await self._events.group_near(room_id, depth)

    async def odd_ones(self, room_id: str, event_ids: Collection[str]) -> dict[str, str | None]:
        """Those that cannot be part of the room's state: why they were rejected, None if they are not here."""
        return await self._events.odd_ones(room_id, event_ids)

    def commit(self, end: RoomEnd) -> None:
        """The end is in the database now."""
        end.changed.clear()
        end.is_new = False
        self._cache.set(end.room_id, end)

    def forget(self, room_id: str) -> None:
        """Drop what is known, since it may not be what the database says."""
        self._cache.pop(room_id)
