"""`summary` of joined rooms: how many members, and the heroes whose names make up for a missing room name.

Told for rooms that are new to the client, and where a membership, the name or the canonical alias changed. A new
display name is a membership event, but changes nothing of this.

Client-server API, `RoomSummary`.
"""

from __future__ import annotations

from typing import Any

from synapse.api.constants import EventTypes
from synapse.storage.past_state import Delta, PastStateStore
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken

_NAMES = frozenset({EventTypes.NAME, EventTypes.CANONICAL_ALIAS})


class SummarySection:
    """Comes after the timelines, which say what changed."""

    def __init__(self, store: PastStateStore) -> None:
        self._store = store

    async def initial(self, ctx: SyncContext) -> None:
        await self._tell(ctx)

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        await self._tell(ctx)

    async def _tell(self, ctx: SyncContext) -> None:
        rooms: list[str] = []
        members: list[Delta] = []
        for window in ctx.windows.values():
            if window.left:
                continue
            deltas = () if window.whole else ctx.deltas[window.room_id]
            if window.whole or any(delta.type in _NAMES for delta in deltas):
                rooms.append(window.room_id)
            else:
                members += [delta for delta in deltas if delta.type == EventTypes.MEMBER]
        for summary in await self._store.summaries(rooms, ctx.user_id, members):
            told: dict[str, Any] = {"m.joined_member_count": summary.joined, "m.invited_member_count": summary.invited}
            if summary.heroes is not None:
                told["m.heroes"] = summary.heroes
            ctx.room(summary.room_id).summary = told
