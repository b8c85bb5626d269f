"""What clients have sent under which transaction id: the same request, sent again, must not do anything twice.

Written together with the event (`synapse.storage.persist_rows`); the primary key makes sure that it happens once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


REDACT: Final = "\x01redact\x01"
"""Begins the transaction ids that were used at /redact: they have nothing to do with the same ids at /send
(client-server API, "Transaction identifiers")."""


class TxnKey(NamedTuple):
    """The scope of a transaction id. `device_id` is "" for access tokens without a device."""

    user_id: str
    device_id: str
    room_id: str
    txn_id: str


class EventTxnsStore:
    """Looks up transaction ids, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, key: TxnKey) -> str | None:
        """The event that was sent under this transaction id."""
        return (await self.get_many([key])).get(key)

    async def get_many(self, keys: Sequence[TxnKey]) -> dict[TxnKey, str]:
        """The events of those transaction ids that have been seen before."""
        return await self._db.read("event_txns.get", _get, keys) if keys else {}

    async def delete_before(self, sent_ts: int) -> int:
        """Forget what was sent before that time (milliseconds); returns how many there were."""
        return await self._db.write("event_txns.delete_before", _delete_before, sent_ts)


def _get(txn: Transaction, keys: Sequence[TxnKey]) -> dict[TxnKey, str]:
    txn.execute(
        """
        SELECT user_id, device_id, room_id, txn_id, event_id FROM event_txns
        WHERE (user_id, device_id, room_id, txn_id) IN
            (SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]))
        """,
        [list(column) for column in zip(*keys, strict=True)],
    )
    return {TxnKey(*row[:4]): row[4] for row in txn.rows()}


def _delete_before(txn: Transaction, sent_ts: int) -> int:
    txn.execute("DELETE FROM event_txns WHERE sent_ts < %s", (sent_ts,))
    return txn.affected
