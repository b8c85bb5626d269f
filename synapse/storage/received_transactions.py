"""What other servers were answered to their transactions, for those that did not get the answer and ask again.

An answer is written when everything in its transaction is, by whichever process took it in. Answers are forgotten after
a while: what must not happen twice does not depend on them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

FORGOTTEN_AT_ONCE: Final = 5_000

PER_ORIGIN: Final = 200
"""Answers that are kept for a server, the latest: it sends one transaction at a time, and again that one alone."""


class ReceivedTransactionsStore:
    """Reads and writes answers, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, origin: str, txn_id: str) -> str | None:
        """What a server was answered to its transaction of that id: JSON."""
        return await self._db.read("received_transactions.get", _get, origin, txn_id)

    async def put(self, origin: str, txn_id: str, answer: str, received_ts: int) -> None:
        """Keep an answer (JSON); where there is one, that one stays."""
        await self._db.write_idempotent("received_transactions.put", _put, origin, txn_id, answer, received_ts)

    async def delete_before(self, received_ts: int) -> int:
        """Forget answers of before that time (milliseconds), some thousands at most; returns how many those were."""
        return await self._db.write_idempotent("received_transactions.delete_before", _delete_before, received_ts)

    async def delete_surplus(self, since: int) -> int:
        """Forget all but the latest answers of servers that sent something since that time; how many those were. What
        it costs grows with these servers, not with the table."""
        return await self._db.write_idempotent("received_transactions.delete_surplus", _delete_surplus, since)


def _get(txn: Transaction, origin: str, txn_id: str) -> str | None:
    txn.planned("SELECT answer FROM received_transactions WHERE origin = %s AND txn_id = %s", (origin, txn_id))
    row = txn.one_or_none()
    return None if row is None else row[0]


def _put(txn: Transaction, origin: str, txn_id: str, answer: str, received_ts: int) -> None:
    txn.planned_later(
        "INSERT INTO received_transactions (origin, txn_id, received_ts, answer) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT DO NOTHING",
        (origin, txn_id, received_ts, answer),
    )


def _delete_before(txn: Transaction, received_ts: int) -> int:
    txn.execute(
        "DELETE FROM received_transactions WHERE (origin, txn_id) IN"
        " (SELECT origin, txn_id FROM received_transactions WHERE received_ts < %s ORDER BY received_ts LIMIT %s)",
        (received_ts, FORGOTTEN_AT_ONCE),
    )
    return txn.affected


def _delete_surplus(txn: Transaction, since: int) -> int:
    txn.execute(
        """
        DELETE FROM received_transactions r USING (
            SELECT o.origin, a.txn_id
            FROM (SELECT DISTINCT origin FROM received_transactions WHERE received_ts >= %s) o
            CROSS JOIN LATERAL (
                SELECT txn_id FROM received_transactions WHERE origin = o.origin
                ORDER BY received_ts DESC, txn_id OFFSET %s
            ) a
        ) surplus
        WHERE r.origin = surplus.origin AND r.txn_id = surplus.txn_id
        """,
        (since, PER_ORIGIN),
    )
    return txn.affected
