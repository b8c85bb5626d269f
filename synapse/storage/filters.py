"""Uploaded sync filters. The same definition has the same id: clients upload theirs at each start, and fill nothing.

What a filter may say and what it does is told by the filters' own module; here they are JSON.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class FilterStore:
    """Reads and writes filters, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, user_id: str, filter_id: int) -> dict[str, Any] | None:
        return await self._db.read("filters.get", _get, user_id, filter_id)

    async def add(self, user_id: str, definition: dict[str, Any]) -> int:
        """The id of the filter, which follows from what it says."""
        text = orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)
        digest = hashlib.sha256(text).digest()
        filter_id = int.from_bytes(digest[:7]) >> 3  # 53 bits: exact in every JSON library
        await self._db.write("filters.add", _add, user_id, filter_id, text.decode(), digest)
        return filter_id


def _get(txn: Transaction, user_id: str, filter_id: int) -> dict[str, Any] | None:
    txn.execute("SELECT definition FROM filters WHERE user_id = %s AND filter_id = %s", (user_id, filter_id))
    row = txn.one_or_none()
    return None if row is None else orjson.loads(row[0])


def _add(txn: Transaction, user_id: str, filter_id: int, definition: str, digest: bytes) -> None:
    txn.execute(
        """
        INSERT INTO filters (user_id, filter_id, definition, definition_hash) VALUES (%s, %s, %s, %s)
        ON CONFLICT DO NOTHING
        """,
        (user_id, filter_id, definition, digest),
    )
