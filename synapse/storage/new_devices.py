"""Making devices: the one way in which their rows come to be, whether somebody logs in or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.storage.transaction import Transaction


class DeviceIdTaken(Exception):
    """A device cannot have the name of one of its user's cross-signing keys; the argument is the name."""


def insert_device(txn: Transaction, user_id: str, device_id: str, display_name: str | None, now: int) -> bool:
    """Within a transaction of somebody else's. False if there is such a device already. Raises `DeviceIdTaken`."""
    txn.execute(
        """
        WITH key AS (
            SELECT FROM cross_signing_keys WHERE user_id = %(user)s AND public_key = %(device)s
        ), made AS (
            INSERT INTO devices (user_id, device_id, display_name, created_ts)
            SELECT %(user)s, %(device)s, %(name)s, %(now)s WHERE NOT EXISTS (SELECT FROM key)
            ON CONFLICT (user_id, device_id) DO NOTHING RETURNING true
        ), stray AS ( -- of a device of that name that was deleted just when somebody sent it something
            DELETE FROM to_device_messages
            WHERE user_id = %(user)s AND device_id = %(device)s AND EXISTS (SELECT FROM made)
        )
        SELECT EXISTS (SELECT FROM key), EXISTS (SELECT FROM made)
        """,
        {"user": user_id, "device": device_id, "name": display_name, "now": now},
    )
    is_key, is_made = txn.one()
    if is_key:
        raise DeviceIdTaken(device_id)
    return bool(is_made)
