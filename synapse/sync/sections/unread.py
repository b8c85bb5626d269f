"""`unread_notifications` and `unread_thread_notifications` of joined rooms.

Told with every timeline, since the counts that an event changes must come with it, and when the user has read
something: their own receipts changed. Client-server API, "Receiving notifications".
"""

from __future__ import annotations

from synapse.storage.unread import MAIN, UnreadStore
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken


class UnreadSection:
    """Comes after the timelines and the receipts."""

    def __init__(self, store: UnreadStore) -> None:
        self._store = store

    async def initial(self, ctx: SyncContext) -> None:
        await self._tell(ctx, set(ctx.joined))

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        told = {room_id for room_id, window in ctx.windows.items() if room_id in ctx.rooms and not window.left}
        await self._tell(ctx, told | ctx.read_rooms)

    async def _tell(self, ctx: SyncContext, rooms: set[str]) -> None:
        threads = ctx.filter.room.timeline.unread_thread_notifications
        found: dict[str, dict[str, dict[str, int]]] = {room_id: {} for room_id in rooms}
        for counts in await self._store.counts(ctx.user_id, list(rooms), ctx.now.events):
            thread = counts.thread_id if threads else MAIN
            total = found[counts.room_id].setdefault(thread, {"notification_count": 0, "highlight_count": 0})
            total["notification_count"] += counts.notifications
            total["highlight_count"] += counts.highlights
        for room_id, by_thread in found.items():
            room = ctx.room(room_id)
            room.unread = by_thread.pop(MAIN, None) or {"notification_count": 0, "highlight_count": 0}
            if by_thread:
                room.unread_threads = by_thread
