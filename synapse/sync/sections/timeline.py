"""`timeline` of joined and left rooms: the events that are new, or the last ones where there are too many.

What the events stream brought lately is in memory; the database is asked only for what lies further back, and then
for all rooms in one statement. The order is that of arrival.

History visibility may hide some of the last events. A client that goes on from a token is then looked further back
for, so that it does not take for a gap what it may not see; how far, is bounded.

Where events of other servers are missing, a timeline begins behind the gap: what was before it is for whoever pages
back, and may be fetched then. A room that this server has come back to is told anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import orjson

from synapse.api.filters import RoomEventFilter
from synapse.storage.past_state import Delta, Entry, PastStateStore
from synapse.storage.timeline import ALWAYS, OLDEST, Condition, TimelineRow, TimelineStore, Window
from synapse.sync.conditions import condition
from synapse.sync.context import RoomWindow, SyncContext, Timeline
from synapse.sync.forms import Annotator
from synapse.sync.recent import RecentEvents
from synapse.sync.tokens import RoomToken, StreamToken
from synapse.sync.visibility import Seen, VisibilityFilter

_ROUNDS: Final = 3  # of looking further back; each is wider than the one before
_WIDER: Final = 8
_SEARCHED: Final = 20  # rooms in which it is looked further back


@dataclass(slots=True)
class _Search:
    """What is found of one room, from the end of its window backwards."""

    window: RoomWindow
    until: int  # before this, it is yet to be looked
    seen: list[Seen] = field(default_factory=list)
    done: bool = False  # there is nothing further back
    gap: int | None = None  # the position of the last event that does not join on to what was before it

    def add(self, rows: list[TimelineRow], seen: list[Seen], complete: bool) -> None:
        self.gap = next((row.stream for row in reversed(rows) if row.after_gap), None)
        if self.gap is not None:
            seen = [each for each in seen if each.row.stream >= (self.gap or 0)]
        self.seen = seen + self.seen
        self.done = complete or self.gap is not None
        if rows:
            self.until = rows[0].stream - 1


class TimelineSection:
    """Finds what happened in `ctx.windows`, for the sections after it as well, and writes the timelines."""

    def __init__(
        self,
        store: TimelineStore,
        states: PastStateStore,
        recent: RecentEvents,
        visibility: VisibilityFilter,
        annotator: Annotator,
    ) -> None:
        self._store = store
        self._states = states
        self._recent = recent
        self._visibility = visibility
        self._annotator = annotator

    async def initial(self, ctx: SyncContext) -> None:
        await self._tell(ctx)

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        await self._tell(ctx)

    async def _tell(self, ctx: SyncContext) -> None:
        if not ctx.windows:
            return
        await self._read_changes(ctx)
        limit = ctx.filter.room.timeline.limit
        for search in await self._search(ctx, limit):
            window, seen = search.window, search.seen
            limited = not search.done or len(seen) > limit or search.gap is not None
            shown = seen[-limit:] if limit else []
            start = _start(window, shown, limited)
            if search.gap is not None and not shown:
                start = search.gap - 1  # what is behind the gap is told, although nothing of it is shown
            if window.after is None and ctx.since is not None and window.access.joined is not None:
                limited = True  # whatever the client had of the room before it was (re)joined does not join on to this
            ctx.timelines[window.room_id] = Timeline(shown, limited, start)
        await self._write(ctx)

    async def _search(self, ctx: SyncContext, limit: int) -> list[_Search]:
        """For each window more events than the limit, where there are so many that the user may see."""
        searches = [_Search(window, window.until) for window in ctx.windows.values()]
        width = limit + 1
        await self._look(ctx, searches, width)
        if ctx.since is None:
            return searches
        for _ in range(_ROUNDS - 1):
            unfinished = (s for s in searches if not s.done and len(s.seen) <= limit)
            further = list(islice(unfinished, _SEARCHED))
            if not further:
                break
            width *= _WIDER
            await self._look(ctx, further, width)
        return searches

    async def _look(self, ctx: SyncContext, searches: list[_Search], width: int) -> None:
        wanted = ctx.filter.room.timeline
        rows = self._remembered(ctx, searches)
        missing = [
            Window(s.window.room_id, _after(s.window), s.until) for s in searches if s.window.room_id not in rows
        ]
        rows = {room_id: room_rows[-width:] for room_id, room_rows in rows.items()}
        whole = {room_id for room_id, room_rows in rows.items() if len(room_rows) < width}
        rows = await self._filled(rows)
        if missing:
            read = await self._store.last(missing, width, _or_gap(wanted))
            rows |= {window.room_id: read.get(window.room_id, []) for window in missing}
            whole.update(window.room_id for window in missing if len(rows[window.room_id]) < width)
        rows |= await self._own_turns(ctx, [search for search in searches if not rows[search.window.room_id]])
        access = {search.window.room_id: search.window.access for search in searches}
        seen = await self._visibility.visible(rows, access, ctx.user_id, ctx.ignored, _present(ctx, rows))
        if in_force := await self._in_force(ctx, rows, seen):
            again = {room_id: rows[room_id] for room_id, _, _ in in_force}
            known = frozenset(in_force.values())
            seen |= await self._visibility.visible(again, access, ctx.user_id, ctx.ignored, known)
        for search in searches:
            room_id = search.window.room_id
            told = seen[room_id] if wanted.allows_all_events else [s for s in seen[room_id] if _passes(s.row, wanted)]
            search.add(rows[room_id], told, room_id in whole)

    async def _own_turns(self, ctx: SyncContext, searches: list[_Search]) -> dict[str, list[TimelineRow]]:
        """Who was never in a room, and turned away, is told just that; it may be in no timeline of this server's."""
        wanted = ctx.filter.room.timeline
        turned = {
            search.window.until: search.window.room_id
            for search in searches
            if search.window.left and search.window.access.joined is None and search.until == search.window.until
        }
        if not turned or wanted.is_closed:
            return {}
        return {row.room_id: [row] for row in await self._store.turns(list(turned)) if row.room_id in turned.values()}

    async def _in_force(
        self, ctx: SyncContext, rows: Mapping[str, list[TimelineRow]], seen: Mapping[str, list[Seen]]
    ) -> dict[Entry, str]:
        """Of rooms that are new to the client, the entries of the state whose events are hidden in the timeline.

        An older event of the same entry may be shown there, which the client would take for what holds.
        """
        hidden: dict[Entry, str] = {}
        for room_id, room_rows in rows.items():
            window = ctx.windows[room_id]
            if window.left or window.after is not None or len(room_rows) == len(seen[room_id]):
                continue
            shown = {s.row.event_id for s in seen[room_id]}
            for row in room_rows:
                if row.state_key is not None and row.event_id not in shown:
                    hidden[room_id, row.type, row.state_key] = row.event_id
        entries = await self._states.dated_entries(list(hidden))
        return {
            entry: event_id
            for entry, event_id in hidden.items()
            if entry in entries and entries[entry][1].event_id == event_id
        }

    def _remembered(self, ctx: SyncContext, searches: list[_Search]) -> dict[str, list[TimelineRow]]:
        """The events that pass the filter of each window that is in memory."""
        found: dict[str, list[TimelineRow]] = {}
        wanted = ctx.filter.room.timeline
        for search in searches:
            window = search.window
            room_id, after = window.room_id, window.after
            if wanted.is_closed or not wanted.room_matches(room_id):
                found[room_id] = []
            elif after is not None and self._recent.knows(after) and not wanted.asks_for_relations:
                rows = self._recent.rows(room_id, after, search.until)
                if not wanted.allows_all_events:
                    rows = [row for row in rows if wanted.matches(row) or row.after_gap]
                found[room_id] = rows
        return found

    async def _filled(self, found: dict[str, list[TimelineRow]]) -> dict[str, list[TimelineRow]]:
        """Reads what was too large to come with the stream, or was redacted since."""
        holes = [row.event_id for rows in found.values() for row in rows if not row.json]
        if not holes:
            return found
        read = await self._store.get(holes)
        return {
            room_id: [row if row.json else read[row.event_id] for row in rows if row.json or row.event_id in read]
            for room_id, rows in found.items()
        }

    async def _read_changes(self, ctx: SyncContext) -> None:
        """Fills `ctx.deltas`: what changed in the rooms that the client knows, as far as the user may know."""
        missing: dict[str, int] = {}
        for window in ctx.windows.values():
            if window.after is None:
                continue
            if self._recent.knows(window.after):
                deltas = self._recent.deltas(window.room_id, window.after, window.until)
                ctx.deltas[window.room_id] = deltas if window.access.until is None else _open(ctx, window, deltas)
            else:
                missing[window.room_id] = window.after
                ctx.deltas[window.room_id] = []
        for delta in await self._states.deltas(missing, ctx.now.events):
            ctx.deltas[delta.room_id] += _open(ctx, ctx.windows[delta.room_id], [delta])
        for room_id, deltas in list(ctx.deltas.items()):
            if any(delta.is_entry for delta in deltas):
                # What the client knows of the room is from before this server left it.
                ctx.windows[room_id].after = None
                del ctx.deltas[room_id]

    async def _write(self, ctx: SyncContext) -> None:
        told = [seen.row for timeline in ctx.timelines.values() for seen in timeline.seen]
        # Where everything new is told, clients relate events to each other themselves.
        gaps = {room_id: ctx.windows[room_id].access for room_id, t in ctx.timelines.items() if t.limited}
        notes = await self._annotator.notes(told, ctx.user_id, ctx.device_id, gaps)
        form = ctx.forms.form
        for room_id, timeline in ctx.timelines.items():
            window = ctx.windows[room_id]
            if not timeline.seen and not timeline.limited and not window.whole:
                continue
            room = ctx.room(room_id)
            room.timeline = [orjson.Fragment(form(row, notes, membership)) for row, membership in timeline.seen]
            room.limited = timeline.limited
            room.prev_batch = str(RoomToken(None, timeline.start))
            await ctx.breath.after(len(timeline.seen))


def _after(window: RoomWindow) -> int:
    return OLDEST if window.after is None else window.after


def _or_gap(wanted: RoomEventFilter) -> Condition:
    """The events that are wanted, and those that do not join on to what was before them."""
    sql, params = passes = condition(wanted)
    return passes if passes is ALWAYS or wanted.asks_for_relations else Condition(f"({sql}) OR e.after_gap", params)


def _passes(row: TimelineRow, wanted: RoomEventFilter) -> bool:
    return not row.after_gap or wanted.asks_for_relations or wanted.matches(row)


def _open(ctx: SyncContext, window: RoomWindow, deltas: Iterable[Delta]) -> list[Delta]:
    """Those changes of a room's state that its window covers: of a room that the user has left, what they were there
    for, and what became of themselves.
    """
    access = window.access
    last = window.until if access.until is None else access.until if access.joined is not None else OLDEST
    own = ctx.user_id
    return [d for d in deltas if d.stream <= window.until and (d.stream <= last or d.is_membership_of(own))]


def _present(ctx: SyncContext, rows: Mapping[str, list[TimelineRow]]) -> frozenset[str]:
    """The state events among these that are in force in rooms where the user is.

    They are told with the state in any case. Where they happened while the user was away, clients expect them in the
    timeline.
    """
    known: set[str] = set()
    for room_id in rows:
        if ctx.windows[room_id].left:
            continue
        last = {(delta.type, delta.state_key): delta.event_id for delta in ctx.deltas.get(room_id, ())}
        known.update(event_id for event_id in last.values() if event_id is not None)
    return frozenset(known)


def _start(window: RoomWindow, shown: list[Seen], limited: bool) -> int:
    """The position just before the timeline that is told."""
    if shown and (limited or window.after is None):
        return shown[0].row.stream - 1
    if limited or window.after is None:
        return window.until
    return window.after
