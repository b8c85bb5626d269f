"""What other servers make this one keep has a bound for each of them, however many ids they make up."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.storage import received_transactions, server_keys, to_device
from synapse.storage.database import Database
from synapse.storage.pool import PoolSettings
from synapse.storage.received_transactions import ReceivedTransactionsStore
from synapse.storage.server_keys import ServerKeysStore, StoredKey
from synapse.storage.to_device import ToDeviceStore
from tests.federation.visitor import visit
from tests.rest.people import person
from tests.support.homeserver import homeserver


async def column(db: Database, sql: str) -> list[Any]:
    def read(txn: Any) -> list[Any]:
        txn.execute(sql)
        return [row[0] for row in txn.rows()]

    return await db.read("column", read)


@pytest_twisted.ensureDeferred
async def test_answers_of_a_server_that_makes_ids_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(received_transactions, "PER_ORIGIN", 3)
    store = ReceivedTransactionsStore(database)
    for number in range(10):
        await store.put("evil.test", f"e{number}", "{}", number)
    for number in range(3):
        await store.put("good.test", f"g{number}", "{}", number)
    for number in range(5):
        await store.put("quiet.test", f"q{number}", "{}", number)
    assert await store.delete_surplus(9) == 7
    left = await column(database, "SELECT txn_id FROM received_transactions ORDER BY 1")
    assert left == ["e7", "e8", "e9", "g0", "g1", "g2", "q0", "q1", "q2", "q3", "q4"]
    assert await store.delete_surplus(0) == 2  # of whoever has sent anything since
    assert await store.delete_surplus(0) == 0


@pytest_twisted.ensureDeferred
async def test_the_main_process_looks_after_all_servers_once_and_then_after_those_that_send(
    database_settings: PoolSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received_transactions, "PER_ORIGIN", 1)
    async with homeserver(database_settings) as server:
        store, now = server.hs.receiving.store, server.hs.rooms.now()
        clean = server.hs.receiving.background[0]._work
        for number in range(3):
            await store.put("evil.test", f"{number}", "{}", now - number)
        await clean()
        assert [await store.get("evil.test", txn) for txn in "012"] == ["{}", None, None]
        await store.put("evil.test", "3", "{}", now + 3_600_000)
        await clean()
        assert [await store.get("evil.test", txn) for txn in "03"] == [None, "{}"]


@pytest_twisted.ensureDeferred
async def test_ids_of_messages_to_devices(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_device, "RECEIVED_PER_ORIGIN", 2)

    def put(txn: Any) -> None:
        rows = [("evil.test", f"e{n}", 10 + n) for n in range(5)] + [("good.test", f"g{n}", 9 + n) for n in range(3)]
        txn.values("INSERT INTO to_device_received (origin, message_id, received_ts) VALUES %s", rows)

    await database.write("put", put)
    await ToDeviceStore(database).forget_received(10)
    left = await column(database, "SELECT message_id FROM to_device_received ORDER BY 1")
    assert left == ["e3", "e4", "g1", "g2"]


@pytest_twisted.ensureDeferred
async def test_keys_of_servers_that_nobody_meets(
    database_settings: PoolSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_keys, "MAX_STRANGERS", 2)
    monkeypatch.setattr(server_keys, "MAX_KEYS", 3)
    async with homeserver(database_settings) as server:
        eve = await visit(server)
        await eve.join(await (await person(server, "alice")).room())
        db, store = server.hs.database, ServerKeysStore(server.hs.database)
        many = {f"ed25519:{n}": StoredKey(b"x" * 32, n) for n in range(8)}
        for number in range(4):
            await store.store(f"s{number}.test", many, 100 + number)
        await store.store(eve.name, {"ed25519:old": StoredKey(b"x" * 32, 1)}, 1)
        await store.used(["s0.test"], 200)
        await store.forget_unused(0)
        left = await column(db, "SELECT server_name || key_id FROM server_keys ORDER BY 1")
        assert [each for each in left if each.startswith("s")] == [
            f"{name}ed25519:{key}" for name in ("s0.test", "s3.test") for key in (5, 6, 7)
        ]
        assert f"{eve.name}ed25519:old" in left
