"""`unread_notifications` and `unread_thread_notifications` of joined rooms.

Told with every timeline, since the counts that an event changes must come with it, and when the user has read
something: their own receipts changed. Client-server API, "Receiving notifications".
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
        await self._tell(ctx, set(ctx.joined))

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        told = {room_id for room_id, window in ctx.windows.items() if room_id in ctx.rooms and not window.left}
        await self._tell(ctx, told | ctx.read_rooms)

    async def _tell(self, ctx: SyncContext, rooms: set[str]) -> None:
        threads = ctx.filter.room.timeline.unread_thread_notifications
        for room_id, unread in (await self._counts.of(ctx.user_id, rooms, ctx.now.events)).items():
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
