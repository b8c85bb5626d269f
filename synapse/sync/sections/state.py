"""`state` and `state_after` of joined and left rooms: what the timeline alone does not tell of a room's state.

Two forms. `state_after` is the state (or what changed of it) at the end of the timeline. The classic `state` is the
state at its start, to which the client adds the state events of the timeline; where that would miss the truth,
because an entry changed without its event in this timeline (a filter hid it, or the resolution of a fork chose anew),
the entry goes there as well.

State is by position: the present state with later changes undone, see `synapse.storage.past_state`. With
`lazy_load_members`, members are told when they speak; `LazyMembers` remembers whom a device knows already.

Client-server API, "Syncing" and "Lazy-loading room members".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import orjson

from synapse.api.constants import EventTypes
from synapse.storage.past_state import Delta, Entry, PastStateStore
from synapse.storage.timeline import NEWEST, TimelineRow
from synapse.sync.context import RoomWindow, SyncContext, Timeline
from synapse.sync.forms import Annotator, Notes
from synapse.sync.lazy_members import LazyMembers
from synapse.sync.room_states import RoomStates, StateEvent
from synapse.sync.tokens import StreamToken

Key = tuple[str, str]
"""(event type, state key)."""

Ids = dict[Key, str]
"""Event ids of a state, or of what changed of it."""


class StateSection:
    """Writes the state of `ctx.windows`; comes after the timelines and the summaries."""

    def __init__(
        self, store: PastStateStore, rooms: RoomStates, annotator: Annotator, lazy_members: LazyMembers
    ) -> None:
        self._store = store
        self._rooms = rooms
        self._annotator = annotator
        self._lazy_members = lazy_members

    async def initial(self, ctx: SyncContext) -> None:
        await self._tell(ctx)

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        await self._tell(ctx)

    async def _tell(self, ctx: SyncContext) -> None:
        if not ctx.windows:
            return
        found = _Found()
        for window in ctx.windows.values():
            found.ids[window.room_id] = {} if window.whole else _changed(ctx, window)
        await self._read_whole(ctx, found)
        await self._read_speakers(ctx, found)
        await self._write(ctx, found)

    async def _read_whole(self, ctx: SyncContext, found: _Found) -> None:
        """The full state of the rooms that the client does not know (or wants anew)."""
        # Who was never joined is told of their own membership, and nothing of the room.
        whole = {w.room_id: w for w in ctx.windows.values() if w.whole and w.access.joined is not None}
        if not whole:
            return
        wanted: dict[str, Collection[str]] | None = None
        if ctx.filter.room.state.lazy_load_members:
            wanted = {room_id: self._wanted(ctx, window) for room_id, window in whole.items()}
        states = await (self._rooms.whole(whole) if wanted is None else self._rooms.lazily(wanted))
        for room_id, state in states.items():
            found.add(room_id, state.events)
        positions = {room_id: _position(ctx, window) for room_id, window in whole.items()}
        changed = {room_id: p for room_id, p in positions.items() if states[room_id].changed > p}
        later: dict[str, list[Delta]] = {room_id: [] for room_id in changed}
        for delta in await self._store.deltas(changed, NEWEST):
            later[delta.room_id].append(delta)
        for room_id, changes in later.items():
            _undo(found.ids[room_id], changes, None if wanted is None else wanted[room_id])
            if not ctx.state_after:
                timeline = ctx.timelines[room_id]
                _add_untold(found.ids[room_id], changes, timeline, whole[room_id].until)
                _add_first(found.ids[room_id], changes, timeline, () if wanted is None else wanted[room_id])

    async def _read_speakers(self, ctx: SyncContext, found: _Found) -> None:
        """With lazy loading, the members who speak in the timelines and whom the device does not know."""
        if not ctx.filter.room.state.lazy_load_members:
            return
        unchanged: list[Entry] = []
        for window in ctx.windows.values():
            if not window.whole and window.access.joined is not None:
                unchanged += self._speakers(ctx, window, found.ids[window.room_id])
        entries = await self._store.dated_entries(unchanged)
        late: dict[str, int] = {}
        for (room_id, event_type, user_id), (since, row) in entries.items():
            found.ids[room_id][event_type, user_id] = row.event_id
            found.rows[row.event_id] = row
            if since > ctx.windows[room_id].until:
                late[room_id] = ctx.windows[room_id].until
        changes: dict[str, list[Delta]] = {}
        for delta in await self._store.deltas(late, NEWEST):
            if delta.entry in entries:
                changes.setdefault(delta.room_id, []).append(delta)
        for room_id, later in changes.items():
            _undo(found.ids[room_id], later, None)

    def _speakers(self, ctx: SyncContext, window: RoomWindow, state: Ids) -> list[Entry]:
        """Adds the members whose events we know to the state; returns the entries that are to be read."""
        start = window.until if ctx.state_after else ctx.timelines[window.room_id].start
        later = [d for d in ctx.deltas[window.room_id] if _is_later(d, start)]
        before = {d.state_key: d.prev_event_id for d in reversed(later)}
        unchanged: list[Entry] = []
        wanted = self._wanted(ctx, window)
        for user_id in wanted:
            key = (EventTypes.MEMBER, user_id)
            if key in state:
                continue
            if user_id not in before:
                unchanged.append((window.room_id, *key))
            elif (event_id := before[user_id]) is not None:
                state[key] = event_id
        _add_first(state, later, ctx.timelines[window.room_id], wanted)
        return unchanged

    def _wanted(self, ctx: SyncContext, window: RoomWindow) -> list[str]:
        """Whose membership the client needs for this room, its own included where the room is new."""
        users = {seen.row.sender for seen in ctx.timelines[window.room_id].seen}
        users.update(self._heroes(ctx, window.room_id))
        if window.whole:  # a client that begins anew with a room knows nobody there
            users.add(ctx.user_id)
            users.update(d.state_key for d in ctx.deltas.get(window.room_id, ()) if d.type == EventTypes.MEMBER)
        if window.whole or ctx.filter.room.state.include_redundant_members:
            return sorted(users)
        return sorted(users - self._lazy_members.known(ctx.user_id, ctx.device_id, window.room_id))

    def _heroes(self, ctx: SyncContext, room_id: str) -> Iterable[str]:
        room = ctx.rooms.get(room_id)
        return () if room is None or room.summary is None else room.summary.get("m.heroes", ())

    async def _write(self, ctx: SyncContext, found: _Found) -> None:
        rows = found.rows
        for timeline in ctx.timelines.values():
            rows.update((seen.row.event_id, seen.row) for seen in timeline.seen)
        missing = [e for state in found.ids.values() for e in state.values() if found.lacks(e, ctx)]
        rows.update(await self._store.events(missing))
        wanted = ctx.filter.room.state
        told: dict[str, list[TimelineRow]] = {}
        for room_id, state in found.ids.items():
            told[room_id] = [rows[event_id] for event_id in state.values() if event_id in rows]
            if not wanted.allows_all_events or not wanted.room_matches(room_id):
                told[room_id] = [row for row in told[room_id] if wanted.matches(row)]
        notes = await self._annotator.versions(row for state in told.values() for row in state if row.json)
        for room_id, events in told.items():
            if events:
                ctx.room(room_id).state = [orjson.Fragment(found.form(ctx, row, notes)) for row in events]
            if wanted.lazy_load_members:
                ctx.introduced[room_id] = _introduced(events, ctx.timelines[room_id])
            await ctx.breath.after(len(events))


class _Found:
    """The states as they are put together: event ids by room and key, and what is at hand of these events."""

    def __init__(self) -> None:
        self.ids: dict[str, Ids] = {}
        self.rows: dict[str, TimelineRow] = {}
        self.heads: dict[str, bytes] = {}

    def add(self, room_id: str, events: Iterable[StateEvent]) -> None:
        """A state from memory, of which forms are at hand but no JSON."""
        ids = self.ids[room_id]
        for _, row, head in events:
            ids[row.type, row.state_key or ""] = row.event_id
            self.rows[row.event_id] = row
            self.heads[row.event_id] = head

    def lacks(self, event_id: str, ctx: SyncContext) -> bool:
        """Whether the event has to be read to be told."""
        row = self.rows.get(event_id)
        return row is None or (not row.json and ctx.filter.federation_format)

    def form(self, ctx: SyncContext, row: TimelineRow, notes: Notes) -> bytes:
        head = None if row.json else self.heads.get(row.event_id)
        return ctx.forms.form(row, notes) if head is None else ctx.forms.of_head(head, row)


def _introduced(state: Iterable[TimelineRow], timeline: Timeline) -> list[str]:
    """The members of whom this tells."""
    told = [*state, *(seen.row for seen in timeline.seen)]
    return [row.state_key for row in told if row.type == EventTypes.MEMBER and row.state_key is not None]


def _is_later(delta: Delta, start: int) -> bool:
    return delta.type == EventTypes.MEMBER and delta.stream > start


def _position(ctx: SyncContext, window: RoomWindow) -> int:
    """As of which position the full state is told."""
    position = window.until if ctx.state_after else ctx.timelines[window.room_id].start
    return position if window.access.until is None else min(position, window.access.until)


def _undo(state: Ids, later: Iterable[Delta], members: Collection[str] | None) -> None:
    """Brings the state back to before the changes `later`; of members only these, where only these were read."""
    seen: set[Key] = set()
    for delta in later:
        key = (delta.type, delta.state_key)
        if key in seen:
            continue
        seen.add(key)
        if members is not None and delta.type == EventTypes.MEMBER and delta.state_key not in members:
            continue
        if delta.prev_event_id is None:
            state.pop(key, None)
        else:
            state[key] = delta.prev_event_id


def _changed(ctx: SyncContext, window: RoomWindow) -> Ids:
    """What is to be told of the changed state of a room that the client knows."""
    deltas = ctx.deltas[window.room_id]
    timeline = ctx.timelines[window.room_id]
    if ctx.state_after:
        changed: dict[Key, str | None] = {(d.type, d.state_key): d.event_id for d in deltas}
        return {key: event_id for key, event_id in changed.items() if event_id is not None}
    changed = {(d.type, d.state_key): d.event_id for d in deltas if d.stream <= timeline.start}
    state = {key: event_id for key, event_id in changed.items() if event_id is not None}
    _add_untold(state, [d for d in deltas if d.stream > timeline.start], timeline, window.until)
    return state


def _add_first(state: Ids, later: Iterable[Delta], timeline: Timeline, users: Iterable[str]) -> None:
    """Adds the first memberships of those who came after the start of the timeline, hidden from it, and speak in it."""
    first: dict[str, str | None] = {}
    for delta in later:
        if delta.type == EventTypes.MEMBER:
            first.setdefault(delta.state_key, delta.event_id)
    told = {seen.row.event_id for seen in timeline.seen}
    for user_id in users:
        event_id = first.get(user_id)
        if event_id is not None and event_id not in told:
            state.setdefault((EventTypes.MEMBER, user_id), event_id)


def _add_untold(state: Ids, later: Iterable[Delta], timeline: Timeline, until: int) -> None:
    """Adds the entries that changed after the start of the timeline and whose event is not in it."""
    last = {(delta.type, delta.state_key): delta.event_id for delta in later if delta.stream <= until}
    told = {seen.row.event_id for seen in timeline.seen}
    for key, event_id in last.items():
        if event_id is not None and event_id not in told:
            state[key] = event_id
