"""`device_one_time_keys_count` and `device_unused_fallback_key_types`: whether the device should upload new keys.

They are in every answer, also in one without news, and so come from memory. Client-server API, "End-to-end
encryption".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from synapse.storage.keys import KeyStore
from synapse.sync.context import SyncContext
from synapse.sync.tokens import StreamToken
from synapse.util.caches import Cache

CACHE: Final = "keys_left"


class KeysLeft(NamedTuple):
    """One-time keys by algorithm, and the algorithms of unused fallback keys."""

    one_time: dict[str, int]
    fallback: list[str]


class KeysLeftCache:
    """What each device has left; invalidated by "user device", in every process, when keys are uploaded or claimed."""

    def __init__(self, store: KeyStore, cache: Cache[str, KeysLeft]) -> None:
        self._store = store
        self.cache = cache

    async def get(self, user_id: str, device_id: str) -> KeysLeft:
        device = f"{user_id} {device_id}"
        known = self.cache.get(device)
        return known if known is not None else await self.cache.fetch(device, self._load)

    async def _load(self, device: str) -> KeysLeft:
        user_id, _, device_id = device.partition(" ")
        counts = await self._store.counts(user_id, device_id)
        return KeysLeft(counts, await self._store.unused_fallback(user_id, device_id))


class DeviceKeySection:
    """Access tokens without a device have no keys, and no such parts in their answers."""

    def __init__(self, cache: KeysLeftCache) -> None:
        self._cache = cache

    async def initial(self, ctx: SyncContext) -> None:
        if ctx.device_id is not None:
            left = await self._cache.get(ctx.user_id, ctx.device_id)
            ctx.always["device_one_time_keys_count"] = left.one_time
            ctx.always["device_unused_fallback_key_types"] = left.fallback

    async def incremental(self, ctx: SyncContext, since: StreamToken, now: StreamToken) -> None:
        await self.initial(ctx)
