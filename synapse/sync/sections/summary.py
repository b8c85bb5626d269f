"""`summary` of joined rooms: how many members, and the heroes whose names make up for a missing room name.

Told for rooms that are new to the client, and where a membership, the name or the canonical alias changed.

Client-server API, `RoomSummary`.
"""

from __future__ import annotations

from typing import Any

from synapse.api.constants import EventTypes
from synapse.storage.past_state import PastStateStore
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken

_DECISIVE = frozenset({EventTypes.MEMBER, EventTypes.NAME, EventTypes.CANONICAL_ALIAS})


class SummarySection:
    """Comes after the timelines, which say what changed."""

    def __init__(self, store: PastStateStore) -> None:
        self._store = store

    async def initial(self, ctx: SyncContext) -> None:
        await self._tell(ctx)

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        await self._tell(ctx)

    async def _tell(self, ctx: SyncContext) -> None:
        rooms = [
            window.room_id
            for window in ctx.windows.values()
            if not window.left
            and (window.whole or any(delta.type in _DECISIVE for delta in ctx.deltas[window.room_id]))
        ]
        for summary in await self._store.summaries(rooms, ctx.user_id):
            told: dict[str, Any] = {"m.joined_member_count": summary.joined, "m.invited_member_count": summary.invited}
            if summary.heroes is not None:
                told["m.heroes"] = summary.heroes
            ctx.room(summary.room_id).summary = told
