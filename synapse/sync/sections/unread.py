"""`unread_notifications` and `unread_thread_notifications` of joined rooms.

Told with every timeline, since the counts that an event changes must come with it, and when the user has read
something: their own receipts changed. Also where a filter keeps the event that changes them out of the timeline.

Client-server API, "Receiving notifications".
"""

from __future__ import annotations

from synapse.storage.unread import MAIN
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken
from synapse.sync.unread import UnreadCounts


class UnreadSection:
    """Comes after the timelines and the receipts."""

    def __init__(self, counts: UnreadCounts) -> None:
        self._counts = counts

    async def initial(self, ctx: SyncContext) -> None:
        await self._tell(ctx, set(ctx.joined), set())

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        active = {room_id for room_id, window in ctx.windows.items() if not window.left}
        told = active.intersection(ctx.rooms) | ctx.read_rooms
        await self._tell(ctx, told, active - told)

    async def _tell(self, ctx: SyncContext, rooms: set[str], silent: set[str]) -> None:
        """Of the silent rooms only those whose counts have changed."""
        threads = ctx.filter.room.timeline.unread_thread_notifications
        after = 0 if ctx.since is None else ctx.since.events
        for room_id, unread in (await self._counts.of(ctx.user_id, rooms | silent, ctx.now.events)).items():
            if room_id in silent and not self._counts.changed_since(ctx.user_id, room_id, unread, after):
                continue
            by_thread: dict[str, dict[str, int]] = {}
            for counts in unread:
                thread = counts.thread_id if threads else MAIN
                total = by_thread.setdefault(thread, {"notification_count": 0, "highlight_count": 0})
                total["notification_count"] += counts.notifications
                total["highlight_count"] += counts.highlights
            room = ctx.room(room_id)
            room.unread = by_thread.pop(MAIN, None) or {"notification_count": 0, "highlight_count": 0}
            if by_thread:
                room.unread_threads = by_thread
