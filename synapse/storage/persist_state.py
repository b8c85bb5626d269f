"""The state groups of a batch of events that is being planned: new ones, and the states that they and older ones name.

The new groups are not in the database yet, so what is asked about them is answered from here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, NamedTuple

from synapse.events.event import Event, StateKey
from synapse.state.filters import StateFilter
from synapse.state.groups import Delta, Line, base_of
from synapse.storage.persist_rows import Rows

if TYPE_CHECKING:
    from synapse.storage.events import EventsStore, StoredEvent
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
    """States and events as the batch sees them: what is stored, and what it is about to store (`new`, by id)."""

    def __init__(self, ids: GroupIds, states: StateStore, events: EventsStore) -> None:
        self._ids = ids
        self._states = states
        self._events = events
        self._made: dict[int, Made] = {}
        self.new: dict[str, Event] = {}
        self.group_after: dict[str, int] = {}  # of received events of the batch
        self.left_out: dict[str, Event] = {}  # received events of the batch that were rejected or have soft-failed
        self.rejected: set[str] = set()

    def add_event(self, event: Event) -> None:
        """The event is part of the batch."""
        self.new[event.event_id] = event

    async def event(self, event_id: str) -> Event | None:
        """An event of the batch or a stored one."""
        event = self.new.get(event_id)
        if event is None:
            stored = await self._events.get(event_id)
            event = None if stored is None else stored.event
        return event

    async def events(self, ids: Mapping[StateKey, str]) -> dict[StateKey, Event]:
        """The events of a state. One statement at most."""
        unknown = [event_id for event_id in ids.values() if event_id not in self.new]
        stored = await self._events.get_many(unknown) if unknown else {}
        events = {event_id: found.event for event_id, found in stored.items()}
        return {key: self.new.get(i) or events[i] for key, i in ids.items() if i in self.new or i in events}

    async def stored(self, event_ids: Collection[str]) -> dict[str, StoredEvent]:
        """Those of the events that are stored, with what is known of them. One statement at most."""
        return await self._events.get_many(event_ids) if event_ids else {}

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
        stored, steps = self._steps(group)
        return _applied({} if stored is None else (await self._states.ids([stored]))[stored], steps)

    async def entries(self, group: int, keys: Collection[StateKey]) -> dict[StateKey, str]:
        """Those of the entries that the state of a group has. One statement at most."""
        stored, steps = self._steps(group)
        wanted = StateFilter.keys(keys)
        state = (await self._states.ids([stored], wanted))[stored] if stored is not None and keys else {}
        return _applied(state, [{k: e for k, e in changes.items() if k in keys} for changes in steps])

    async def differences(self, groups: Collection[int]) -> dict[int, Delta]:
        """As `StateStore.differences`, also of groups that the batch makes."""
        steps = {group: self._steps(group) for group in groups}
        stored = {ancestor for ancestor, _changes in steps.values() if ancestor is not None}
        found = await self._states.differences(stored)
        differing = {key for state in found.values() for key in state}
        changed = {key for _ancestor, changes in steps.values() for change in changes for key in change}
        # In what differs only since the batch began, the stored groups are all the same.
        some = next(iter(stored), None)
        below = {} if some is None else await self.entries(some, changed - differing)
        result: dict[int, Delta] = {}
        for group, (ancestor, changes) in steps.items():
            state: Delta = {key: below.get(key) for key in changed}
            state.update(found.get(ancestor, {}) if ancestor is not None else {})
            for change in changes:
                state.update(change)
            result[group] = state
        return result

    def _steps(self, group: int) -> tuple[int | None, list[Delta]]:
        """The stored group that a group goes back to, None if its room begins in the batch, and what changed since."""
        steps: list[Delta] = []
        at: int | None = group
        while at is not None and (made := self._made.get(at)) is not None:
            steps.append(made.changes)
            at = made.before
        steps.reverse()
        return at, steps


def _applied(state: dict[StateKey, str], steps: list[Delta]) -> dict[StateKey, str]:
    for changes in steps:
        for key, event_id in changes.items():
            if event_id is None:
                state.pop(key, None)
            else:
                state[key] = event_id
    return state
