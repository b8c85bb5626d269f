"""The table `unfinished_pdus`: who gets its rows, in which order, and how it is kept in bounds."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.storage import unfinished_pdus
from synapse.storage.database import Database
from synapse.storage.unfinished_pdus import FIRST_PAUSE_MS, MAX_AGE_MS, UnfinishedPdu, UnfinishedPdusStore


def pdu(number: int, room: str = "!r", origin: str = "evil.test", size: int = 2) -> UnfinishedPdu:
    return UnfinishedPdu(origin, room, f"${number}", "x" * size)


async def left(db: Database) -> dict[str, tuple[int, int]]:
    def read(txn: Any) -> dict[str, tuple[int, int]]:
        txn.execute("SELECT event_id, attempts, retry_at FROM unfinished_pdus")
        return {row[0]: row[1:] for row in txn.rows()}

    return await db.read("left", read)


async def taken(store: UnfinishedPdusStore, now: int, *busy: str, rooms: int = 20) -> list[str]:
    return sorted(each.event_id for each in await store.take(now, now + 100, rooms, busy))


@pytest_twisted.ensureDeferred
async def test_rows_are_taken_when_nobody_holds_them(database: Database) -> None:
    store = UnfinishedPdusStore(database)
    await store.keep([pdu(1), pdu(2)], [100, 200], 0)
    assert await store.take(100, 300, 20, []) == [pdu(1)]
    assert await taken(store, 199) == []
    await store.hold([("evil.test", "$2"), ("evil.test", "$gone")], 250)
    assert await taken(store, 249) == []
    await store.keep([pdu(2)], [100], 249)  # again, in another transaction
    assert await taken(store, 249) == []
    assert await taken(store, 300, "evil.test") == []
    assert await taken(store, 300) == ["$1", "$2"]
    await store.settle("evil.test", ["$1"], ["$2"], 1_000)
    assert await left(database) == {"$2": (2, 1_000 + 2 * FIRST_PAUSE_MS)}


@pytest_twisted.ensureDeferred
async def test_each_server_and_room_has_its_turn(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished_pdus, "AT_ONCE", 2)
    monkeypatch.setattr(unfinished_pdus, "ROOMS_PER_ORIGIN", 2)
    store = UnfinishedPdusStore(database)
    await store.keep([pdu(n, f"!{n % 3}") for n in range(12)], list(range(12)), 0)
    await store.keep([pdu(20, "!0", "other.test")], [30], 0)
    assert await taken(store, 50, rooms=2) == ["$0", "$20", "$3"]
    assert await taken(store, 50) == ["$1", "$10", "$11", "$2"]


@pytest_twisted.ensureDeferred
async def test_no_server_fills_the_table(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished_pdus, "PER_ORIGIN", 3)
    monkeypatch.setattr(unfinished_pdus, "BYTES_PER_ORIGIN", 100)
    monkeypatch.setattr(unfinished_pdus, "IN_ALL", 4)
    store = UnfinishedPdusStore(database)
    await store.keep([pdu(9, origin="other.test"), pdu(8, origin="other.test")], [0, 0], 0)
    for number in range(5):
        await store.keep([pdu(number)], [0], number)
    assert (await left(database)).keys() == {"$2", "$3", "$4", "$8", "$9"}
    await store.keep([pdu(5, size=90)], [0], 5)
    assert (await left(database)).keys() == {"$3", "$4", "$5", "$8", "$9"}
    await store.keep([pdu(6, size=20)], [0], 6)
    assert (await left(database)).keys() == {"$6", "$8", "$9"}
    await store.keep([pdu(7), pdu(70)], [0, 0], 7)
    assert await store.forget(1) == [("other.test", "$9")]
    assert await store.forget(1) == []


@pytest_twisted.ensureDeferred
async def test_what_was_tried_often_or_is_old_is_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished_pdus, "MAX_ATTEMPTS", 3)
    store = UnfinishedPdusStore(database)
    await store.keep([pdu(1), pdu(2)], [0, 10**9], 0)
    for now in (1, 1_000):
        assert await taken(store, now) == ["$1"]
    assert await store.forget(1_001) == []  # it is held
    assert await store.forget(1_100) == [("evil.test", "$1")]  # whoever worked on it dies each time
    await store.keep([pdu(1)], [0], 0)
    for now in (2_000, 3_000):
        await taken(store, now)
    await store.settle("evil.test", [], ["$1"], 3_000)
    assert (await left(database)).keys() == {"$2"}
    assert await store.forget(MAX_AGE_MS + 1) == []
    assert await store.forget(10**9) == [("evil.test", "$2")]
