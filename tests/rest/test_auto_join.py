"""Rooms that everybody is in who registers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.storage.database import Transaction
from synapse.storage.pool import PoolSettings
from tests.rest.people import V3, Person, person
from tests.support.homeserver import TestServer, cluster, homeserver
from tests.support.postgres import SERVER_NAME

Starting = Callable[..., AbstractAsyncContextManager[TestServer]]
LOBBY, TEAROOM = f"#lobby:{SERVER_NAME}", f"#tearoom:{SERVER_NAME}"
_MANY = {"per_second": 1000, "burst_count": 1000}


@pytest.fixture
def starting(database_settings: PoolSettings) -> Starting:
    def start(**options: Any) -> AbstractAsyncContextManager[TestServer]:
        rooms = {"auto_join_rooms": [LOBBY, TEAROOM], "rc_registration": _MANY}
        return homeserver(database_settings, **{**rooms, **options})

    return start


async def rooms_of(user: Person) -> list[str]:
    return sorted((await user.get("/joined_rooms"))["joined_rooms"])


async def room(user: Person, alias: str = LOBBY) -> str:
    return str((await user.get(f"/directory/room/{alias.replace('#', '%23')}"))["room_id"])


@pytest_twisted.ensureDeferred
async def test_the_first_user_makes_the_rooms_and_all_are_in_them(starting: Starting) -> None:
    async with starting() as server:
        alice, bob = await person(server, "alice"), await person(server, "bob")
        rooms = sorted([await room(alice), await room(alice, TEAROOM)])
        assert await rooms_of(alice) == await rooms_of(bob) == rooms
        creation = await alice.get(f"/rooms/{rooms[0]}/state/m.room.create/?format=event")
        assert creation["sender"] == alice.id
        assert creation["content"].get("m.federate", True)
        assert (await bob.get(f"/rooms/{rooms[0]}/state/m.room.join_rules"))["join_rule"] == "public"


@pytest_twisted.ensureDeferred
async def test_many_at_once_are_in_one_room(starting: Starting) -> None:
    async with starting(autocreate_auto_join_rooms_federated=False) as server:
        people = await gatherResults([Deferred.fromCoroutine(person(server, f"user{n}")) for n in range(5)])
        assert len({tuple(await rooms_of(one)) for one in people}) == 1
        creation = await people[0].get(f"/rooms/{await room(people[0])}/state/m.room.create/")
        assert creation["m.federate"] is False


@pytest_twisted.ensureDeferred
async def test_rooms_that_are_not_there_keep_nobody_out(starting: Starting) -> None:
    async with starting(autocreate_auto_join_rooms=False) as server:
        alice = await person(server, "alice")
        assert await rooms_of(alice) == []
        lobby = await alice.room(room_alias_name="lobby")
        bob = await person(server, "bob")
        assert await rooms_of(bob) == [lobby]


@pytest_twisted.ensureDeferred
async def test_private_rooms_need_somebody_who_invites(starting: Starting) -> None:
    private = {"autocreate_auto_join_room_preset": "private_chat", "auto_join_mxid_localpart": "host"}
    async with starting(**private) as server:
        alice = await person(server, "alice")
        assert await rooms_of(alice) == [], "there is nobody yet who would make them"
        host, bob = await person(server, "host"), await person(server, "bob")
        assert await rooms_of(host) == await rooms_of(bob) != []
        lobby = await room(host)
        member = await host.get(f"/rooms/{lobby}/state/m.room.member/{bob.id}")
        assert member["membership"] == "join"
        assert (await host.get(f"/rooms/{lobby}/state/m.room.join_rules"))["join_rule"] == "invite"


@pytest_twisted.ensureDeferred
async def test_however_many_come_at_once_all_are_let_in(starting: Starting) -> None:
    few = {"per_second": 0.01, "burst_count": 1}
    limits = {"rc_invites": {"per_room": few, "per_user": few, "per_issuer": few}, "rc_joins": {"local": few}}
    private = {"autocreate_auto_join_room_preset": "private_chat", "auto_join_mxid_localpart": "host"}
    async with starting(**private, **limits, rc_room_creation=few) as server:
        rooms = await rooms_of(await person(server, "host"))
        assert len(rooms) == 2
        for number in range(3):
            assert await rooms_of(await person(server, f"user{number}")) == rooms


@pytest.mark.parametrize("joins", [True, False])
@pytest_twisted.ensureDeferred
async def test_guests_where_they_may(starting: Starting, joins: bool) -> None:
    async with starting(allow_guest_access=True, auto_join_rooms_for_guests=joins) as server:
        assert (await server.client.post(f"{V3}/register?kind=guest", {}))[0] == 200
        assert await server.hs.rooms.alias_store.get(LOBBY) is None, "a guest makes no rooms"
        alice = await person(server, "alice")
        await alice.put(f"/rooms/{await room(alice)}/state/m.room.guest_access", {"guest_access": "can_join"})
        _code, answer = await server.client.post(f"{V3}/register?kind=guest", {})
        guest = Person(server.client, answer["user_id"], answer["access_token"])
        members = (await alice.get(f"/rooms/{await room(alice)}/joined_members"))["joined"]
        assert (guest.id in members) is joins
        name, token = guest.id[1:].partition(":")[0], guest.token
        body = {"username": name, "guest_access_token": token, "auth": {"type": "m.login.dummy"}}
        code, answer = await server.client.post(f"{V3}/register", body)
        assert (code, answer["user_id"]) == (200, guest.id)
        upgraded = Person(server.client, guest.id, answer["access_token"])
        assert await room(upgraded) in await rooms_of(upgraded)


@pytest_twisted.ensureDeferred
async def test_a_restart_goes_on(starting: Starting) -> None:
    async with starting() as server:
        alice, bob = await person(server, "alice"), await person(server, "bob")
        await bob.post(f"/rooms/{await room(alice)}/leave")

        def unfinished(txn: Transaction) -> None:
            txn.execute("INSERT INTO arriving_users (user_id) VALUES (%s)", (bob.id,))

        def left(txn: Transaction) -> int:
            txn.execute("SELECT count(*) FROM arriving_users")
            return int(txn.one()[0])

        await server.hs.database.write("test", unfinished)
        await server.hs.rooms.auto_join.run()
        assert await rooms_of(bob) == await rooms_of(alice)
        assert await server.hs.database.read("test", left) == 0


@pytest_twisted.ensureDeferred
async def test_registering_with_a_worker(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "client_reader", auto_join_rooms=[LOBBY]) as hs:
        body = {"username": "alice", "auth": {"type": "m.login.dummy"}}
        code, answer = await hs.workers["client_reader"].client.post(f"{V3}/register", body)
        assert code == 200, answer
        alice = Person(hs.main.client, answer["user_id"], answer["access_token"])
        assert await rooms_of(alice) == [await room(alice)]
