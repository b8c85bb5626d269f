"""What it costs to wait for news in /sync, in a whole server: nothing, until something concerns whoever waits; and what
is left when they go.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from synapse.storage.pool import PoolSettings
from synapse.sync.handler import SyncHandler
from tests.support.homeserver import TestServer, cluster, homeserver
from tests.support.reactor import real_reactor

V3 = "/_matrix/client/v3"


class People:
    """Users of a server, and rooms that they make."""

    def __init__(self, server: TestServer, tokens: dict[str, str]) -> None:
        self.server = server
        self.tokens = tokens
        self.txn = 0

    async def ask(self, user: str, method: str, path: str, body: Any = None, *, of: TestServer | None = None) -> Any:
        code, answer = await (of or self.server).client.request(method, V3 + path, body, self.tokens[user])
        assert code == 200, answer
        return answer

    async def room(self, *users: str) -> str:
        room = (await self.ask(users[0], "POST", "/createRoom", {"preset": "public_chat", "name": "x"}))["room_id"]
        for user in users[1:]:
            await self.ask(user, "POST", f"/join/{room}", {})
        return str(room)

    async def say(self, user: str, room: str, body: str = "hello") -> str:
        self.txn += 1
        content = {"msgtype": "m.text", "body": body}
        sent = await self.ask(user, "PUT", f"/rooms/{room}/send/m.room.message/{self.txn}", content)
        return str(sent["event_id"])

    async def settled(self, user: str, query: str = "") -> str:
        """A token after which nothing is new."""
        since = (await self.ask(user, "GET", f"/sync?{query}"))["next_batch"]
        while True:
            await deferLater(real_reactor(), 0.0)
            answer = await self.ask(user, "GET", f"/sync?since={since}&{query}")
            if answer["next_batch"] == since:
                return str(since)
            since = answer["next_batch"]

    def wait(self, user: str, since: str, query: str = "", of: TestServer | None = None) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.ask(user, "GET", f"/sync?since={since}&timeout=30000&{query}", of=of))


@pytest_twisted.async_yield_fixture
async def people(database_settings: PoolSettings) -> AsyncIterator[People]:
    many = {"per_second": 1000, "burst_count": 1000}
    async with homeserver(database_settings, rc_message=many, rc_registration=many, use_presence=False) as server:
        yield People(server, {name: await server.client.register(name) for name in ("alice", "bob", "carol")})


@pytest.fixture
def contexts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose syncs were looked after, in order."""
    looked: list[str] = []
    original = SyncHandler.context

    async def context(self: SyncHandler, request: Any, since: Any) -> Any:
        looked.append(request.user_id)
        return await original(self, request, since)

    monkeypatch.setattr(SyncHandler, "context", context)
    return looked


@pytest_twisted.ensureDeferred
async def test_what_does_not_concern_a_client_does_not_wake_it(people: People, contexts: list[str]) -> None:
    room, other = await people.room("alice", "bob"), await people.room("alice", "carol")
    first = await people.say("alice", room)
    since = await people.settled("bob")
    waiting = people.wait("bob", since)
    contexts.clear()
    for _ in range(3):
        await people.say("alice", other)
        await people.ask("carol", "PUT", f"/rooms/{other}/typing/@carol:test", {"typing": True, "timeout": 9000})
    await people.ask("carol", "PUT", "/user/@carol:test/account_data/org.example", {"x": 1})
    await people.ask("alice", "POST", f"/rooms/{room}/receipt/m.read.private/{first}", {})
    await deferLater(real_reactor(), 0.0)
    assert contexts == []
    assert people.server.hs.notifier.waiting == 1
    await people.say("alice", room, "news")
    answer = await waiting
    assert contexts == ["@bob:test"]
    assert answer["rooms"]["join"].keys() == {room}


@pytest_twisted.ensureDeferred
async def test_who_goes_away_leaves_nothing_behind(people: People) -> None:
    await people.room("alice", "bob")
    since = await people.settled("bob")
    hs = people.server.hs
    timers = set(real_reactor().getDelayedCalls())  # some of which may be others', and end meanwhile
    waiting = people.wait("bob", since)
    assert hs.notifier.waiting == 1
    waiting.addErrback(lambda failure: failure.trap(CancelledError))
    waiting.cancel()
    await waiting
    assert hs.notifier.waiting == 0
    assert timers.issuperset(real_reactor().getDelayedCalls())
    assert not hs.reading.syncs._shared._running
    assert not hs.notifier._waiting._waiters


@pytest_twisted.ensureDeferred
async def test_equal_requests_at_once_are_answered_alike_and_one_may_leave(people: People) -> None:
    room = await people.room("alice", "bob")
    since = await people.settled("bob")
    waiting = [people.wait("bob", since) for _ in range(3)]
    assert people.server.hs.notifier.waiting == 1
    waiting[0].addErrback(lambda failure: failure.trap(CancelledError))
    waiting[0].cancel()
    await people.say("alice", room)
    first, second = await waiting[1], await waiting[2]
    assert first == second
    assert len(first["rooms"]["join"][room]["timeline"]["events"]) == 1


@pytest_twisted.ensureDeferred
async def test_a_client_that_is_kicked_while_it_waits_hears_of_it(people: People) -> None:
    room = await people.room("alice", "bob")
    since = await people.settled("bob")
    waiting = people.wait("bob", since)
    await people.ask("alice", "POST", f"/rooms/{room}/kick", {"user_id": "@bob:test", "reason": "noise"})
    await people.say("alice", room, "after")
    told = (await waiting)["rooms"]["leave"][room]["timeline"]["events"]
    assert [event["content"].get("reason") for event in told] == ["noise"]


@pytest_twisted.ensureDeferred
async def test_members_follow_a_room_that_is_upgraded(people: People) -> None:
    room = await people.room("alice", "bob")
    since = await people.settled("bob")
    waiting = people.wait("bob", since)
    new = (await people.ask("alice", "POST", f"/rooms/{room}/upgrade", {"new_version": "11"}))["replacement_room"]
    seen: list[Any] = []
    answer = await waiting
    while not any(event["type"] == "m.room.tombstone" for event in seen):
        seen += answer.get("rooms", {}).get("join", {}).get(room, {"timeline": {"events": []}})["timeline"]["events"]
        answer = await people.ask("bob", "GET", f"/sync?since={answer['next_batch']}")
    tombstone = next(event for event in seen if event["type"] == "m.room.tombstone")
    assert tombstone["content"]["replacement_room"] == new
    since = answer["next_batch"]
    await people.ask("bob", "POST", f"/join/{new}", {})
    joined = (await people.ask("bob", "GET", f"/sync?since={since}"))["rooms"]["join"][new]
    events = [*joined["state"]["events"], *joined["timeline"]["events"]]
    created = next(event for event in events if event["type"] == "m.room.create")
    assert created["content"]["predecessor"]["room_id"] == room


@pytest_twisted.ensureDeferred
async def test_tokens_hold_on_every_process_and_after_a_restart(database_settings: PoolSettings) -> None:
    many = {"per_second": 1000, "burst_count": 1000}
    async with cluster(database_settings, "synchrotron", rc_message=many, rc_registration=many) as servers:
        tokens = {name: await servers.main.client.register(name) for name in ("alice", "bob")}
        people = People(servers.main, tokens)
        room = await people.room("alice", "bob")
        await servers.caught_up()
        told: list[str] = []
        since = (await people.ask("bob", "GET", "/sync"))["next_batch"]
        worker = servers["synchrotron"]
        for number in range(4):
            if number == 2:
                await worker.stop()
                worker = await servers.add_worker("synchrotron")
            await people.say("alice", room, str(number))
            server = worker if number % 2 == 0 else servers.main
            # The worker may not have heard of all that the token of the main process covers: it waits for that.
            answer = await people.ask("bob", "GET", f"/sync?since={since}", of=server)
            if server is worker and room not in answer.get("rooms", {}).get("join", {}):
                answer = await people.wait("bob", answer["next_batch"], of=server)
            since = answer["next_batch"]
            told += [e["content"]["body"] for e in answer["rooms"]["join"][room]["timeline"]["events"]]
        assert told == ["0", "1", "2", "3"]
