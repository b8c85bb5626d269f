"""How much of other servers' devices is kept: for each server so much for each of its users who are met here, so that
none that makes up users or devices fills the database. In the main process, which alone writes lists.

A server of which more is told than it may have goes without: what is beyond is left out of the lists.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.api.identifiers import domain_of
from synapse.storage.remote_devices import Device, Fetched

if TYPE_CHECKING:
    from synapse.storage.remote_devices import RemoteDeviceStore
    from synapse.util.caches import LruCache
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

OF_A_USER: Final = 2 * 1024 * 1024
"""Bytes of keys that a user may have: those of the 2,000 devices at most of which a list consists."""

FOR_A_USER: Final = 32 * 1024
"""Bytes that a server may have for each of its users who has a list here."""

AT_LEAST: Final = 64 * 1024 * 1024
"""Bytes that a server may have in any case."""

COUNTED_SECONDS: Final = 3600.0
"""How long what was counted holds; what is written meanwhile is added."""

RECOUNTED_SECONDS: Final = 60.0
"""After so long it is counted anew where it seems to be too much: lists that took others' places were added, too."""


class Counted(NamedTuple):
    """What was left to a server at that time, as far as is known."""

    left: int
    at: float


class DeviceShares:
    """Cuts what is to be kept.

    :param counted: remembers what was counted, by server.
    """

    def __init__(self, store: RemoteDeviceStore, counted: LruCache[str, Counted], clock: Clock) -> None:
        self._store = store
        self._counted = counted
        self._clock = clock

    async def within(self, user_id: str, found: Fetched) -> Fetched:
        """As much of a user's list as may be kept, beginning with its first devices."""
        sizes = [_size(device) for device in found.devices]
        left = min(OF_A_USER, await self._left(domain_of(user_id), sum(sizes)))
        kept: list[Device] = []
        for device, size in zip(found.devices, sizes, strict=True):
            if size <= left:
                left -= size
                kept.append(device)
        self._take(user_id, sum(map(_size, kept)))
        if len(kept) < len(found.devices):
            logger.warning("%d devices of %s are not kept: they are too much", len(found.devices) - len(kept), user_id)
        return found._replace(devices=kept)

    async def has_place(self, user_id: str, device: Device) -> bool:
        """Whether one more device, or one in another's place, may be kept."""
        size = _size(device)
        if size > await self._left(domain_of(user_id), size):
            logger.warning("The device %s of %s is not kept: it is too much", device.device_id, user_id)
            return False
        self._take(user_id, size)
        return True

    async def _left(self, server: str, wanted: int) -> int:
        counted, now = self._counted.get(server), self._clock.seconds()
        for_long = COUNTED_SECONDS if counted is not None and wanted <= counted.left else RECOUNTED_SECONDS
        if counted is None or now - counted.at >= for_long:
            kept = await self._store.kept_of(server)
            counted = Counted(max(AT_LEAST, FOR_A_USER * (kept.lists + 1)) - kept.size, now)
            self._counted.set(server, counted)
        return max(counted.left, 0)

    def _take(self, user_id: str, size: int) -> None:
        counted = self._counted.get(domain_of(user_id))
        if counted is not None:
            self._counted.set(domain_of(user_id), counted._replace(left=counted.left - size))


def _size(device: Device) -> int:
    return len(device.json or "")
