"""What reading costs, in statements: the budgets of the hot paths. Counts repeat; timings do not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from synapse.api.routes import route_of
from synapse.storage.database import Counts
from synapse.storage.pool import PoolSettings
from tests.support.homeserver import TestServer, cluster, homeserver
from tests.support.reactor import real_reactor

V3 = "/_matrix/client/v3"

CaughtUp = Callable[[], Awaitable[None]]


class World:
    """A server with a few users; `alice` is in all the rooms.

    Requests go to the process that proxies give them to, by the short name of its application.
    """

    def __init__(self, processes: Mapping[str, TestServer], tokens: dict[str, str], caught_up: CaughtUp) -> None:
        self._processes = processes
        self._caught_up = caught_up
        self.tokens = tokens
        self.rooms: list[str] = []

    async def ask(self, user: str, method: str, path: str, body: Any = None) -> Any:
        await self._caught_up()
        route = route_of(method, V3 + path.partition("?")[0])
        app = "homeserver" if route is None else route.app.value.removeprefix("synapse.app.")
        process = self._processes.get(app, self._processes["homeserver"])
        code, answer = await process.client.request(method, V3 + path, body, self.tokens[user])
        assert code == 200, answer
        return answer

    async def room(self) -> str:
        room = (await self.ask("alice", "POST", "/createRoom", {"preset": "public_chat", "name": "x"}))["room_id"]
        for user in self.tokens:
            if user != "alice":
                await self.ask(user, "POST", f"/rooms/{room}/join", {})
        self.rooms.append(room)
        return str(room)

    async def say(self, user: str, room: str, txn: str) -> None:
        await self.ask(user, "PUT", f"/rooms/{room}/send/m.room.message/{txn}", {"msgtype": "m.text", "body": txn})

    async def sync(self, user: str, since: str | None = None, query: str = "") -> Any:
        return await self.ask(user, "GET", "/sync?" + (f"since={since}&" if since else "") + query)

    async def settled(self, user: str, *others: str) -> str:
        """A token of the user's after which nothing is new; who is active, these others as well, is told of by then."""
        for other in others:
            await self.say(other, self.rooms[0], f"settled {other}")
        keeper = self._processes["homeserver"].hs.reading.presence_keeper
        since = (await self.sync(user))["next_batch"]
        while True:
            await deferLater(real_reactor(), 0.0)
            before, since = since, (await self.sync(user, since))["next_batch"]
            if since == before and not keeper._writing:
                return str(since)

    @contextmanager
    def counted(self) -> Iterator[Counts]:
        """What all processes ask of the database together; to be read when the block is over."""
        total = Counts()
        with ExitStack() as stack:
            each = [stack.enter_context(process.hs.database.counted()) for process in self._processes.values()]
            yield total
        for counts in each:
            total.read.update(counts.read)
            total.written.update(counts.written)
            total.sql += counts.sql

    def forget_recent(self) -> None:
        """As after a restart: nothing is in memory of what the streams said."""
        for process in self._processes.values():
            process.hs.reading.memory.recent.start(process.hs.notifier.position("events"))


async def _nothing() -> None:
    """A single process knows all at once."""


@pytest_twisted.async_yield_fixture(params=["one process", "workers"])
async def world(request: pytest.FixtureRequest, database_settings: PoolSettings) -> AsyncIterator[World]:
    many = {"per_second": 10_000, "burst_count": 10_000}
    options = {"rc_message": many, "rc_registration": many, "rc_joins": {"local": many}}
    if request.param == "one process":
        async with homeserver(database_settings, **options) as server:
            yield World({"homeserver": server}, await _register(server), _nothing)
    else:
        apps = ("synchrotron", "client_reader", "event_creator")
        async with cluster(database_settings, *apps, **options) as servers:
            tokens = await _register(servers.main)
            yield World({"homeserver": servers.main, **servers.workers}, tokens, servers.caught_up)


async def _register(server: TestServer) -> dict[str, str]:
    return {name: await server.client.register(name) for name in ("alice", "bob", "carol")}


async def reads_of(world: World, user: str, *args: Any) -> int:
    with world.counted() as counts:
        await world.sync(user, *args)
    assert counts.statements_written == 0, counts.sql
    return counts.statements_read


@pytest_twisted.ensureDeferred
async def test_a_first_sync_costs_the_same_for_any_number_of_rooms(world: World) -> None:
    costs = []
    for rooms in (2, 6):
        while len(world.rooms) < rooms:
            await world.say("alice", await world.room(), "m")
        await world.sync("alice")  # warm
        costs.append(await reads_of(world, "alice"))
    assert costs[0] == costs[1] <= 14, costs


@pytest_twisted.ensureDeferred
async def test_a_sync_without_news_asks_nothing(world: World) -> None:
    for _ in range(3):
        await world.say("alice", await world.room(), "m")
    since = await world.settled("bob", "alice")
    assert await reads_of(world, "bob", since) == 0
    # Neither does one that others' rooms wake, nor one to which a filter leaves nothing.
    other = (await world.ask("alice", "POST", "/createRoom", {}))["room_id"]
    await world.say("alice", other, "m")
    assert await reads_of(world, "bob", since) == 0


@pytest.mark.parametrize("user", ["alice", "bob"])
@pytest_twisted.ensureDeferred
async def test_a_message_is_delivered_with_three_statements_at_most(world: World, user: str) -> None:
    """To the one who waits for it, or for whom it is the own; whatever the number of rooms."""
    for _ in range(4):
        await world.room()
    since = await world.settled(user, "alice")
    for number in range(3):
        await world.say("alice", world.rooms[0], f"m{number}")
        with world.counted() as counts:
            answer = await world.sync(user, since)
        since = answer["next_batch"]
        assert len(answer["rooms"]["join"][world.rooms[0]]["timeline"]["events"]) == 1
    assert counts.statements_read <= (2 if user == "alice" else 0), counts.sql


@pytest_twisted.ensureDeferred
async def test_syncs_cost_the_same_in_five_rooms_and_in_five_hundred(world: World) -> None:
    room = await world.room()
    costs: list[tuple[int, int, int]] = []
    for rooms in (5, 500):
        while len(world.rooms) < rooms:
            world.rooms.append((await world.ask("alice", "POST", "/createRoom", {}))["room_id"])
        await world.sync("alice")  # warm
        first = await reads_of(world, "alice")
        since = await world.settled("alice", "bob")
        idle = await reads_of(world, "alice", since)
        await world.say("bob", room, f"news {rooms}")
        with world.counted() as counts:
            answer = await world.sync("alice", since)
        assert list(answer["rooms"]["join"]) == [room]
        costs.append((first, idle, counts.statements_read))
    for first, idle, news in costs:
        assert first <= 14  # one more where the states of all the rooms do not fit into memory
        assert (idle, news) == (0, 0)  # what is unread is known from the stream as well


@pytest_twisted.ensureDeferred
async def test_a_waiting_client_costs_nothing_until_it_is_woken(world: World) -> None:
    room = await world.room()
    await world.say("alice", room, "first")
    since = await world.settled("bob")
    waiting = Deferred.fromCoroutine(world.sync("bob", since, "timeout=20000"))
    await world.say("alice", room, "second")
    with world.counted() as counts:
        answer = await waiting
    assert len(answer["rooms"]["join"][room]["timeline"]["events"]) == 1
    assert counts.statements_read == 0, counts.sql


@pytest_twisted.ensureDeferred
async def test_catching_up_costs_the_same_for_any_number_of_rooms(world: World) -> None:
    costs = []
    for rooms in (2, 6):
        while len(world.rooms) < rooms:
            await world.room()
        since = (await world.sync("bob"))["next_batch"]
        for room in world.rooms:
            await world.say("alice", room, f"m{rooms}")
        world.forget_recent()
        costs.append(await reads_of(world, "bob", since))
    assert costs[1] <= costs[0] <= 7, costs


@pytest_twisted.ensureDeferred
async def test_news_of_keys_and_devices_cost_the_same_for_any_number_of_rooms(world: World) -> None:
    me = await world.ask("alice", "GET", "/account/whoami")
    keys = {"user_id": me["user_id"], "device_id": me["device_id"], "keys": {}, "signatures": {}}
    costs = []
    for rooms in (1, 4):
        while len(world.rooms) < rooms:
            await world.room()
        since = await world.settled("bob", "alice")
        await world.ask("bob", "GET", f"/keys/changes?from={since}&to={since}")  # his token is known there from now on
        await world.ask("alice", "POST", "/keys/upload", {"device_keys": {**keys, "algorithms": [str(rooms)]}})
        message = {"messages": {me["user_id"].replace("alice", "bob"): {"*": {}}}}
        await world.ask("alice", "PUT", f"/sendToDevice/test/{rooms}", message)
        with world.counted() as told:
            answer = await world.sync("bob", since)
        assert answer["device_lists"]["changed"] == [me["user_id"]]
        assert len(answer["to_device"]["events"]) == 1
        with world.counted() as compared:
            changes = await world.ask("bob", "GET", f"/keys/changes?from={since}&to={answer['next_batch']}")
        assert changes == {"changed": [me["user_id"]], "left": []}
        costs.append((told.statements_read, told.statements_written, compared.statements_read))
    # The message, and where the one whose keys changed is, unless that is known. For comparing: whose keys changed, who
    # of them shares a room, in which rooms the user is, and since when.
    assert [(written, compared) for _, written, compared in costs] == [(0, 4)] * 2
    assert all(told <= 2 for told, _, _ in costs), costs


@pytest_twisted.ensureDeferred
async def test_a_page_of_messages_takes_three_statements_at_most(world: World) -> None:
    room = await world.room()
    for number in range(60):
        await world.say("alice", room, f"m{number}")
    path = f"/rooms/{room}/messages?dir=b&limit=50"
    await world.ask("alice", "GET", path)
    for user, most in (("alice", 2), ("bob", 1)):
        await world.ask(user, "GET", path)
        with world.counted() as counts:
            answer = await world.ask(user, "GET", path)
        assert len(answer["chunk"]) == 50
        assert counts.statements_read <= most, counts.sql


@pytest_twisted.ensureDeferred
async def test_a_page_with_what_relates_to_it_takes_one_statement_more(world: World) -> None:
    room = await world.room()
    page = f"/rooms/{room}/messages?dir=b&limit=50"
    for number in range(55):
        await world.say("alice", room, f"m{number}")
    for event in (await world.ask("alice", "GET", page))["chunk"][::4]:
        for user, rel_type in (("bob", "m.thread"), ("alice", "m.replace"), ("carol", "m.reference")):
            relates_to = {"rel_type": rel_type, "event_id": event["event_id"]}
            content = {"body": "x", "msgtype": "m.text", "m.relates_to": relates_to, "m.new_content": {"body": "y"}}
            path = f"/rooms/{room}/send/m.room.message/{rel_type}{event['event_id'][1:]}"
            await world.ask(user, "PUT", path, content)
    for user, path in (("alice", page), ("bob", page), ("bob", f"/rooms/{room}/context/{event['event_id']}")):
        await world.ask(user, "GET", path)
        with world.counted() as counts:
            answer = await world.ask(user, "GET", path)
        # Around an event: the event, what is before and after it, the state, and what belongs to these.
        assert counts.statements_read <= (3 if path == page else 8), counts.sql
        if path == page:
            assert len(answer["chunk"]) == 50
            assert sum("m.relations" in each["unsigned"] for each in answer["chunk"]) > 2


@pytest_twisted.ensureDeferred
async def test_reading_state_takes_one_statement(world: World) -> None:
    room = await world.room()
    for path in ("state", "state/m.room.name", "members", "joined_members"):
        await world.ask("bob", "GET", f"/rooms/{room}/{path}")
        with world.counted() as counts:
            await world.ask("bob", "GET", f"/rooms/{room}/{path}")
        assert counts.statements_read == 1, (path, counts.sql)
