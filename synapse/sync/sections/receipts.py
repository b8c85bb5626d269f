"""`m.receipt` among the `ephemeral` events of joined rooms: who has read how far. Private receipts go to their owner
alone.

One event for each room and thread, with all that changed there: a user may have several receipts at one event, and
they would replace one another. Client-server API, "Receipts: Server behaviour".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from synapse.api.constants import EduTypes, ReceiptTypes
from synapse.storage.receipts import Receipt, ReceiptStore
from synapse.sync.changes import Changes
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken

_MOVES_COUNTS = frozenset({ReceiptTypes.READ, ReceiptTypes.READ_PRIVATE})


class ReceiptSection:
    """Comes before the unread counts, which follow the user's own receipts."""

    def __init__(self, store: ReceiptStore, changes: Changes) -> None:
        self._store = store
        self._changes = changes

    async def initial(self, ctx: SyncContext) -> None:
        await self._tell(ctx, dict.fromkeys(ctx.joined, 0))

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        after = dict.fromkeys(self._changes.receipts(ctx.joined, since.receipts), since.receipts)
        after.update(dict.fromkeys(ctx.new_rooms(), 0))
        await self._tell(ctx, after)

    async def _tell(self, ctx: SyncContext, after: dict[str, int]) -> None:
        receipts = await self._store.changed(after, ctx.user_id, ctx.now.receipts)
        mine = (r for r in receipts if r.user_id == ctx.user_id and r.receipt_type in _MOVES_COUNTS)
        ctx.read_rooms.update(receipt.room_id for receipt in mine)
        wanted = ctx.filter.room.ephemeral
        if not wanted.wants(EduTypes.RECEIPT):
            return
        rooms: dict[str, list[Receipt]] = {}
        for receipt in receipts:
            if wanted.room_matches(receipt.room_id) and receipt.user_id not in ctx.ignored:
                rooms.setdefault(receipt.room_id, []).append(receipt)
        for room_id, changed in rooms.items():
            ctx.room(room_id).ephemeral += [
                {"type": EduTypes.RECEIPT, "content": content} for content in contents(changed)
            ]


def contents(receipts: Iterable[Receipt]) -> list[dict[str, Any]]:
    """The contents of m.receipt events, one for each thread: by event, type and user."""
    threads: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for receipt in receipts:
        events = threads.setdefault(receipt.thread_id, {})
        users = events.setdefault(receipt.event_id, {}).setdefault(receipt.receipt_type, {})
        users[receipt.user_id] = orjson.Fragment(receipt.data)
    return list(threads.values())
