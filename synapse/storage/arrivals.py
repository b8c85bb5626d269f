"""New users who have yet to join the rooms that everybody is in.

They are listed in the transaction that makes the account (`synapse.storage.users`): a restart goes on with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class ArrivalStore:
    """Reads and writes in the main process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def arriving(self) -> list[str]:
        """Those who have yet to join."""
        return await self._db.read("arrivals.arriving", _arriving)

    async def arrived(self, user_id: str) -> None:
        """The user has joined the rooms that let them in."""
        await self._db.write_idempotent("arrivals.arrived", _arrived, user_id)


def insert(txn: Transaction, user_id: str) -> None:
    """Lists a user, within the transaction that makes the account."""
    txn.later("INSERT INTO arriving_users (user_id) VALUES (%s) ON CONFLICT DO NOTHING", (user_id,))


def _arriving(txn: Transaction) -> list[str]:
    txn.execute("SELECT user_id FROM arriving_users ORDER BY user_id")
    return [user_id for (user_id,) in txn.rows()]


def _arrived(txn: Transaction, user_id: str) -> None:
    txn.execute("DELETE FROM arriving_users WHERE user_id = %s", (user_id,))
