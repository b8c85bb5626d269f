"""Rooms of other servers, entered by way of workers: the main process joins, and may die over it."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlsplit

import pytest_twisted
from twisted.internet.defer import Deferred

from synapse.http.client import ClientAnswer, NotSent
from synapse.storage.pool import PoolSettings
from synapse.util.concurrency import gather
from tests.rest.people import Person
from tests.support.deferreds import started
from tests.support.homeserver import TestServer, cluster
from tests.support.resident import Resident

THERE = "there.test"


class Way:
    """In the place of `HttpsTransport`: leads to residents. What is asked for in `held` waits."""

    def __init__(self, *residents: Resident) -> None:
        self.residents = {resident.name: resident for resident in residents}
        self.held: dict[str, Deferred[None]] = {}
        self.reached: list[str] = []

    async def send(
        self, destination: str, method: str, path: str, body: bytes | None, *_more: Any, **_limits: Any
    ) -> ClientAnswer:
        if destination not in self.residents:
            raise NotSent(f"{destination} cannot be reached.")
        operation = urlsplit(path).path.split("/")[4]
        self.reached.append(operation)
        if operation in self.held:
            await self.held.pop(operation)
        code, value = self.residents[destination].answer(method, path, body)
        return ClientAnswer(code, {}, json.dumps(value).encode())

    def used_by(self, *servers: TestServer) -> None:
        for server in servers:
            server.hs.federation.client.transport = self


async def pause(server: TestServer, seconds: float) -> None:
    done: Deferred[None] = Deferred()
    server.hs.reactor.callLater(seconds, done.callback, None)
    await done


async def reached(server: TestServer, way: Way, operation: str) -> None:
    for _ in range(1000):
        if operation in way.reached:
            return
        await pause(server, 0.01)
    raise AssertionError(f"{operation} was not asked for")


@pytest_twisted.ensureDeferred
async def test_workers_have_the_main_process_enter_once_and_see_the_room(database_settings: PoolSettings) -> None:
    resident = Resident(THERE)
    said = resident.say(resident.creator, "before").event_id
    way = Way(resident)
    async with cluster(database_settings, "event_creator", "client_reader") as made:
        way.used_by(made.main, *made.workers.values())
        names = ("alice", "bob", "carol")
        tokens = {f"@{name}:test": await made.main.client.register(name) for name in names}
        await made.caught_up()
        people = [Person(made["event_creator"].client, user_id, token) for user_id, token in tokens.items()]
        room_id = quote(resident.room_id)
        await gather(person.do("POST", f"/join/{room_id}?via={THERE}", {}) for person in people)
        assert way.reached.count("send_join") == 1
        await made.caught_up()
        reader = Person(made["client_reader"].client, people[0].id, people[0].token)
        members = (await reader.do("GET", f"/rooms/{room_id}/joined_members"))["joined"]
        assert members.keys() == {resident.creator, *tokens}
        # History is fetched by whoever is asked for it.
        page = await reader.do("GET", f"/rooms/{room_id}/messages?dir=b&limit=50")
        assert said in [event["event_id"] for event in page["chunk"]]
        assert page["chunk"][-1]["type"] == "m.room.create"
        assert "end" not in page


@pytest_twisted.ensureDeferred
async def test_two_processes_that_fetch_history_at_once_tell_the_same(database_settings: PoolSettings) -> None:
    resident = Resident(THERE)
    said = [resident.say(resident.creator, f"message {number}").event_id for number in range(130)]
    way = Way(resident)
    async with cluster(database_settings, "client_reader") as made:
        way.used_by(made.main, *made.workers.values())
        user_id, token = "@alice:test", await made.main.client.register("alice")
        await made.caught_up()
        people = [Person(server.client, user_id, token) for server in (made.main, made["client_reader"])]
        room_id = quote(resident.room_id)
        await people[0].do("POST", f"/join/{room_id}?via={THERE}", {})
        await made.caught_up()
        path = f"/rooms/{room_id}/messages?dir=b&limit=50"
        pages = await gather(person.do("GET", path) for person in people)
        for _ in range(3):
            told = [[event["event_id"] for event in page["chunk"]] for page in pages]
            assert told[0] == told[1]
            if "end" in pages[0]:
                pages = await gather(person.do("GET", f"{path}&from={pages[0]['end']}") for person in people)
        assert "end" not in pages[1]
        for person in people:
            whole = await person.do("GET", f"/rooms/{room_id}/messages?dir=b&limit=500")
            messages = [event["event_id"] for event in whole["chunk"] if event["type"] == "m.room.message"]
            assert messages == said[::-1]
            assert whole["chunk"][-1]["type"] == "m.room.create"
        count = way.reached.count("backfill")
        await gather(person.do("GET", path) for person in people)
        assert way.reached.count("backfill") == count


@pytest_twisted.ensureDeferred
async def test_a_main_process_that_dies_meanwhile_leaves_nothing_and_the_next_one_enters(
    database_settings: PoolSettings,
) -> None:
    resident = Resident(THERE)
    way = Way(resident)
    async with cluster(database_settings, "event_creator") as made:
        way.used_by(made.main, *made.workers.values())
        user_id, token = "@alice:test", await made.main.client.register("alice")
        await made.caught_up()
        alice = Person(made["event_creator"].client, user_id, token)
        way.held["send_join"] = Deferred()
        joining = started(alice.do("POST", f"/join/{quote(resident.room_id)}?via={THERE}", {}))
        await reached(made.main, way, "send_join")
        assert not joining.called
        await made.stop_main()
        way.used_by(made.main)
        await made.start_main()
        assert (await joining)["room_id"] == resident.room_id
        assert way.reached.count("send_join") == 2
        await made.caught_up()
        members = await Person(made.main.client, user_id, token).do("GET", "/joined_rooms")
        assert members == {"joined_rooms": [resident.room_id]}


@pytest_twisted.ensureDeferred
async def test_what_is_said_while_the_server_comes_in_is_heard(database_settings: PoolSettings) -> None:
    resident = Resident(THERE)
    way = Way(resident)
    async with cluster(database_settings, "federation_reader") as made:
        way.used_by(made.main, *made.workers.values())
        alice = Person(made.main.client, "@alice:test", await made.main.client.register("alice"))
        await made.caught_up()
        way.held["send_join"] = held = Deferred()
        joining = started(alice.do("POST", f"/join/{quote(resident.room_id)}?via={THERE}", {}))
        await reached(made.main, way, "send_join")
        receiving = made["federation_reader"].hs.receiving
        unknown = "!" + "A" * 43
        versions = started(receiving.versions([resident.room_id, unknown]))
        await pause(made.main, 0.2)
        assert not versions.called
        held.callback(None)
        await joining
        assert await versions == {resident.room_id: resident.version}
        assert await receiving.versions([unknown]) == {}
