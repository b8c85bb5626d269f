"""Dehydrated devices: devices that nobody is logged in with, kept encrypted so that a later login can use them.

Such a device is a row of `devices` like any other, so that keys and messages find it; beside it is what it is made of.
A user has one at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse.storage import device_keys, devices, one_time_keys
from synapse.storage.new_devices import insert_device

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Dehydrated(NamedTuple):
    """A device; `data` is JSON text."""

    device_id: str
    data: str


class NewDehydrated(NamedTuple):
    """A device to be stored, with its keys. `device_keys` is JSON text."""

    user_id: str
    device_id: str
    data: str
    display_name: str | None
    device_keys: str
    one_time: list[one_time_keys.Key]
    fallback: list[one_time_keys.Key]


class InUse(Exception):
    """The user has another device of that id."""


class DehydratedDeviceStore:
    """Reads in any process; writes in the main process, as keys have a stream position."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, user_id: str) -> Dehydrated | None:
        return await self._db.read("dehydrated_devices.get", _get, user_id)

    async def replace(self, new: NewDehydrated, now: int, stream_id: int) -> devices.Deleted:
        """Stores a device in place of the one that there was; what went with that one.

        Raises `InUse`, `DeviceIdTaken`, `TooManyKeys`.
        """
        return await self._db.write("dehydrated_devices.replace", _replace, new, now, stream_id)


def _get(txn: Transaction, user_id: str) -> Dehydrated | None:
    txn.execute("SELECT device_id, device_data FROM dehydrated_devices WHERE user_id = %s", (user_id,))
    row = txn.one_or_none()
    return None if row is None else Dehydrated(*row)


def _replace(txn: Transaction, new: NewDehydrated, now: int, stream_id: int) -> devices.Deleted:
    user_id, device_id = new.user_id, new.device_id
    old = _get(txn, user_id)
    gone = devices.delete(txn, user_id, [] if old is None else [old.device_id])
    if not insert_device(txn, user_id, device_id, new.display_name, now):
        raise InUse
    txn.execute(
        "INSERT INTO dehydrated_devices (user_id, device_id, device_data) VALUES (%s, %s, %s)",
        (user_id, device_id, new.data),
    )
    device_keys.put(txn, user_id, device_id, new.device_keys, now, stream_id)
    one_time_keys.add(txn, user_id, device_id, new.one_time, new.fallback, now)
    return gone
