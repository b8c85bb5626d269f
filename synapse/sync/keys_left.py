"""What each device has of keys, from memory: it is in every answer to /sync, and looked at with every upload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from synapse.storage.one_time_keys import KeysLeft, OneTimeKeyStore
    from synapse.util.caches import Cache

CACHE: Final = "keys_left"
"""The keys of this cache are user id and device id with a space between."""

CACHE_SIZE: Final = 20_000


class KeysLeftCache:
    """Invalidated by "user device", in every process, when keys are uploaded or claimed, and with the device."""

    def __init__(self, store: OneTimeKeyStore, cache: Cache[str, KeysLeft]) -> None:
        self._store = store
        self.cache = cache

    async def get(self, user_id: str, device_id: str) -> KeysLeft:
        device = f"{user_id} {device_id}"
        known = self.cache.get(device)
        return known if known is not None else await self.cache.fetch(device, self._load)

    async def _load(self, device: str) -> KeysLeft:
        user_id, _, device_id = device.partition(" ")
        return await self._store.left(user_id, device_id)
