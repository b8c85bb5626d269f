"""Typing, receipts, presence and messages between devices as they reach other servers."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from synapse.storage.errors import DatabaseUnavailable
from synapse.storage.pool import PoolSettings
from tests.federation.sending.peers import C
from tests.federation.sending.test_sending import Made, made
from tests.support.far_users import put_into_room

ALICE = "@alice:test"


async def put(it: Made, path: str, body: object) -> None:
    code, answer = await it.server.client.put(f"{C}{path}", body, it.room.token)
    assert code == 200, answer


@ensureDeferred
async def test_who_types_and_stops(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test", use_presence=False) as it:
        await put(it, f"/rooms/{it.room.id}/typing/{ALICE}", {"typing": True, "timeout": 60_000})
        await it.until(lambda: it.peers.edus("b.test", "m.typing"))
        it.hs.reactor.advance(21)
        await it.until(lambda: len(it.peers.edus("b.test", "m.typing")) == 2)
        await put(it, f"/rooms/{it.room.id}/typing/{ALICE}", {"typing": False})
        await it.until(lambda: len(it.peers.edus("b.test", "m.typing")) == 3)
        told = it.peers.edus("b.test", "m.typing")
        assert [each["typing"] for each in told] == [True, True, False]
        assert {(each["room_id"], each["user_id"]) for each in told} == {(it.room.id, ALICE)}


@ensureDeferred
async def test_typing_is_not_told_of_others_users_nor_late(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test", use_presence=False) as it:
        it.hs.reading.typing.start(it.room.id, "@u:b.test", 30_000)
        it.peers.away.add("b.test")
        await put(it, f"/rooms/{it.room.id}/typing/{ALICE}", {"typing": True, "timeout": 10_000})
        await it.until(lambda: "b.test" in it.peers.tried)
        it.hs.reactor.advance(40)
        await it.settled(0.5)
        it.peers.away.clear()
        await it.room.say("hello")
        await it.until(lambda: it.peers.texts("b.test"), step=1.0)
        assert it.peers.edus("b.test", "m.typing") == []


@ensureDeferred
async def test_receipts_are_told_but_not_private_ones(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test", use_presence=False) as it:
        bob = await it.server.client.register("bob")
        code, _ = await it.server.client.post(f"{C}/rooms/{it.room.id}/join", {}, bob)
        assert code == 200
        event_id = await it.room.say("hello")
        path = f"/rooms/{it.room.id}/receipt"
        for kind, token in (("m.read.private", it.room.token), ("m.read.private", bob), ("m.read", bob)):
            code, _ = await it.server.client.post(f"{C}{path}/{kind}/{event_id}", {}, token)
            assert code == 200
        await it.until(lambda: it.peers.edus("b.test", "m.receipt"))
        await it.settled(0.2)
        (told,) = it.peers.edus("b.test", "m.receipt")
        assert list(told) == [it.room.id]
        assert list(told[it.room.id]) == ["m.read"]
        (entry,) = told[it.room.id]["m.read"].values()
        assert list(told[it.room.id]["m.read"]) == ["@bob:test"]
        assert entry["event_ids"] == [event_id]
        assert entry["data"]["ts"] >= 1_700_000_000_000


@ensureDeferred
async def test_receipts_for_own_events_are_told_where_users_set_them(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test", use_presence=False) as it:
        event_id = await it.room.say("hello")
        code, _ = await it.server.client.post(f"{C}/rooms/{it.room.id}/receipt/m.read/{event_id}", {}, it.room.token)
        assert code == 200
        await it.until(lambda: it.peers.edus("b.test", "m.receipt"))
        (told,) = it.peers.edus("b.test", "m.receipt")
        (entry,) = told[it.room.id]["m.read"].values()
        assert entry["event_ids"] == [event_id]


@ensureDeferred
async def test_receipts_in_a_room_with_many_servers_are_told_together(database_settings: PoolSettings) -> None:
    options = {"use_presence": False, "federation_rr_transactions_per_room_per_second": 0.1}
    async with made(database_settings, "b.test", **options) as it:
        bob = await it.server.client.register("bob")
        code, _ = await it.server.client.post(f"{C}/rooms/{it.room.id}/join", {}, bob)
        assert code == 200
        events = [await it.room.say(str(number)) for number in range(3)]
        for event_id in events:
            await it.server.client.post(f"{C}/rooms/{it.room.id}/receipt/m.read/{event_id}", {}, bob)
            await it.settled(0.02)
        assert len(it.peers.edus("b.test", "m.receipt")) == 1
        it.hs.reactor.advance(10)
        await it.until(lambda: len(it.peers.edus("b.test", "m.receipt")) == 2)
        last = it.peers.edus("b.test", "m.receipt")[-1][it.room.id]["m.read"]["@bob:test"]
        assert last["event_ids"] == events[-1:]


@ensureDeferred
async def test_receipts_that_were_not_told_are_told_by_who_takes_over(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test", use_presence=False) as it:
        bob = await it.server.client.register("bob")
        await it.server.client.post(f"{C}/rooms/{it.room.id}/join", {}, bob)
        event_id = await it.room.say("hello")
        it.hs.reactor.advance(11)
        await it.settled()
        it.hs.reactor.advance(11)
        await it.settled()
        await it.die()
        await it.server.client.post(f"{C}/rooms/{it.room.id}/receipt/m.read/{event_id}", {}, bob)
        await it.begin()
        await it.until(lambda: it.peers.edus("b.test", "m.receipt"))


@ensureDeferred
async def test_presence_is_told_to_servers_that_share_a_room(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test") as it:
        other = await it.server.client.register("carol")
        await it.settled(0.2)
        body = {"presence": "unavailable", "status_msg": "at lunch"}
        await it.server.client.put(f"{C}/presence/@carol:test/status", body, other)
        await put(it, f"/presence/{ALICE}/status", body)
        await it.until(lambda: any(_of(it, "unavailable")))
        await it.settled(0.2)
        (told,) = _of(it, "unavailable")
        assert (told["user_id"], told["status_msg"]) == (ALICE, "at lunch")
        assert told["last_active_ago"] >= 0


@ensureDeferred
async def test_who_comes_into_a_room_is_told_who_is_there(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test") as it:
        await put(it, f"/presence/{ALICE}/status", {"presence": "online"})
        await it.settled(0.2)
        await put_into_room(it.hs, it.room.id, "@u:new.test")
        await it.until(lambda: it.peers.edus("new.test", "m.presence"))
        (told,) = it.peers.edus("new.test", "m.presence")
        assert [each["user_id"] for each in told["push"]] == [ALICE]


@ensureDeferred
async def test_messages_between_devices_are_told_until_they_arrive(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test", use_presence=False) as it:
        it.peers.away.add("b.test")
        body = {"messages": {"@u:b.test": {"DEVICE": {"n": 1}}}}
        await put(it, "/sendToDevice/m.x/1", body)
        await it.until(lambda: "b.test" in it.peers.tried)
        await it.die()
        it.peers.away.clear()
        await it.begin()
        await it.until(lambda: it.peers.edus("b.test", "m.direct_to_device"), step=0.5)
        await it.settled(0.5)
        (told,) = it.peers.edus("b.test", "m.direct_to_device")
        assert told["messages"] == body["messages"]
        assert await it.hs.edus.to_device_outbox.destinations() == set()


@ensureDeferred
async def test_many_messages_between_devices_go_a_hundred_at_most(database_settings: PoolSettings) -> None:
    async with made(database_settings, "b.test", use_presence=False) as it:
        it.peers.away.add("b.test")
        for number in range(130):
            await put(it, f"/sendToDevice/m.x/{number}", {"messages": {"@u:b.test": {"D": {"n": number}}}})
        it.peers.away.clear()
        await it.until(lambda: len(it.peers.edus("b.test", "m.direct_to_device")) >= 130, step=0.5)
        await it.settled(0.5)
        told = [each["messages"]["@u:b.test"]["D"]["n"] for each in it.peers.edus("b.test", "m.direct_to_device")]
        assert told == list(range(130))
        assert all(len(sent.body["edus"]) <= 100 for sent in it.peers.sent)


@ensureDeferred
async def test_what_is_no_event_is_told_though_the_database_breaks_off(
    database_settings: PoolSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a transaction is put together, and while it is about to be sent."""
    async with made(database_settings, "b.test", use_presence=False) as it:
        event_id = await it.room.say("hello")
        await it.settled()
        dispatch, failures = it.sending.dispatch, 2
        outbox, send = dispatch._loading.waiting["to_device"], dispatch._send

        async def ask(*args: Any) -> Any:
            nonlocal failures
            failures -= 1
            if failures == 1:
                raise DatabaseUnavailable("It is away.")
            return await outbox(*args)

        async def send_after_all(*args: Any) -> Any:
            if failures == 0:
                monkeypatch.setattr(dispatch, "_send", send)
                raise DatabaseUnavailable("It is away again.")
            return await send(*args)

        monkeypatch.setitem(dispatch._loading.waiting, "to_device", ask)
        monkeypatch.setattr(dispatch, "_send", send_after_all)
        await put(it, "/sendToDevice/m.x/1", {"messages": {"@u:b.test": {"DEVICE": {"n": 1}}}})
        path = f"{C}/rooms/{it.room.id}/receipt/m.read/{event_id}"
        assert (await it.server.client.post(path, {}, it.room.token))[0] == 200
        await it.until(lambda: it.peers.edus("b.test", "m.direct_to_device"), step=0.5)
        await it.until(lambda: it.peers.edus("b.test", "m.receipt"), step=0.5)
        await it.settled(0.5)
        assert not dispatch._taken


def _of(it: Made, presence: str) -> list[dict[str, object]]:
    edus = it.peers.edus("b.test", "m.presence")
    return [each for edu in edus for each in edu["push"] if each["presence"] == presence]
