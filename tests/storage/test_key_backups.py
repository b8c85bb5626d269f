"""What storing keys into a backup looks at: the keys that are given, however many there are already."""

from __future__ import annotations

import pytest_twisted

from synapse.storage.database import Database, Transaction
from synapse.storage.key_backups import KeyBackupStore, Session, Stored, _put


def sessions(first: int, count: int) -> list[Session]:
    return [Session(f"!{n % 10}:test", str(n), 1, 0, False, '"data"') for n in range(first, first + count)]


def _looked_at(txn: Transaction) -> int:
    counted = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'key_backup_sessions'"
    txn.execute(counted)
    return int(txn.one()[0])


def _counted_put(txn: Transaction, version: int, given: list[Session]) -> tuple[Stored, int]:
    before = _looked_at(txn)
    stored = _put(txn, "@a:test", version, given, 10**6, 10**9)
    return stored, _looked_at(txn) - before


@pytest_twisted.ensureDeferred
async def test_no_more_rows_are_looked_at_than_keys_are_given(database: Database) -> None:
    store = KeyBackupStore(database)
    version = await store.create("@a:test", "algorithm", "{}", 10)
    await store.put("@a:test", version, sessions(0, 3000), 10**6, 10**9)
    stored, looked_at = await database.write("test", _counted_put, version, sessions(2950, 500))
    assert stored.keys == 3450
    assert looked_at <= 2 * 500
