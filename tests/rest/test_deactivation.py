"""Giving up an account: nobody gets in any more, every room is left, and what was written is erased if so wished."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted

from synapse.storage.deactivation import DeactivationStore
from synapse.storage.pool import PoolSettings
from tests.rest.people import PASSWORD, V3, Person, bodies, person
from tests.support.homeserver import Client, TestServer, cluster, homeserver

PATH = "/account/deactivate"


@pytest_twisted.async_yield_fixture
async def server(database_settings: PoolSettings) -> AsyncIterator[TestServer]:
    often = {"address": {"per_second": 100, "burst_count": 100}}
    async with homeserver(database_settings, rc_login=often) as hs:
        yield hs


def proof(user: Person, password: str = PASSWORD) -> dict[str, Any]:
    identifier = {"type": "m.id.user", "user": user.id}
    return {"type": "m.login.password", "identifier": identifier, "password": password}


async def deactivate(user: Person, **options: Any) -> None:
    answer = await user.post(PATH, {"auth": proof(user), **options})
    assert answer == {"id_server_unbind_result": "success"}


async def login(client: Client, user: Person, password: str = PASSWORD) -> tuple[int, str]:
    body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": user.id}, "password": password}
    code, answer = await client.post(f"{V3}/login", body)
    return code, answer.get("errcode", "")


async def until_gone(watcher: Person, user: Person, room: str) -> None:
    """Follows a room until a user has left it."""
    since = ""
    while (await watcher.get(f"/rooms/{room}/joined_members"))["joined"].keys() & {user.id}:
        since = f"&since={(await watcher.get(f'/sync?timeout=5000{since}'))['next_batch']}"


@pytest_twisted.ensureDeferred
async def test_nobody_gets_in_any_more(server: TestServer) -> None:
    alice, bob = await person(server, "alice"), await person(server, "bob")
    await alice.put(f"/user/{alice.id}/account_data/org.example", {"a": 1})
    code, asked = await alice.ask("POST", PATH, {"erase": False})
    assert (code, asked["flows"]) == (401, [{"stages": ["m.login.password"]}])
    code, wrong = await alice.ask("POST", PATH, {"auth": proof(alice, "wrong")})
    assert (code, wrong["errcode"], wrong["completed"]) == (401, "M_FORBIDDEN", [])
    await deactivate(alice)
    assert await alice.refused("GET", "/account/whoami") == (401, "M_UNKNOWN_TOKEN")
    for password in (PASSWORD, "wrong"):
        assert await login(server.client, alice, password) == (403, "M_FORBIDDEN")
    body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    code, answer = await server.client.post(f"{V3}/register", body)
    assert (code, answer["errcode"]) == (400, "M_USER_IN_USE")
    assert await bob.refused("GET", f"/profile/{alice.id}") == (404, "M_NOT_FOUND")
    found = await bob.post("/user_directory/search", {"search_term": "alice"})
    assert found["results"] == []
    for table in ("account_data", "devices", "access_tokens", "push_rules", "filters"):
        assert await rows(server, table, alice) == 0, table
    assert await rows(server, "profiles", alice) == 1


async def rows(server: TestServer, table: str, user: Person) -> int:
    def count(txn: Any) -> int:
        txn.execute(f"SELECT count(*) FROM {table} WHERE user_id = %s", (user.id,))
        return int(txn.one()[0])

    return await server.hs.database.read("test", count)


@pytest.mark.parametrize("body", [{"erase": "yes"}, {"erase": None}, {"id_server": 5}, {"auth": []}])
@pytest_twisted.ensureDeferred
async def test_nonsense_is_refused_before_anything_is_done(server: TestServer, body: dict[str, Any]) -> None:
    alice = await person(server, "alice")
    assert await alice.refused("POST", PATH, {"auth": proof(alice), **body}) == (400, "M_BAD_JSON")
    assert (await alice.get("/account/whoami"))["user_id"] == alice.id


@pytest_twisted.ensureDeferred
async def test_who_has_no_session_any_more_gives_the_password(server: TestServer) -> None:
    alice, bob = await person(server, "alice"), await person(server, "bob")
    code, asked = await server.client.post(f"{V3}{PATH}", {})
    assert (code, asked["flows"]) == (401, [{"stages": ["m.login.password"]}])
    for auth, expected in (
        (proof(alice, "wrong"), (401, "M_FORBIDDEN")),
        ({"type": "m.login.dummy"}, (400, "M_UNKNOWN")),
        ({"type": "m.login.password", "password": PASSWORD}, (400, "M_MISSING_PARAM")),
        ({**proof(alice), "session": "nonsense"}, (400, "M_UNKNOWN")),
    ):
        code, answer = await server.client.post(f"{V3}{PATH}", {"auth": auth})
        assert (code, answer["errcode"]) == expected, answer
    # Whoever is logged in gives up the own account, whatever password comes along.
    code, answer = await bob.ask("POST", PATH, {"auth": proof(alice)})
    assert (code, answer["errcode"]) == (403, "M_FORBIDDEN")
    code, answer = await server.client.post(f"{V3}{PATH}", {"auth": {**proof(alice), "session": asked["session"]}})
    assert (code, answer) == (200, {"id_server_unbind_result": "success"})
    assert await login(server.client, alice) == (403, "M_FORBIDDEN")
    assert (await login(server.client, bob))[0] == 200


@pytest_twisted.ensureDeferred
async def test_rooms_are_left_and_invitations_refused(server: TestServer) -> None:
    alice, bob = await person(server, "alice"), await person(server, "bob")
    rooms = [await bob.room() for _ in range(3)]
    for room in rooms:
        await alice.join(room)
    invited = await bob.room(invite=[alice.id])
    await deactivate(alice)
    for room in rooms:
        await until_gone(bob, alice, room)
    members = await bob.get(f"/rooms/{rooms[0]}/members?membership=leave")
    [left] = members["chunk"]
    assert (left["state_key"], left["sender"], left["content"]) == (alice.id, alice.id, {"membership": "leave"})
    await server.hs.rooms.departures.run()
    refused = await bob.get(f"/rooms/{invited}/state/m.room.member/{alice.id}")
    assert refused["membership"] == "leave"


@pytest_twisted.ensureDeferred
async def test_a_restart_goes_on_with_those_who_have_yet_to_leave(server: TestServer) -> None:
    alice, bob = await person(server, "alice"), await person(server, "bob")
    room = await bob.room()
    await alice.join(room)
    store = DeactivationStore(server.hs.database)
    await store.deactivate(alice.id, False, 1_000)  # and then the process died
    assert await store.departing() == [alice.id]
    await server.hs.rooms.departures.run()
    assert (await bob.get(f"/rooms/{room}/joined_members"))["joined"].keys() == {bob.id}
    assert await store.departing() == []


@pytest_twisted.ensureDeferred
async def test_erasure(server: TestServer) -> None:
    alice, bob, carol = [await person(server, name) for name in ("alice", "bob", "carol")]
    room = await alice.room()
    await bob.join(room)
    await alice.say(room, "secret")
    await carol.join(room)
    for reader in (bob, carol):
        assert "secret" in bodies((await reader.get(f"/rooms/{room}/messages?dir=b&limit=50"))["chunk"])
    await deactivate(alice, erase=True)
    await until_gone(bob, alice, room)

    async def seen(reader: Person) -> list[Any]:
        synced = (await reader.get("/sync"))["rooms"]["join"][room]["timeline"]["events"]
        paged = (await reader.get(f"/rooms/{room}/messages?dir=b&limit=50"))["chunk"]
        return [e["content"].get("body") for e in (*synced, *paged) if e["type"] == "m.room.message"]

    assert await seen(bob) == ["secret", "secret"]
    assert await seen(carol) == [None, None]
    assert await rows(server, "profiles", alice) == 0
    assert await rows(server, "user_ips", alice) == 0


@pytest_twisted.ensureDeferred
async def test_administrators_end_accounts_too(server: TestServer) -> None:
    alice, bob, admin = [await person(server, name) for name in ("alice", "bob", "admin")]
    room = await bob.room()
    await alice.join(room)
    path = f"/_synapse/admin/v1/deactivate/{alice.id}"
    assert await bob.refused("POST", path, {}) == (403, "M_FORBIDDEN")
    await server.hs.database.write(
        "test", lambda txn: txn.execute("UPDATE users SET admin = true WHERE user_id = %s", (admin.id,))
    )
    await server.hs.invalidate("access_token", [None])
    for user_id, code, errcode in (
        ("@nobody:test", 404, "M_NOT_FOUND"),
        ("@alice:far", 404, "M_NOT_FOUND"),
        ("alice", 400, "M_INVALID_PARAM"),
        (admin.id, 403, "M_FORBIDDEN"),
    ):
        assert await admin.refused("POST", f"/_synapse/admin/v1/deactivate/{user_id}", {}) == (code, errcode)
    assert await admin.refused("POST", path, {"erase": "yes"}) == (400, "M_BAD_JSON")
    assert await admin.post(path) == {"id_server_unbind_result": "success"}
    assert await alice.refused("GET", "/account/whoami") == (401, "M_UNKNOWN_TOKEN")
    await until_gone(bob, alice, room)
    assert await rows(server, "profiles", alice) == 1
    assert await admin.post(path, {"erase": True}) == {"id_server_unbind_result": "success"}
    assert await rows(server, "profiles", alice) == 0


@pytest_twisted.ensureDeferred
async def test_workers_let_nobody_in_either(database_settings: PoolSettings) -> None:
    async with cluster(database_settings, "synchrotron", "client_reader") as hs:
        alice = Person(hs.main.client, "@alice:test", await hs.main.client.register("alice", PASSWORD))
        assert (await hs["synchrotron"].client.get(f"{V3}/sync", alice.token))[0] == 200
        await deactivate(alice)
        await hs.caught_up()
        code, answer = await hs["synchrotron"].client.get(f"{V3}/sync", alice.token)
        assert (code, answer["errcode"]) == (401, "M_UNKNOWN_TOKEN")
        assert await login(hs["client_reader"].client, alice) == (403, "M_FORBIDDEN")
