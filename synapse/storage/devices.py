"""Devices: their names, when they were last seen, and taking them away with all that hangs on them.

A device is made by a login (`access_tokens`). That others are told of a change is the handler's doing; encryption keys
are in `keys`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from synapse.storage import refresh_tokens
from synapse.storage.access_tokens import hashes
from synapse.storage.new_devices import insert_device

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class Device:
    """A row of `devices`. Times are milliseconds since the epoch."""

    user_id: str
    device_id: str
    display_name: str | None
    last_seen_ts: int | None
    last_seen_ip: str | None
    last_seen_user_agent: str | None


class Deleted(NamedTuple):
    """What went away: devices that existed, the hashes of their tokens; cross-signing keys go with the account only."""

    device_ids: list[str]
    tokens: list[bytes]
    had_cross_signing: bool = False


_COLUMNS = "user_id, device_id, display_name, last_seen_ts, last_seen_ip, last_seen_user_agent"

# Everything that belongs to a device and is worth nothing without it.
_BELONGINGS = (
    *("device_keys", "one_time_keys", "fallback_keys", "to_device_messages", "to_device_txns"),
    *("claimed_keys", "dehydrated_devices", "fresh_authentications", "sso_devices", "pushers"),
)

# Who has got one for a further device shall not log in by it when all others are logged out. With them go the pushers
# of tokens without a device, but for those of one token.
_NO_LOGIN_TOKENS = """
    WITH pushers_gone AS (
        DELETE FROM pushers WHERE user_id = %(user)s AND device_id IS NULL AND token_id IS DISTINCT FROM %(kept_token)s
    )
    DELETE FROM login_tokens WHERE user_id = %(user)s
"""


class DeviceStore:
    """Reads devices in any process; writes them in the main process, at positions of the stream `device_lists`, where
    a change that did not happen leaves nothing.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_user(self, user_id: str) -> list[Device]:
        return await self._db.read("devices.of_user", _of_user, user_id)

    async def get(self, user_id: str, device_id: str) -> Device | None:
        return await self._db.read("devices.get", _get, user_id, device_id)

    async def create(self, user_id: str, device_id: str, display_name: str | None, now: int, stream_id: int) -> bool:
        """False if there is such a device already. Raises `DeviceIdTaken`."""
        return await self._db.write("devices.create", _create, user_id, device_id, display_name, now, stream_id)

    async def rename(self, user_id: str, device_id: str, display_name: str | None, stream_id: int) -> bool:
        """False if there is no such device."""
        return await self._db.write("devices.rename", _rename, user_id, device_id, display_name, stream_id)

    async def delete(self, user_id: str, device_ids: list[str] | None, stream_id: int) -> Deleted:
        """Deletes devices with their tokens, keys and undelivered messages; None: all, and tokens without a device."""
        return await self._db.write("devices.delete", _delete, user_id, device_ids, stream_id)


def _of_user(txn: Transaction, user_id: str) -> list[Device]:
    txn.execute(f"SELECT {_COLUMNS} FROM devices WHERE user_id = %s ORDER BY created_ts, device_id", (user_id,))
    return [Device(*row) for row in txn.rows()]


def _get(txn: Transaction, user_id: str, device_id: str) -> Device | None:
    txn.execute(f"SELECT {_COLUMNS} FROM devices WHERE user_id = %s AND device_id = %s", (user_id, device_id))
    row = txn.one_or_none()
    return None if row is None else Device(*row)


def _create(txn: Transaction, user_id: str, device_id: str, display_name: str | None, now: int, stream_id: int) -> bool:
    made = insert_device(txn, user_id, device_id, display_name, now)
    if made:
        record_change(txn, user_id, [device_id], stream_id)
    return made


def _rename(txn: Transaction, user_id: str, device_id: str, display_name: str | None, stream_id: int) -> bool:
    txn.execute(
        "UPDATE devices SET display_name = %s WHERE user_id = %s AND device_id = %s RETURNING true",
        (display_name, user_id, device_id),
    )
    found = txn.one_or_none() is not None
    if found:
        record_change(txn, user_id, [device_id], stream_id)
    return found


def _delete(txn: Transaction, user_id: str, device_ids: list[str] | None, stream_id: int) -> Deleted:
    return recorded(txn, user_id, delete(txn, user_id, device_ids), stream_id)


def recorded(txn: Transaction, user_id: str, gone: Deleted, stream_id: int) -> Deleted:
    """Within somebody else's transaction: writes what went to the stream, if anything did."""
    if gone.device_ids:
        record_change(txn, user_id, gone.device_ids, stream_id)
    return gone


def record_change(txn: Transaction, user_id: str, device_ids: list[str], stream_id: int) -> None:
    """Within somebody else's transaction: these devices are new, have other names or keys, or are gone. None at all:
    it is the keys of the user as such.
    """
    txn.later(
        "INSERT INTO device_lists_stream (stream_id, user_id, device_id, device_ids) VALUES (%s, %s, %s, %s)",
        (stream_id, user_id, device_ids[0] if len(device_ids) == 1 else None, device_ids),
    )


def delete(txn: Transaction, user_id: str, device_ids: list[str] | None) -> Deleted:
    """See `DeviceStore.delete`; for stores that do it within a transaction of their own."""
    if device_ids is None:
        txn.execute("DELETE FROM devices WHERE user_id = %s RETURNING device_id", (user_id,))
    else:
        txn.execute(
            "DELETE FROM devices WHERE user_id = %s AND device_id = ANY(%s) RETURNING device_id", (user_id, device_ids)
        )
    gone = [device_id for (device_id,) in txn.rows()]
    tokens = _delete_tokens(txn, user_id, None if device_ids is None else gone)
    if gone:
        _delete_belongings(txn, user_id, gone)
    return Deleted(gone, tokens)


def _delete_tokens(txn: Transaction, user_id: str, device_ids: list[str] | None) -> list[bytes]:
    refresh_tokens.delete_of_devices(txn, user_id, device_ids)
    if device_ids is None:
        txn.later(_NO_LOGIN_TOKENS, {"user": user_id, "kept_token": None})
        txn.execute("DELETE FROM access_tokens WHERE user_id = %s RETURNING token_hash", (user_id,))
    else:
        txn.execute(
            "DELETE FROM access_tokens WHERE user_id = %s AND device_id = ANY(%s) RETURNING token_hash",
            (user_id, device_ids),
        )
    return hashes(txn)


def delete_others(txn: Transaction, user_id: str, device_id: str | None, token_id: int | None) -> Deleted:
    """Like `delete`, of all devices but one, and of all tokens without a device but one."""
    txn.execute(
        "DELETE FROM devices WHERE user_id = %s AND device_id IS DISTINCT FROM %s RETURNING device_id",
        (user_id, device_id),
    )
    gone = [device_id for (device_id,) in txn.rows()]
    txn.later(_NO_LOGIN_TOKENS, {"user": user_id, "kept_token": token_id})
    txn.execute(
        "DELETE FROM access_tokens WHERE user_id = %s AND id IS DISTINCT FROM %s"
        " AND device_id IS DISTINCT FROM %s RETURNING token_hash",
        (user_id, token_id, device_id or ""),
    )
    tokens = hashes(txn)
    refresh_tokens.delete_of_devices(txn, user_id, gone)
    if gone:
        _delete_belongings(txn, user_id, gone)
    return Deleted(gone, tokens)


def _delete_belongings(txn: Transaction, user_id: str, device_ids: list[str]) -> None:
    """One statement, whatever the number of tables."""
    parts = ", ".join(
        f"{table}_gone AS (DELETE FROM {table} WHERE user_id = %(user)s AND device_id = ANY(%(devices)s))"
        for table in _BELONGINGS
    )
    # Signatures of the devices, and by them, which are of the user's own master key.
    signatures = """
        DELETE FROM key_signatures WHERE target_user_id = %(user)s AND (
            target_id = ANY(%(devices)s) OR (signer_user_id = %(user)s AND key_id = ANY(%(key_ids)s))
        )
    """
    txn.later(
        f"WITH {parts} {signatures}",
        {"user": user_id, "devices": device_ids, "key_ids": [f"ed25519:{device_id}" for device_id in device_ids]},
    )
