"""Advisory locks of this database that somebody holds. Who takes them: `synapse.replication.leases`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class LocksStore:
    """Looks at locks."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def held(self, keys: Collection[int]) -> set[int]:
        """Those of the locks that a connection holds, whichever process it is of."""
        return await self._db.read("locks.held", _held, list(keys))


def _held(txn: Transaction, keys: list[int]) -> set[int]:
    # A lock of one number is shown as its two halves, without sign, and objsubid 1.
    txn.execute(
        """
        SELECT key FROM unnest(%s::bigint[]) AS wanted(key)
        WHERE EXISTS (
            SELECT FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND classid::bigint = ((key >> 32) & 4294967295) AND objid::bigint = (key & 4294967295)
        )
        """,
        (keys,),
    )
    return {key for (key,) in txn.rows()}
