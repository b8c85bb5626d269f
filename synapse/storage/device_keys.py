"""The identity keys that devices publish, and the stream of whose devices changed when.

Keys are kept as JSON text with sorted keys, so that equal keys are equal texts; how they are shown is
`published_keys`' matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse.storage.devices import record_change
from synapse.storage.one_time_keys import lock_device, sha256

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


KEEP_CHANGES: Final = 10_000
"""The last so many positions of the stream are kept whole, for who asks for what was between two of them."""


def digest(json: str) -> str:
    """By which keys are compared without being read."""
    return sha256(json).hex()


class DeviceKeyStore:
    """Written in the main process, at positions of the stream `device_lists`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(self, user_id: str, device_id: str, json: str, now: int, stream_id: int) -> bool:
        """Publishes keys in place of others. False, and nothing done, if they are there already.

        Raises `NoSuchDevice`.
        """
        return await self._db.write("device_keys.put", put, user_id, device_id, json, now, stream_id)

    async def forget_changes(self, keep: int) -> int:
        """Drops changes of a user that later ones make superfluous, but for those of the last `keep` positions.

        Whoever asks for what came after a dropped one is told of the later ones. Returns how many.
        """
        return await self._db.write("device_keys.forget_changes", _forget_changes, keep)

    async def record_change(self, user_id: str, device_ids: list[str], stream_id: int) -> None:
        """Writes that these devices are new, got other names, or went away with their keys."""
        await self._db.write("device_keys.record_change", record_change, user_id, device_ids, stream_id)


def put(txn: Transaction, user_id: str, device_id: str, json: str, now: int, stream_id: int) -> bool:
    """See `DeviceKeyStore.put`; for stores that do it within a transaction of their own."""
    lock_device(txn, user_id, device_id)
    # Signatures of other keys, and by them, go with those.
    txn.execute(
        """
        WITH old AS (
            SELECT FROM device_keys WHERE user_id = %(u)s AND device_id = %(d)s
            AND key_json::jsonb - 'signatures' <> %(json)s::jsonb - 'signatures'
        ), signatures AS (
            DELETE FROM key_signatures WHERE target_user_id = %(u)s AND EXISTS (SELECT FROM old)
            AND (target_id = %(d)s OR (signer_user_id = %(u)s AND key_id = 'ed25519:' || %(d)s))
        ), keys AS (
            INSERT INTO device_keys (user_id, device_id, key_json, uploaded_ts)
            VALUES (%(u)s, %(d)s, %(json)s, %(now)s)
            ON CONFLICT (user_id, device_id) DO UPDATE
            SET key_json = EXCLUDED.key_json, uploaded_ts = EXCLUDED.uploaded_ts
            WHERE device_keys.key_json <> EXCLUDED.key_json RETURNING true
        )
        INSERT INTO device_lists_stream (stream_id, user_id, device_id, device_ids)
        SELECT %(stream)s, %(u)s, %(d)s, ARRAY[%(d)s] FROM keys RETURNING true
        """,
        {"u": user_id, "d": device_id, "json": json, "now": now, "stream": stream_id},
    )
    return txn.one_or_none() is not None


def _forget_changes(txn: Transaction, keep: int) -> int:
    txn.execute(
        """
        DELETE FROM device_lists_stream s
        WHERE stream_id <= (SELECT MAX(stream_id) FROM device_lists_stream) - %s AND EXISTS (
            SELECT FROM device_lists_stream later WHERE later.user_id = s.user_id AND later.stream_id > s.stream_id
        )
        """,
        (keep,),
    )
    forgotten = txn.affected
    txn.execute(
        """
        DELETE FROM device_lists_private s
        WHERE stream_id <= (SELECT MAX(stream_id) FROM device_lists_private) - %s AND NOT EXISTS (
            SELECT FROM unnest(s.changed_user_ids) AS changed (id) WHERE NOT EXISTS (
                SELECT FROM device_lists_private later WHERE later.user_id = s.user_id
                AND later.stream_id > s.stream_id AND changed.id = ANY(later.changed_user_ids)
            )
        )
        """,
        (keep,),
    )
    return forgotten + txn.affected
