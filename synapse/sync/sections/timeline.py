"""`timeline` of joined and left rooms: the events that are new, or the last ones where there are too many.

What the events stream brought lately is in memory; the database is asked only for what lies further back, and then
for all rooms in one statement. The order is that of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from synapse.storage.past_state import PastStateStore
from synapse.storage.timeline import OLDEST, TimelineRow, TimelineStore, Window
from synapse.sync.conditions import condition
from synapse.sync.context import RoomWindow, SyncContext, Timeline
from synapse.sync.forms import Annotator
from synapse.sync.recent import RecentEvents
from synapse.sync.tokens import RoomToken, StreamToken
from synapse.sync.visibility import VisibilityFilter


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
        rows = await self._rows(ctx, list(ctx.windows.values()))
        limit = ctx.filter.room.timeline.limit
        # One more than the limit was asked for, to know whether there are more.
        shown = {room_id: rows[room_id][-limit:] if limit else [] for room_id in rows}
        access = {room_id: window.access for room_id, window in ctx.windows.items()}
        seen = await self._visibility.visible(shown, access, ctx.user_id, ctx.ignored)
        for room_id, window in ctx.windows.items():
            limited = len(rows[room_id]) > limit
            start = _start(window, shown[room_id], limited)
            ctx.timelines[room_id] = Timeline(seen[room_id], limited, start)
        await self._read_changes(ctx)
        await self._write(ctx)

    async def _rows(self, ctx: SyncContext, windows: Sequence[RoomWindow]) -> dict[str, list[TimelineRow]]:
        found: dict[str, list[TimelineRow]] = {}
        missing: list[Window] = []
        wanted = ctx.filter.room.timeline
        limit = wanted.limit + 1
        for window in windows:
            if wanted.is_closed or not wanted.room_matches(window.room_id):
                found[window.room_id] = []
            elif window.after is not None and self._recent.knows(window.after):
                found[window.room_id] = self._recent.rows(window.room_id, window.after, window.until)
            else:
                after = OLDEST if window.after is None else window.after
                missing.append(Window(window.room_id, after, window.until))
                found[window.room_id] = []
        found = await self._filled(found)
        if not wanted.allows_all_events:
            found = {room_id: [row for row in rows if wanted.matches(row)] for room_id, rows in found.items()}
        if missing:
            found.update(await self._store.last(missing, limit, condition(wanted)))
        return {room_id: rows[-limit:] for room_id, rows in found.items()}

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
        """Fills `ctx.deltas`: what changed in the rooms that the client knows."""
        missing: dict[str, int] = {}
        for window in ctx.windows.values():
            if window.after is None:
                continue
            if self._recent.knows(window.after):
                ctx.deltas[window.room_id] = self._recent.deltas(window.room_id, window.after, window.until)
            else:
                missing[window.room_id] = window.after
                ctx.deltas[window.room_id] = []
        for delta in await self._states.deltas(missing, ctx.now.events):
            if delta.stream <= ctx.windows[delta.room_id].until:
                ctx.deltas[delta.room_id].append(delta)

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


def _start(window: RoomWindow, shown: Sequence[TimelineRow], limited: bool) -> int:
    """The position just before the timeline that is told."""
    if shown and (limited or window.after is None):
        return shown[0].stream - 1
    if limited or window.after is None:
        return window.until
    return window.after
