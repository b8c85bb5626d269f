"""SAML assertions that have been used, so that none is used twice. Of their ids, the SHA-256 is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class SamlAssertionStore:
    """Reads and writes; times are milliseconds."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def use(self, assertion_hash: bytes, expires_ts: int, now: int) -> bool:
        """Writes down that an assertion is used; False if it was before. Drops those that have expired."""
        return await self._db.write("saml_assertions.use", _use, assertion_hash, expires_ts, now)


def _use(txn: Transaction, assertion_hash: bytes, expires_ts: int, now: int) -> bool:
    txn.later("DELETE FROM saml_assertions WHERE expires_ts < %s", (now,))
    txn.execute(
        """
        INSERT INTO saml_assertions (assertion_hash, expires_ts) VALUES (%s, %s)
        ON CONFLICT DO NOTHING RETURNING true
        """,
        (assertion_hash, expires_ts),
    )
    return txn.one_or_none() is not None
