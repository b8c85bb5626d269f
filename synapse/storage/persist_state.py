"""The state groups of a batch of events that is being planned: new ones, and the states that they and older ones name.

The new groups are not in the database yet, so what is asked about them is answered from here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from synapse.events.event import Event, StateKey
from synapse.metrics import table
from synapse.state.groups import Delta, Line, base_of
from synapse.state.resolution import Loaded, NeedEvents, resolve, run_async
from synapse.storage.persist_rows import Rows

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.storage.events import EventsStore
    from synapse.storage.state import StateStore


class Made(NamedTuple):
    """A group that the batch makes: `changes` over the state of `before`."""

    before: int | None
    changes: Delta


class GroupIds:
    """Hands out the ids of state groups, in the one process that writes, from where the database ends."""

    def __init__(self, states: StateStore) -> None:
        self._states = states
        self._highest: int | None = None

    async def ready(self) -> None:
        """To be awaited before the first id is asked for. One statement, the first time."""
        if self._highest is None:
            self._highest = await self._states.highest_group()

    def next(self) -> int:
        assert self._highest is not None
        self._highest += 1
        return self._highest


class BatchState:
    """States and events as the batch sees them: what is stored, and what it is about to store."""

    def __init__(self, ids: GroupIds, states: StateStore, events: EventsStore) -> None:
        self._ids = ids
        self._states = states
        self._events = events
        self._made: dict[int, Made] = {}
        self._new: dict[str, Event] = {}

    def add_event(self, event: Event) -> None:
        """The event is part of the batch."""
        self._new[event.event_id] = event

    async def event(self, event_id: str) -> Event | None:
        """An event of the batch or a stored one."""
        event = self._new.get(event_id)
        if event is None:
            stored = await self._events.get(event_id)
            event = None if stored is None else stored.event
        return event

    # -- groups --------------------------------------------------------------------------------------------------

    def begin(self, rows: Rows, room_id: str, entries: Mapping[StateKey, str]) -> Line:
        """A group that is a whole state by itself: the first of a room."""
        group = self._ids.next()
        self._made[group] = Made(None, dict(entries))
        rows.state_groups.append((group, room_id, None, None, 0))
        rows.group_entries += [(group, *key, event_id) for key, event_id in entries.items()]
        return Line.first(group)

    async def follow(self, rows: Rows, room_id: str, line: Line, changes: Delta) -> Line:
        """A group that differs from the end of the line by `changes`."""
        if line.next_base() is None:
            await self._recall(line)
        group = self._ids.next()
        longer, base, entries = line.append(group, changes)
        self._made[group] = Made(line.group, dict(changes))
        rows.state_groups.append((group, room_id, line.group, base, longer.number))
        rows.group_entries += [(group, *key, event_id) for key, event_id in entries.items()]
        return longer

    async def line_of(self, group: int) -> Line:
        """The line that ends in a stored group, or in one of the batch."""
        made = self._made.get(group)
        if made is not None:
            return Line.unknown(group, 0 if made.before is None else (await self.line_of(made.before)).number + 1)
        return Line.unknown(group, (await self._states.places([group]))[group].number)

    async def _recall(self, line: Line) -> None:
        """Let the line know the base of the next group."""
        if line.group in self._made:
            # Its chain is not stored yet. The last group will do as a base; the chain gets a link longer, once.
            line.remember(line.group, {})
            return
        base, changes = await self._states.since(line.group, base_of(line.number + 1))
        line.remember(base, changes)

    async def ids(self, group: int) -> dict[StateKey, str]:
        """The whole state that a group names."""
        steps: list[Delta] = []
        at: int | None = group
        while at is not None and (made := self._made.get(at)) is not None:
            steps.append(made.changes)
            at = made.before
        state = {} if at is None else (await self._states.ids([at]))[at]
        for changes in reversed(steps):
            for key, event_id in changes.items():
                if event_id is None:
                    state.pop(key, None)
                else:
                    state[key] = event_id
        return state

    # -- resolution ------------------------------------------------------------------------------------------------

    async def resolve(self, version: RoomVersion, groups: Collection[int]) -> dict[StateKey, str]:
        """The state in which branches with these states meet."""
        states = [await self.ids(group) for group in sorted(groups)]
        if len(states) == 1:
            return states[0]
        table.EVENTS_RESOLUTIONS.inc()

        async def in_chain(candidates: frozenset[str]) -> Collection[str]:
            shared = set(states[0].values()).intersection(*(state.values() for state in states[1:]))
            return await self._in_chain(shared, candidates)

        return await run_async(resolve(version, states), self._load, in_chain)

    async def _load(self, request: NeedEvents) -> Loaded:
        events = {event_id: self._new[event_id] for event_id in request.ids if event_id in self._new}
        missing = [event_id for event_id in request.ids if event_id not in events]
        read = self._events.with_auth_chains if request.with_chains else self._events.get_many
        stored = await read(missing) if missing else {}
        events.update((event_id, found.event) for event_id, found in stored.items())
        return Loaded(events, {event_id for event_id, found in stored.items() if found.rejected is not None})

    async def _in_chain(self, event_ids: set[str], candidates: frozenset[str]) -> set[str]:
        found: set[str] = set()
        stored: set[str] = set()
        queue = list(event_ids)
        seen = set(queue)
        while queue:
            event_id = queue.pop()
            if event_id not in self._new:
                stored.add(event_id)
                continue
            cited = set(self._new[event_id].auth_event_ids)
            found |= cited & candidates
            queue += cited - seen
            seen |= cited
        return found | await self._events.in_auth_chains(stored, candidates)
