"""Messages from device to device, from the request to where syncs find them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import pytest_twisted

from synapse.handlers import to_device
from synapse.metrics import table
from synapse.storage.database import Database, Transaction
from synapse.storage.pool import PoolSettings
from tests.rest.accounts import C, Server, error
from tests.support.homeserver import TestServer, cluster, homeserver

ALICE, BOB = "@alice:test", "@bob:test"


async def waiting(server: Server, user: str, device: str) -> list[Any]:
    messages = await server.accounts.to_device_store.waiting(user, device, 0, 10_000, 100)
    return [orjson.loads(message) for _, message in messages]


@pytest_twisted.ensureDeferred
async def test_a_message_is_stored_once_for_each_device(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob", device="B1")
    await server.login("bob", device_id="B2")
    body = {"messages": {BOB: {"*": {"n": 1}}, ALICE: {"NONE": {}}}}
    for _ in range(2):
        assert (await server.call("PUT", "/sendToDevice/m.x/1", body, alice)).json == {}
    expected = [{"type": "m.x", "sender": ALICE, "content": {"n": 1}}]
    assert await waiting(server, BOB, "B1") == await waiting(server, BOB, "B2") == expected
    assert await waiting(server, ALICE, "NONE") == []
    assert server.streams["to_device"].told == [BOB]
    await server.call("PUT", "/sendToDevice/m.x/1", {"messages": {BOB: {"B1": {}}}}, bob)
    assert len(await waiting(server, BOB, "B1")) == 2, "another sender's transaction"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"messages": 5}, (400, "M_BAD_JSON")),
        ({"messages": {"bob": {}}}, (400, "M_INVALID_PARAM")),
        ({"messages": {BOB: 5}}, (400, "M_BAD_JSON")),
        ({"messages": {BOB: {"D": 5}}}, (400, "M_BAD_JSON")),
        ({"messages": {BOB: {"D\x00": {}}}}, (400, "M_INVALID_PARAM")),
        ({"messages": {BOB: {"D": {"x": "y" * 70_000}}}}, (413, "M_TOO_LARGE")),
        ({"messages": {BOB: {str(n): {} for n in range(10_001)}}}, (413, "M_TOO_LARGE")),
        ([], (400, "M_BAD_JSON")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_messages_that_are_refused(server: Server, body: Any, expected: tuple[int, str]) -> None:
    token = await server.register("alice")
    assert error(await server.call("PUT", "/sendToDevice/m.x/1", body, token)) == expected


@pytest_twisted.ensureDeferred
async def test_names_of_messages_are_bounded(server: Server) -> None:
    token = await server.register("alice")
    for path in (f"/sendToDevice/{'x' * 256}/1", f"/sendToDevice/m.x/{'1' * 256}"):
        assert error(await server.call("PUT", path, {"messages": {}}, token)) == (400, "M_INVALID_PARAM")
    assert (await server.call("PUT", "/sendToDevice/m.x/1", {"messages": {}}, token)).json == {}


@pytest_twisted.ensureDeferred
async def test_names_hold_no_nul_characters(server: Server) -> None:
    token = await server.register("alice")
    for path in ("/sendToDevice/m.x%00/1", "/sendToDevice/m.x/%00"):
        assert error(await server.call("PUT", path, {"messages": {}}, token)) == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_who_ignores_the_sender_is_sent_nothing(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob", device="B")
    ignoring = {"ignored_users": {ALICE: {}, BOB: {}}}
    for user, name in ((bob, BOB), (alice, ALICE)):
        assert (await server.call("PUT", f"/user/{name}/account_data/m.ignored_user_list", ignoring, user)).code == 200
    body = {"messages": {BOB: {"*": {"n": 1}}, ALICE: {"DEVICE": {"n": 2}}}}
    assert (await server.call("PUT", "/sendToDevice/m.x/1", body, alice)).json == {}
    assert await waiting(server, BOB, "B") == []
    assert [message["content"] for message in await waiting(server, ALICE, "DEVICE")] == [{"n": 2}], "oneself never is"
    await server.call("PUT", f"/user/{BOB}/account_data/m.ignored_user_list", {"ignored_users": {}}, bob)
    assert (await server.call("PUT", "/sendToDevice/m.x/1", body, alice)).json == {}
    assert await waiting(server, BOB, "B") == [], "the transaction is over"
    assert (await server.call("PUT", "/sendToDevice/m.x/2", body, alice)).json == {}
    assert len(await waiting(server, BOB, "B")) == 1


@pytest_twisted.ensureDeferred
async def test_a_thousand_devices_cost_what_one_does(server: Server) -> None:
    alice = await server.register("alice")

    def make_devices(txn: Transaction) -> None:
        txn.execute(
            "INSERT INTO devices (user_id, device_id, created_ts)"
            " SELECT '@u' || (n / 2) || ':test', 'D' || n, 1 FROM generate_series(1, 1000) n"
        )

    await server.database.write("test", make_devices)
    costs = []
    for txn_id, count in enumerate((1, 1000)):
        messages: dict[str, Any] = {}
        for number in range(1, count + 1):
            messages.setdefault(f"@u{number // 2}:test", {})[f"D{number}"] = {"n": number}
        with server.database.counted() as counts:
            reply = await server.call("PUT", f"/sendToDevice/m.x/{txn_id}", {"messages": messages}, alice)
        assert reply.json == {}
        costs.append({name: n for name, n in (counts.written + counts.read).items() if name != "access_tokens.lookup"})
    assert costs[0] == costs[1] == {"to_device.add": 2, "account_data.dated": 1}
    assert len(await waiting(server, "@u250:test", "D500")) == 1


@pytest_twisted.ensureDeferred
async def test_a_device_that_does_not_come_keeps_the_latest_messages(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_device, "MAX_WAITING", 5)
    monkeypatch.setattr(to_device, "LOOK_AFTER", 3)
    alice = await server.register("alice")
    await server.register("bob", device="B")
    before = table.TO_DEVICE_DROPPED.child().value
    for number in range(9):
        body = {"messages": {BOB: {"B": {"n": number}}}}
        await server.call("PUT", f"/sendToDevice/m.x/{number}", body, alice)
        kept = [message["content"]["n"] for message in await waiting(server, BOB, "B")]
        assert len(kept) <= 5 + 3
    assert kept == [4, 5, 6, 7, 8]
    assert table.TO_DEVICE_DROPPED.child().value == before + 4


@pytest_twisted.ensureDeferred
async def test_a_device_has_nothing_of_an_earlier_one_of_its_name(server: Server) -> None:
    alice = await server.register("alice")
    stray = "INSERT INTO to_device_messages VALUES (1, '@alice:test', 'NEW', '{}')"  # sent as the device was deleted
    await server.database.write("test", lambda txn: txn.execute(stray))
    assert (await server.login("alice", device_id="NEW")).code == 200
    assert await waiting(server, ALICE, "NEW") == []
    await server.call("PUT", "/sendToDevice/m.x/1", {"messages": {ALICE: {"NEW": {}}}}, alice)
    assert (await server.login("alice", device_id="NEW")).code == 200
    assert len(await waiting(server, ALICE, "NEW")) == 1, "it is the same device"


@pytest_twisted.ensureDeferred
async def test_a_restart_neither_loses_nor_repeats_a_message(database_settings: PoolSettings) -> None:
    """Processes end at the worst moments: before anybody is told, before the sender is answered, before the answer."""
    body = {"messages": {"@bob:test": {"*": {"n": 1}}}}

    async def sync(server: TestServer, token: str, since: str) -> Any:
        code, answer = await server.client.get(f"{C}/sync?timeout=0&since={since}", token)
        assert code == 200
        return answer

    async with homeserver(database_settings) as server:
        alice, bob = await server.client.register("alice"), await server.client.register("bob")
        code, answer = await server.client.get(f"{C}/sync?timeout=0", bob)
        first = answer["next_batch"]
        stream: Any = server.hs.encryption.to_device._stream
        stream._advance = lambda *_: None  # it ends before it tells
        code, _ = await server.client.put(f"{C}/sendToDevice/m.x/1", body, alice)
        assert code == 200
    async with homeserver(database_settings) as server:
        code, _ = await server.client.put(f"{C}/sendToDevice/m.x/1", body, alice)  # the sender has heard nothing
        assert code == 200
        told = await sync(server, bob, first)
        assert [event["content"] for event in told["to_device"]["events"]] == [{"n": 1}]
    async with homeserver(database_settings) as server:
        told = await sync(server, bob, first)  # the device has heard nothing
        assert [event["content"] for event in told["to_device"]["events"]] == [{"n": 1}]
        assert "to_device" not in await sync(server, bob, told["next_batch"])
    async with homeserver(database_settings) as server:
        assert "to_device" not in await sync(server, bob, first)


@pytest_twisted.ensureDeferred
async def test_any_synchrotron_delivers_and_takes_acknowledgements(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "synchrotron") as hs:
        alice, bob = await hs.main.client.register("alice"), await hs.main.client.register("bob")
        processes = (hs.main, hs["synchrotron"])
        code, answer = await hs.main.client.get(f"{C}/sync?timeout=0", bob)
        seen = []
        for number in range(6):
            body = {"messages": {"@bob:test": {"*": {"n": number}}}}
            code, _ = await hs.main.client.put(f"{C}/sendToDevice/m.x/{number}", body, alice)
            assert code == 200
            await hs.caught_up()
            path = f"{C}/sync?timeout=0&since={answer['next_batch']}"
            code, answer = await processes[number % 2].client.get(path, bob)
            seen += [event["content"]["n"] for event in answer["to_device"]["events"]]
        assert seen == list(range(6))


@pytest_twisted.ensureDeferred
async def test_ignoring_holds_as_long_as_it_lasts(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "synchrotron") as hs:
        alice, bob = await hs.main.client.register("alice"), await hs.main.client.register("bob")
        _, answer = await hs["synchrotron"].client.get(f"{C}/sync?timeout=0", bob)
        for number, ignored in enumerate(({}, {ALICE: {}}, {})):
            path = f"{C}/user/{BOB}/account_data/m.ignored_user_list"
            code, _ = await hs.main.client.put(path, {"ignored_users": ignored}, bob)
            assert code == 200
            body = {"messages": {BOB: {"*": {"n": number}}}}
            code, _ = await hs.main.client.put(f"{C}/sendToDevice/m.x/{number}", body, alice)
            assert code == 200
            await hs.caught_up()
        path = f"{C}/sync?timeout=0&since={answer['next_batch']}"
        _, answer = await hs["synchrotron"].client.get(path, bob)
        assert [event["content"] for event in answer["to_device"]["events"]] == [{"n": 0}, {"n": 2}]


@pytest_twisted.ensureDeferred
async def test_requests_for_keys_are_limited_and_other_messages_are_not(database: Database) -> None:
    server = Server(database, limited=True, rc_key_requests={"per_second": 1, "burst_count": 2})
    alice = await server.register("alice")
    codes = []
    for number in range(4):
        path = f"/sendToDevice/m.room_key_request/{number}"
        codes.append((await server.call("PUT", path, {"messages": {}}, alice)).code)
        assert (await server.call("PUT", f"/sendToDevice/m.room_key/{number}", {"messages": {}}, alice)).code == 200
    assert codes == [200, 200, 429, 429]
    server.clock.advance(1)
    assert (await server.call("PUT", "/sendToDevice/m.room_key_request/3", {"messages": {}}, alice)).code == 200


@pytest_twisted.ensureDeferred
async def test_deactivation_takes_messages_and_keys(server: Server) -> None:
    alice = await server.register("alice")
    keys = {"one_time_keys": {"x:1": "key"}, "fallback_keys": {"x:f": "key"}}
    assert (await server.call("POST", "/keys/upload", keys, alice)).code == 200
    await server.call("PUT", "/sendToDevice/m.x/1", {"messages": {ALICE: {"*": {}}}}, alice)
    await server.accounts.deactivation.deactivate(ALICE, erase=False)

    def left(txn: Transaction) -> list[int]:
        tables = ("to_device_messages", "to_device_txns", "one_time_keys", "fallback_keys", "device_keys", "devices")
        txn.execute("SELECT " + ", ".join(f"(SELECT COUNT(*) FROM {table})" for table in tables))
        return list(txn.one())

    assert await server.database.read("test", left) == [0, 0, 0, 0, 0, 0]
