"""Where an event stands among the branches of its room, and what becomes of the room's present state.

Theory of operation. A room's present state is the state of its end's group (`RoomEnd.line`). In the straight case, an
event refers to all extremities: it finds the present state, and what it changes is the change of the present state.
Otherwise it opens a branch, the extremities disagree, and the present state becomes the resolution of theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.state.groups import Delta, Line
from synapse.storage.persist_derived import Change
from synapse.storage.persist_events import Replaced
from synapse.storage.persist_rows import Rows
from synapse.storage.persist_state import BatchState

if TYPE_CHECKING:
    from synapse.state.store import StateReader
    from synapse.storage.persist_resolution import Resolver
    from synapse.storage.persist_room import RoomEnd, RoomEnds


class Branches:
    """The states of a batch's rooms, as each event finds and leaves them."""

    def __init__(self, committed: RoomEnds, state: BatchState, resolver: Resolver, reader: StateReader) -> None:
        self._committed = committed
        self._state = state
        self._resolver = resolver
        self._reader = reader

    # -- before and after an event ---------------------------------------------------------------------------------

    async def groups_after(self, end: RoomEnd, event_ids: Iterable[str]) -> dict[str, int]:
        """The state groups after those of the events that are here and no outliers. One statement at most."""
        groups: dict[str, int] = {}
        unknown: list[str] = []
        for event_id in event_ids:
            extremity = end.extremities.get(event_id)
            group = extremity.group if extremity is not None else end.recent.get(event_id)
            if group is None and self._is_of(event_id, end.room_id):
                group = self._state.group_after.get(event_id)
            if group is None:
                unknown.append(event_id)
            else:
                groups[event_id] = group
        if unknown:
            groups.update(await self._committed.groups_after(end.room_id, unknown))
        return groups

    def _is_of(self, event_id: str, room_id: str) -> bool:
        """Whether an event of the batch belongs to that room, whoever says that it comes before one there."""
        event = self._state.new.get(event_id) or self._state.left_out.get(event_id)
        return event is None or event.room_id == room_id

    async def where_they_meet(self, end: RoomEnd, groups: Collection[int], rows: Rows, most: int | None = None) -> Line:
        """The state in which branches with the states of these groups, one at least, meet.

        Raises `TooDisputed` where they disagree on more than `most` entries.
        """
        if end.line is not None and set(groups) == {end.line.group}:
            return end.line
        if len(groups) == 1:
            return await self._state.line_of(next(iter(groups)))
        base = await self._state.line_of(max(groups))
        changes = await self._resolver.meet(end.version, groups, base.group, most)
        return await self._state.follow(rows, end.room_id, base, changes) if changes else base

    async def as_told(self, end: RoomEnd, state: Mapping[StateKey, str], base: Line | None, rows: Rows) -> Line:
        """A whole state that somebody else has told: as a change of `base`, or all of it without one."""
        if base is None:
            return self._state.begin(rows, end.room_id, state)
        known = await self._state.ids(base.group)
        changes: Delta = {key: event_id for key, event_id in state.items() if known.get(key) != event_id}
        changes.update(dict.fromkeys(known.keys() - state.keys()))
        return await self._state.follow(rows, end.room_id, base, changes) if changes else base

    async def after(self, before: Line | None, event: Event, rows: Rows) -> Line:
        """The state that an event leaves."""
        if before is None:
            return self._state.begin(rows, event.room_id, {event.key: event.event_id})
        if event.state_key is None:
            return before
        return await self._state.follow(rows, event.room_id, before, {event.key: event.event_id})

    # -- the present -----------------------------------------------------------------------------------------------

    async def move(
        self,
        end: RoomEnd,
        before: Line | None,
        after: Line,
        event: Event,
        old: Replaced | None,
        rows: Rows,
        most: int | None = None,
    ) -> list[Change]:
        """Bring the room's present state up to date with its new extremities; what changed in it.

        `old` is the entry whose place the event takes, where that is known. Raises `TooDisputed` where the extremities
        disagree on more than `most` entries.
        """
        groups = {extremity.group for extremity in end.extremities.values()}
        present = end.line
        if present is not None and groups == {present.group}:
            return []
        if present is None or (present is before and groups == {after.group}):
            end.line = after
            return [Change(event.key, old if old is not None else await self.entry(end, event.key), event)]
        changes = await self._resolver.meet(end.version, groups, present.group, most)
        if changes:
            is_whole = groups == {after.group}
            end.line = after if is_whole else await self._state.follow(rows, end.room_id, present, changes)
        return [await self._change(end, key, event_id) for key, event_id in changes.items()]

    async def _change(self, end: RoomEnd, key: StateKey, event_id: str | None) -> Change:
        new = None if event_id is None else await self._state.event(event_id)
        return Change(key, await self.entry(end, key), new)

    async def entry(self, end: RoomEnd, key: StateKey) -> Replaced:
        """An entry of the present state, as what it is to be replaced by a new one."""
        event = await self.present(end, key)
        return Replaced(None) if event is None else Replaced(event.event_id, event.membership)

    async def present(self, end: RoomEnd, key: StateKey) -> Event | None:
        """An entry of the room's present state, with what the batch has changed so far."""
        return (await self.present_state(end, [key])).get(key)

    async def present_state(self, end: RoomEnd, keys: Collection[StateKey]) -> dict[StateKey, Event]:
        """Entries of the room's present state, with what the batch has changed so far. No statement when warm."""
        found = {key: event for key in keys if (event := end.changed.get(key)) is not None}
        others = [key for key in keys if key not in end.changed]
        if others and end.is_new:
            assert end.line is not None
            found.update(await self._state.events(await self._state.entries(end.line.group, others)))
        elif others:
            stored = await self._reader.current(end.room_id, others)
            found.update((key, entry.event) for key, entry in stored.items())
        return found

    async def state_of(self, end: RoomEnd, line: Line, keys: Collection[StateKey]) -> dict[StateKey, Event]:
        """Entries of the state that a line ends in."""
        if end.line is not None and line.group == end.line.group:
            return await self.present_state(end, keys)
        ids = await self._state.entries(line.group, keys)
        return await self._state.events(ids)

    async def check_present(self, end: RoomEnd, event: Event) -> None:
        """Raises AuthError unless the room's present state allows the event."""
        auth.check(event, await self.present_state(end, auth.auth_types_for_event(event)))
