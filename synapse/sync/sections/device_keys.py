"""`device_one_time_keys_count` and `device_unused_fallback_key_types`: whether the device should upload new keys.

They are in every answer, also in one without news, and so come from memory. Client-server API, "End-to-end
encryption".
"""

from __future__ import annotations

from typing import Final

from synapse.sync.context import SyncContext
from synapse.sync.keys_left import KeysLeftCache
from synapse.sync.tokens import StreamToken

_NONE: Final = {"signed_curve25519": 0}
"""Clients that read nothing of an algorithm believe that nothing has changed, and upload no keys."""


class DeviceKeySection:
    """Access tokens without a device have no keys, and no such parts in their answers."""

    def __init__(self, cache: KeysLeftCache) -> None:
        self._cache = cache

    async def initial(self, ctx: SyncContext) -> None:
        if ctx.device_id is not None:
            left = await self._cache.get(ctx.user_id, ctx.device_id)
            ctx.always["device_one_time_keys_count"] = _NONE | left.one_time
            ctx.always["device_unused_fallback_key_types"] = left.fallback

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        await self.initial(ctx)
