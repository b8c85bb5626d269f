"""`to_device`: messages from other devices. They are kept until the device syncs on from the token that came with
them.

Client-server API, "Send-to-Device messaging".
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import orjson

from synapse.storage.to_device import ToDeviceStore
from synapse.sync.changes import Changes
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken

LIMIT: Final = 100
"""Messages in one answer; the rest comes with the next, at once."""

_REMEMBERED: Final = 20_000  # devices


class ToDeviceSection:
    """A token given back acknowledges what was told before it, so that is deleted first."""

    def __init__(self, store: ToDeviceStore, changes: Changes) -> None:
        self._store = store
        self._changes = changes
        # Up to where each device's messages are deleted, as far as this process has seen to it.
        self._acknowledged: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def initial(self, ctx: SyncContext) -> None:
        await self._tell(ctx, 0)

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        await self._acknowledge(ctx, since.to_device)
        if self._changes.to_device(ctx.user_id, since.to_device):
            await self._tell(ctx, since.to_device)

    async def _acknowledge(self, ctx: SyncContext, until: int) -> None:
        if ctx.device_id is None or until == 0:
            return
        device = (ctx.user_id, ctx.device_id)
        done = self._acknowledged.get(device)
        if done is None or (done < until and self._changes.to_device(ctx.user_id, done)):
            await self._store.delete(ctx.user_id, ctx.device_id, until)
        self._acknowledged[device] = until if done is None else max(done, until)
        self._acknowledged.move_to_end(device)
        if len(self._acknowledged) > _REMEMBERED:
            self._acknowledged.popitem(last=False)

    async def _tell(self, ctx: SyncContext, after: int) -> None:
        if ctx.device_id is None:
            return
        while True:
            messages = await self._store.waiting(ctx.user_id, ctx.device_id, after, ctx.now.to_device, LIMIT)
            shown = [message for _, message in messages if not ctx.ignored or not _is_by(message, ctx.ignored)]
            if len(messages) < LIMIT or shown:
                break
            after = messages[-1][0]
        if len(messages) == LIMIT:
            ctx.next = ctx.next._replace(to_device=messages[-1][0])
        if shown:
            ctx.body["to_device"] = {"events": [orjson.Fragment(message) for message in shown]}


def _is_by(message: str, senders: frozenset[str]) -> bool:
    """What was sent before the sender was ignored; later messages are not stored. They go with the next token."""
    return orjson.loads(message).get("sender") in senders
