"""Telling that devices or keys changed: to syncs by the stream `device_lists`, to caches by the stream `caches`.

Written by the main process; other processes ask it to. What changed is not told, only whose: whoever wants to know asks
for the keys again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from synapse.replication.calls import Call
from synapse.replication.streams import DeviceListRow, PrivateDeviceListRow
from synapse.storage.device_keys import KEEP_CHANGES
from synapse.storage.one_time_keys import NoSuchDevice
from synapse.sync.keys_left import CACHE as KEYS_LEFT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from synapse.handlers.positions import StreamWriter
    from synapse.replication.calls import MainProcess
    from synapse.storage.device_keys import DeviceKeyStore
    from synapse.util.clock import Clock


T = TypeVar("T")


def news_of(user_id: str, *, public: bool, private: bool) -> list[DeviceListRow]:
    """Rows of the stream `device_lists`: everybody who may see the user's keys, or the user alone, has to look."""
    rows: list[DeviceListRow] = [user_id] if public else []
    return [*rows, PrivateDeviceListRow(user_id)] if private else rows


class NewKeys(msgspec.Struct, frozen=True):
    """Identity keys that a device has published, as JSON text."""

    user_id: str
    device_id: str
    keys: str


class Changed(msgspec.Struct, frozen=True):
    """Devices that got another name, or went away with their keys."""

    user_id: str
    device_ids: list[str]


PUBLISH: Final = Call("device_keys.publish", NewKeys, bool)
CHANGE: Final = Call("devices.changed", Changed, type(None))


class DeviceChanges:
    """Writes and tells changes, from any process.

    :param invalidate: has every process forget keys of a cache.
    """

    def __init__(
        self,
        store: DeviceKeyStore,
        stream: StreamWriter,
        main: MainProcess,
        invalidate: Callable[[str, Iterable[str]], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._stream = stream
        self._main = main
        self._invalidate = invalidate
        self._clock = clock
        main.expose(PUBLISH, self._publish)
        main.expose(CHANGE, self._change)

    async def keys_uploaded(self, user_id: str, device_id: str, keys: str) -> None:
        """Stores a device's identity keys and tells of them. Raises `NoSuchDevice`."""
        if not await self._main(PUBLISH, NewKeys(user_id, device_id, keys)):
            raise NoSuchDevice(device_id)

    async def devices_gone(self, user_id: str, device_ids: list[str]) -> None:
        """Devices have been deleted with their keys."""
        await self.counts_changed([(user_id, device_id) for device_id in device_ids])
        if device_ids:
            await self.devices_changed(user_id, device_ids)

    async def devices_changed(self, user_id: str, device_ids: list[str]) -> None:
        """Devices are new or got another name; also of those without keys, which is what clients are used to."""
        await self._main(CHANGE, Changed(user_id, device_ids))

    async def write(self, user_id: str, write: Callable[[int], Awaitable[T]], is_change: Callable[[T], bool]) -> T:
        """In the main process: `write(position)` changes a user's devices and records it, in one transaction, so that
        no process that is killed has others miss it. Told if what it returned is a change.
        """
        return await self._stream.append(write, lambda result: [user_id] if is_change(result) else [])

    async def counts_changed(self, devices: Iterable[tuple[str, str]]) -> None:
        """What these devices have of keys has changed."""
        keys = {f"{user_id} {device_id}" for user_id, device_id in devices}
        if keys:
            await self._invalidate(KEYS_LEFT, keys)

    async def forget_old(self) -> None:
        """Drops changes that later ones make superfluous; the main process does it once in a while."""
        await self._store.forget_changes(KEEP_CHANGES)

    async def _publish(self, new: NewKeys) -> bool:
        """False if there is no such device."""
        now = int(self._clock.seconds() * 1000)
        try:
            await self._stream.append(
                lambda position: self._store.put(new.user_id, new.device_id, new.keys, now, position),
                lambda is_new: [new.user_id] if is_new else [],
            )
        except NoSuchDevice:
            return False
        await self.counts_changed([(new.user_id, new.device_id)])
        return True

    async def _change(self, changed: Changed) -> None:
        await self._stream.append(
            lambda position: self._store.record_change(changed.user_id, changed.device_ids, position),
            lambda _: [changed.user_id],
        )
