"""Notifications as a real push gateway gets them: what they say, retries, and what the end of a process leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from synapse.handlers.push_sending import DELAY_SECONDS, GIVE_UP_MS, RETRY_SECONDS, PushSending
from synapse.metrics import table
from synapse.storage.pool import PoolSettings
from tests.support.homeserver import TestServer, cluster, homeserver
from tests.support.reactor import HeldReactor, real_reactor

V3 = "/_matrix/client/v3"
PATH = "/_matrix/push/v1/notify"
ALICE, BOB = "@alice:test", "@bob:test"


class Gateway(Resource):
    """A push gateway, which answers with `answer`: a status and an object, or nothing as long as that is None."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answer: tuple[int, Any] | None = (200, {"rejected": []})
        self.got: list[dict[str, Any]] = []
        self._waiting: list[Deferred[None]] = []

    def render(self, request: Any) -> Any:
        assert (request.method, request.path) == (b"POST", PATH.encode())
        assert request.getHeader("content-type") == "application/json"
        self.got.append(orjson.loads(request.content.read())["notification"])
        answer = self.answer  # as it is before the test goes on
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)
        if answer is None:
            request.notifyFinish().addErrback(lambda _: None)
            return NOT_DONE_YET
        code, body = answer
        request.setResponseCode(code)
        return orjson.dumps(body)

    async def next(self, number: int) -> dict[str, Any]:
        """The so-manieth notification, from 1; the last one so far."""
        while len(self.got) < number:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter.addTimeout(20, real_reactor())
        assert len(self.got) == number, self.got
        return self.got[-1]


class Town:
    """Alice, who is notified, and Bob, who writes to her."""

    def __init__(self, server: TestServer, clock: HeldReactor, gateway: Gateway, port: int) -> None:
        self.server = server
        self.clock = clock
        self.gateway = gateway
        self.url = f"http://127.0.0.1:{port}{PATH}"
        self.tokens: dict[str, str] = {}
        self.room = ""
        self.duty: PushSending = server.hs.pushing.sending
        self._sent = 0

    async def ask(self, user: str, method: str, path: str, body: Any = None) -> Any:
        code, answer = await self.server.client.request(method, V3 + path, body, self.tokens[user])
        assert code == 200, answer
        return answer

    async def begin(self) -> None:
        for user in (ALICE, BOB):
            self.tokens[user] = await self.server.client.register(user[1:].partition(":")[0])
        room = {"name": "The room", "invite": [ALICE], "preset": "private_chat"}
        self.room = (await self.ask(BOB, "POST", "/createRoom", room))["room_id"]
        await self.ask(ALICE, "POST", f"/join/{self.room}", {})

    async def pusher(self, pushkey: str = "key", **data: Any) -> None:
        body = {
            "kind": "http",
            "app_id": "app",
            "pushkey": pushkey,
            "lang": "en",
            "append": True,
            "app_display_name": "App",
            "device_display_name": "Phone",
            "data": {"url": self.url, **data},
        }
        await self.ask(ALICE, "POST", "/pushers/set", body)

    async def say(self, body: str = "hello", kind: str = "m.room.message", **content: Any) -> str:
        self._sent += 1
        path = f"/rooms/{self.room}/send/{kind}/{self._sent}"
        sent = await self.ask(BOB, "PUT", path, {"msgtype": "m.text", "body": body, **content})
        self.soon()
        return str(sent["event_id"])

    async def read(self, event_id: str) -> None:
        await self.ask(ALICE, "POST", f"/rooms/{self.room}/receipt/m.read/{event_id}", {})
        self.soon()

    def soon(self) -> None:
        """The time for which the duty waits for more to come is over."""
        self.clock.advance(DELAY_SECONDS)

    async def rows(self) -> list[tuple[Any, ...]]:
        def read(txn: Any) -> list[tuple[Any, ...]]:
            txn.execute("SELECT pushkey, last_stream_ordering, badge, failing_since FROM pushers ORDER BY pushkey")
            return list(txn.rows())

        return await self.server.hs.database.read("test", read)

    async def settled(self) -> None:
        """Returns when no pusher is at work, as far as it can go without the clock."""
        reactor = real_reactor()
        deadline = reactor.seconds() + 30
        while reactor.seconds() < deadline:
            if all(sender.is_waiting for sender in self.duty._senders.values()) and not self.duty._looking:
                return
            await self.rows()
        raise AssertionError("it does not come to rest")


@asynccontextmanager
async def town(settings: PoolSettings, *, on_duty: bool = True, **options: Any) -> AsyncIterator[Town]:
    gateway, clock = Gateway(), HeldReactor()
    clock.advance(1_700_000_000)
    site: Any = Site(gateway)
    site.noisy = False
    port = real_reactor().listenTCP(0, site, interface="127.0.0.1")
    try:
        async with homeserver(settings, clock, **{"ip_range_blacklist": [], **options}) as server:
            made = Town(server, clock, gateway, port.getHost().port)
            await made.begin()
            if on_duty:
                await made.duty.begin()
            yield made
            await made.duty.end()
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_what_a_gateway_is_told(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        await there.pusher(brand="x")
        await there.ask(BOB, "PUT", f"/rooms/{there.room}/state/m.room.member/{BOB}", _joined("Robert"))
        event_id = await there.say("hello alice")
        told = await there.gateway.next(1)
        device = told.pop("devices")
        assert told == {
            "event_id": event_id,
            "id": event_id,
            "room_id": there.room,
            "type": "m.room.message",
            "sender": BOB,
            "sender_display_name": "Robert",
            "room_name": "The room",
            "prio": "high",
            "content": {"msgtype": "m.text", "body": "hello alice"},
            "counts": {"unread": 1},
        }
        tweaks = device[0].pop("tweaks")
        assert tweaks["sound"] == "default"
        assert device == [{"app_id": "app", "pushkey": "key", "pushkey_ts": 1_700_000_000, "data": {"brand": "x"}}]
        await there.settled()
        await there.read(event_id)
        told = await there.gateway.next(2)
        assert told["counts"] == {"unread": 0}
        assert "event_id" not in told
        assert told["devices"][0]["pushkey"] == "key"
        await there.settled()
        await there.read(event_id)
        await there.settled()
        assert len(there.gateway.got) == 2, "the count is the same"


def _joined(name: str) -> dict[str, Any]:
    return {"membership": "join", "displayname": name}


@pytest_twisted.ensureDeferred
async def test_invites_are_told(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        await there.pusher()
        room = (await there.ask(BOB, "POST", "/createRoom", {"invite": [ALICE]}))["room_id"]
        there.soon()
        told = await there.gateway.next(1)
        assert (told["type"], told["room_id"], told["user_is_target"]) == ("m.room.member", room, True)
        assert told["content"]["membership"] == told["membership"] == "invite"


@pytest_twisted.ensureDeferred
async def test_the_id_alone(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        await there.pusher(format="event_id_only")
        event_id = await there.say()
        told = await there.gateway.next(1)
        assert set(told) == {"event_id", "room_id", "counts", "prio", "devices"}
        assert (told["event_id"], told["room_id"]) == (event_id, there.room)
        assert told["devices"][0]["data"] == {"format": "event_id_only"}


@pytest.mark.parametrize("by_room", [True, False])
@pytest_twisted.ensureDeferred
async def test_what_the_configuration_says_of_it(database_settings: PoolSettings, by_room: bool) -> None:
    options = {"include_content": False, "group_unread_count_by_room": by_room}
    async with town(database_settings, push=options) as there:
        await there.pusher()
        await there.say()
        told = await there.gateway.next(1)
        assert "content" not in told
        assert told["sender"] == BOB
        await there.settled()
        await there.say()
        assert (await there.gateway.next(2))["counts"] == {"unread": 1 if by_room else 2}


@pytest_twisted.ensureDeferred
async def test_a_room_without_a_name_is_named_by_its_alias(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        await there.ask(BOB, "PUT", f"/rooms/{there.room}/state/m.room.name", {"name": ""})
        await there.ask(BOB, "PUT", "/directory/room/%23there:test", {"room_id": there.room})
        await there.ask(BOB, "PUT", f"/rooms/{there.room}/state/m.room.canonical_alias", {"alias": "#there:test"})
        await there.pusher(format="of.the.gateway")
        await there.say()
        told = await there.gateway.next(1)
        assert told["room_name"] == told["room_alias"] == "#there:test"
        assert told["devices"][0]["data"] == {"format": "of.the.gateway"}
        assert told["type"] == "m.room.message"


@pytest_twisted.ensureDeferred
async def test_large_content_is_left_out(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        await there.pusher()
        await there.say("x" * 20_000)
        told = await there.gateway.next(1)
        assert "content" not in told
        assert told["type"] == "m.room.message"


@pytest_twisted.ensureDeferred
async def test_only_what_comes_after_the_pusher_was_made(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        await there.say("before")
        await there.pusher()
        event_id = await there.say("after")
        assert (await there.gateway.next(1))["event_id"] == event_id


@pytest_twisted.ensureDeferred
async def test_a_pushkey_that_is_rejected_goes(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        await there.pusher("good")
        there.gateway.answer = (200, {"rejected": ["bad"]})
        await there.pusher("bad")
        await there.say()
        await _until(there, 2)
        await there.settled()
        assert [row[0] for row in await there.rows()] == ["good"]


async def _until(there: Town, number: int) -> None:
    for _ in range(5000):
        if len(there.gateway.got) >= number:
            return
        await there.rows()
    raise AssertionError(f"there are {len(there.gateway.got)} notifications")


async def _gone(there: Town) -> None:
    for _ in range(5000):
        if not await there.rows():
            return
    raise AssertionError("the pusher is still there")


@pytest.mark.parametrize("answer", [(500, {}), (404, {"errcode": "M_UNRECOGNIZED"}), (302, {}), None])
@pytest_twisted.ensureDeferred
async def test_a_gateway_that_fails_is_asked_again_ever_more_rarely(
    database_settings: PoolSettings, answer: tuple[int, Any] | None
) -> None:
    async with town(database_settings) as there:
        await there.pusher()
        there.gateway.answer = answer
        event_id = await there.say()
        for attempt, pause in enumerate((1, 2, 4, 8), 1):
            assert (await there.gateway.next(attempt))["event_id"] == event_id
            if answer is None:
                there.clock.advance(21)
            await there.settled()
            assert (await there.rows())[0][3] is not None
            assert table.PUSHERS_FAILING.child().value == 1
            await there.say("another")
            await there.settled()
            there.clock.advance(pause - 2 * DELAY_SECONDS)
            await there.settled()
            assert len(there.gateway.got) == attempt, "not before its time"
            if attempt == 4:
                there.gateway.answer = (200, {})
            there.clock.advance(2 * DELAY_SECONDS)
        await _until(there, 9)
        await there.settled()
        assert there.gateway.got[4]["event_id"] == event_id
        assert len({told["event_id"] for told in there.gateway.got}) == 5, "nothing was lost, and the order kept"
        assert (await there.rows())[0][3] is None
        assert table.PUSHERS_FAILING.child().value == 0


@pytest_twisted.ensureDeferred
async def test_what_is_read_meanwhile_is_not_sent(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        await there.pusher()
        there.gateway.answer = (502, {})
        first = await there.say("first")
        await there.gateway.next(1)
        await there.settled()
        await there.read(first)
        await there.settled()
        there.gateway.answer = (200, {})
        there.clock.advance(2)
        await there.settled()
        assert len(there.gateway.got) == 1
        assert (await there.rows())[0][3] is None, "it fails no more"


@pytest_twisted.ensureDeferred
async def test_after_a_day_what_was_missed_is_given_up(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        await there.pusher()
        there.gateway.answer = (500, {})
        await there.say("first")
        await there.gateway.next(1)
        await there.settled()
        await there.say("second")
        there.clock.advance(GIVE_UP_MS / 1000)
        await there.gateway.next(2)
        await there.settled()
        there.gateway.answer = (200, {})
        event_id = await there.say("third")
        assert (await there.gateway.next(3))["event_id"] == event_id


@pytest_twisted.ensureDeferred
async def test_setting_it_again_has_a_failing_gateway_asked_at_once(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        await there.pusher()
        there.gateway.answer = (500, {})
        first = await there.say("first")
        await there.gateway.next(1)
        await there.settled()
        there.gateway.answer = (200, {})
        there.clock.advance(0.1)
        await there.pusher(brand="new")
        await there.say("second")
        await _until(there, 3)
        assert there.gateway.got[1]["event_id"] == first


@pytest_twisted.ensureDeferred
async def test_a_process_that_ends_leaves_the_rest_to_the_next(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        await there.pusher()
        first = await there.say("first")
        await there.gateway.next(1)
        await there.settled()
        there.gateway.answer = None
        second = await there.say("second")
        await there.gateway.next(2)
        await there.duty.end()  # while it waits for the answer
        third = await there.say("third")
        there.gateway.answer = (200, {})
        await there.duty.begin()
        await _until(there, 4)
        assert [told["event_id"] for told in there.gateway.got] == [first, second, second, third]
        await there.settled()
        assert (await there.rows())[0][1] == there.server.hs.notifier.position("events")
        assert len(there.gateway.got) == 4


@pytest_twisted.ensureDeferred
async def test_redacted_events_and_locked_users_are_passed_over(database_settings: PoolSettings) -> None:
    async with town(database_settings, on_duty=False) as there:
        await there.pusher()
        gone = await there.say("a mistake")
        await there.ask(BOB, "PUT", f"/rooms/{there.room}/redact/{gone}/r", {})
        kept = await there.say("right")
        await there.duty.begin()
        assert (await there.gateway.next(1))["event_id"] == kept
        await there.settled()

        def lock(txn: Any) -> None:
            txn.execute("UPDATE users SET locked = true WHERE user_id = %s", (ALICE,))

        await there.server.hs.database.write("test", lock)
        await there.say("unheard")
        await there.settled()
        assert len(there.gateway.got) == 1


@pytest_twisted.ensureDeferred
async def test_a_database_that_fails_is_asked_again(
    database_settings: PoolSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with town(database_settings) as there:
        await there.pusher()
        concerned = there.duty.store.concerned
        asked: list[object] = []

        async def fails(users: Any, rooms: Any) -> Any:
            asked.append(users)
            raise ValueError("not now")

        monkeypatch.setattr(there.duty.store, "concerned", fails)
        event_id = await there.say()
        there.soon()
        assert len(asked) == 1, "it is given time"
        monkeypatch.setattr(there.duty.store, "concerned", concerned)
        there.clock.advance(RETRY_SECONDS)
        assert (await there.gateway.next(1))["event_id"] == event_id


@pytest_twisted.ensureDeferred
async def test_a_worker_sends_for_the_main_process(database_settings: PoolSettings) -> None:
    gateway = Gateway()
    site: Any = Site(gateway)
    port = real_reactor().listenTCP(0, site, interface="127.0.0.1")
    options = {"start_pushers": False, "ip_range_blacklist": []}
    async with cluster(database_settings, "pusher", **options) as processes:
        worker = processes["pusher"].hs
        assert [duty.lease.name for duty in worker.duties] == ["pusher"]
        assert "pusher" not in [duty.lease.name for duty in processes.main.hs.duties]
        there = Town(processes.main, HeldReactor(), gateway, port.getHost().port)
        await there.begin()
        await processes.caught_up()
        await worker.pushing.sending.begin()
        await there.pusher()
        event_id = await there.say()
        assert (await gateway.next(1))["event_id"] == event_id
        await there.read(event_id)
        assert (await gateway.next(2))["counts"] == {"unread": 0}
        gateway.answer = (200, {"rejected": ["key"]})
        await there.say()
        await gateway.next(3)
        await _gone(there)
        await worker.pushing.sending.end()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_the_main_process_removes_what_a_worker_says_is_refused(database_settings: PoolSettings) -> None:
    async with town(database_settings, on_duty=False) as there:
        await there.pusher("key")
        await there.pusher("other")
        commands = there.server.hs.replication.commands
        for app_id, pushkey, user_id in (("another", "other", ALICE), ("app", "other", BOB), ("app", "key", ALICE)):
            commands.remove_pusher(app_id, pushkey, user_id)
        for _ in range(5000):
            if len(left := await there.rows()) == 1:
                break
        assert [pushkey for pushkey, *_ in left] == ["other"]


@pytest_twisted.ensureDeferred
async def test_private_addresses_are_not_asked(database_settings: PoolSettings) -> None:
    async with town(database_settings, ip_range_blacklist=["127.0.0.0/8"]) as there:
        await there.pusher()
        await there.say()
        await _failing(there)
        assert there.gateway.got == []


async def _failing(there: Town) -> None:
    for _ in range(2000):
        if (await there.rows())[0][3] is not None:
            return
    raise AssertionError("it does not fail")


@pytest_twisted.ensureDeferred
async def test_news_costs_one_statement_for_all(database_settings: PoolSettings) -> None:
    async with town(database_settings) as there:
        with there.server.hs.database.counted() as counts:
            await there.say()
            await there.say()
            there.soon()
            await there.settled()
        assert counts.read["pushers.concerned"] <= 2
        assert counts.read["pushers.due"] == 0, "nobody has a pusher"
