"""Locking and suspending accounts, and from where they are used."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import pytest_twisted
from twisted.internet.task import deferLater

from synapse.handlers.user_ips import MAX_FRESH
from synapse.handlers.validations import PASSWORD_RESET
from synapse.http.request import Requester
from synapse.storage.database import Database
from synapse.storage.pool import PoolSettings
from synapse.storage.user_ips import Seen
from tests.rest.accounts import Server, error
from tests.rest.people import V3, Person, person
from tests.rest.test_threepid_proofs import proof, validated
from tests.support.homeserver import Cluster, TestServer, cluster
from tests.support.reactor import real_reactor

ADMIN = "/_matrix/client/v1/admin"


async def administrator(server: TestServer, name: str = "admin") -> Person:
    admin = await person(server, name)
    sql = "UPDATE users SET admin = true WHERE user_id = %s"
    await server.hs.database.write("test", lambda txn: txn.execute(sql, (admin.id,)))
    return admin


class Crowd(NamedTuple):
    """The same people, at the main process and at workers."""

    made: Cluster
    admin: Person
    alice: Person
    bob: Person

    def at(self, who: Person, worker: str) -> Person:
        return Person(self.made[worker].client, who.id, who.token)

    async def mark(self, who: Person, mark: str, value: bool = True) -> None:
        kind = {"suspended": "suspend", "locked": "lock"}[mark]
        path = f"{ADMIN}/{kind}/{who.id}"
        assert await self.admin.put(path, {mark: value}) == {mark: value}
        assert await self.admin.get(path) == {mark: value}
        await self.made.caught_up()


@pytest_twisted.async_yield_fixture
async def crowd(database_settings: PoolSettings) -> AsyncIterator[Crowd]:
    async with cluster(database_settings, "event_creator", "synchrotron") as made:
        alice, bob = [await person(made.main, name) for name in ("alice", "bob")]
        yield Crowd(made, await administrator(made.main), alice, bob)


@pytest_twisted.ensureDeferred
async def test_suspended_users_say_nothing_more_in_any_process(crowd: Crowd) -> None:
    admin, alice, bob = crowd.admin, crowd.alice, crowd.bob
    room, other = await alice.room(), await bob.room()
    await bob.join(room)
    hers, his = await alice.say(room, "hers"), await bob.say(room, "his")
    message = (f"/rooms/{room}/send/m.room.message", {"msgtype": "m.text", "body": "x"})
    worker = crowd.at(alice, "event_creator")
    await worker.put(f"{message[0]}/1", message[1])
    await crowd.mark(alice, "suspended")
    for method, path, body in (
        ("PUT", f"{message[0]}/2", message[1]),
        ("POST", f"/rooms/{other}/join", {}),
        ("POST", f"/join/{other}", {}),
        ("POST", f"/rooms/{room}/invite", {"user_id": admin.id}),
        ("POST", f"/rooms/{room}/kick", {"user_id": bob.id}),
        ("PUT", f"/rooms/{room}/state/m.room.topic", {"topic": "x"}),
        ("PUT", f"/profile/{alice.id}/displayname", {"displayname": "x"}),
    ):
        for process in (worker, alice):
            assert await process.refused(method, path, body) == (403, "M_USER_SUSPENDED"), path
    for path in ("/createRoom", f"/knock/{other}", f"/rooms/{room}/upgrade"):
        assert await alice.refused("POST", path, {"new_version": "11"}) == (403, "M_USER_SUSPENDED")
    # Redacting: what she said herself, however powerful she is.
    assert await alice.refused("PUT", f"/rooms/{room}/redact/{his}/1", {}) == (403, "M_USER_SUSPENDED")
    redaction = f"/rooms/{room}/send/m.room.redaction"
    assert await worker.refused("PUT", f"{redaction}/r1", {"redacts": his}) == (403, "M_USER_SUSPENDED")
    await worker.put(f"{redaction}/r2", {"redacts": hers})
    # Reading, leaving, logging in and out.
    assert room in (await crowd.at(alice, "synchrotron").get("/sync"))["rooms"]["join"]
    await alice.get(f"/rooms/{room}/messages?dir=b")
    await worker.post(f"/rooms/{room}/leave")
    await alice.put(f"/user/{alice.id}/account_data/x.y", {})
    await alice.post("/logout")
    await crowd.made.caught_up()
    assert await worker.refused("GET", "/account/whoami") in ((401, "M_UNKNOWN_TOKEN"), (404, "M_UNRECOGNIZED"))


@pytest_twisted.ensureDeferred
async def test_suspended_users_keep_their_keys_and_their_account(crowd: Crowd) -> None:
    """What servers should permit, as the specification lists it, besides what the test above does."""
    alice = crowd.alice
    device = (await alice.get("/account/whoami"))["device_id"]
    await crowd.mark(alice, "suspended")
    backup = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "abcdefg"}}
    version = (await alice.post("/room_keys/version", backup))["version"]
    await alice.put(f"/room_keys/keys?version={version}", {"rooms": {}})
    message = {"messages": {alice.id: {device: {"transaction_id": "x"}}}}
    await alice.put("/sendToDevice/m.key.verification.request/1", message)
    await alice.post("/keys/query", {"device_keys": {alice.id: []}})
    code, asked = await alice.ask("POST", "/keys/device_signing/upload", {})
    assert (code, asked.get("errcode")) != (403, "M_USER_SUSPENDED")
    tokens = {"client_secret": "secret", "email": "alice@example.org", "send_attempt": 1}
    for method, path, body in (
        ("POST", "/keys/signatures/upload", {}),
        ("POST", "/account/3pid/email/requestToken", tokens),
        ("DELETE", f"/devices/{device}", {}),
    ):
        assert (await alice.ask(method, path, body))[1].get("errcode") != "M_USER_SUSPENDED", path
    for path in ("delete", "unbind"):
        body = {"medium": "email", "address": "alice@example.org"}
        assert await alice.refused("POST", f"/account/3pid/{path}", body) == (403, "M_USER_SUSPENDED")
    auth = {"type": "m.login.password", "user": "alice", "password": "a password"}
    await alice.post("/account/deactivate", {"auth": auth})


@pytest_twisted.ensureDeferred
async def test_who_is_suspended_no_more_goes_on(crowd: Crowd) -> None:
    alice, worker = crowd.alice, crowd.at(crowd.alice, "event_creator")
    room = await alice.room()
    await crowd.mark(alice, "suspended")
    assert await worker.refused("PUT", f"/rooms/{room}/send/a.b/1", {}) == (403, "M_USER_SUSPENDED")
    await crowd.mark(alice, "suspended", False)
    await worker.put(f"/rooms/{room}/send/a.b/2", {})
    code, answer = await alice.client.put(
        f"/_synapse/admin/v1/suspend/{alice.id}", {"suspend": True}, crowd.admin.token
    )
    assert (code, answer) == (200, {"suspended": True})
    assert await alice.refused("PUT", f"/rooms/{room}/send/a.b/3", {}) == (403, "M_USER_SUSPENDED")


@pytest_twisted.ensureDeferred
async def test_locked_accounts_can_only_log_out(crowd: Crowd) -> None:
    alice = crowd.alice
    room = await alice.room()
    worker, reader = crowd.at(alice, "event_creator"), crowd.at(alice, "synchrotron")
    await reader.get("/sync")
    await crowd.mark(alice, "locked")
    for process, method, path in (
        (worker, "PUT", f"/rooms/{room}/send/a.b/1"),
        (reader, "GET", "/sync"),
        (alice, "GET", "/account/whoami"),
        (alice, "GET", f"/profile/{alice.id}"),
    ):
        code, answer = await process.ask(method, path, {} if method == "PUT" else None)
        assert (code, answer["errcode"], answer["soft_logout"]) == (401, "M_USER_LOCKED", True), path
    await crowd.mark(alice, "locked", False)
    await reader.get("/sync")
    await crowd.mark(alice, "locked")
    await alice.post("/logout/all")
    await crowd.made.caught_up()
    assert await reader.refused("GET", "/sync") == (401, "M_UNKNOWN_TOKEN")


@pytest_twisted.ensureDeferred
async def test_standing_costs_no_statement_when_warm(crowd: Crowd) -> None:
    alice, worker = crowd.alice, crowd.at(crowd.alice, "event_creator")
    room = await alice.room()
    await worker.put(f"/rooms/{room}/send/a.b/1", {})
    for mark in ("suspended", "locked"):
        await crowd.mark(alice, mark)
        await worker.ask("PUT", f"/rooms/{room}/send/a.b/2", {})
        with crowd.made["event_creator"].hs.database.counted() as counts:
            await worker.ask("PUT", f"/rooms/{room}/send/a.b/3", {})
        assert (counts.statements_read, counts.statements_written) == (0, 0), counts.sql


@pytest.mark.parametrize("kind", ["suspend", "lock"])
@pytest_twisted.ensureDeferred
async def test_who_may_moderate_whom(crowd: Crowd, kind: str) -> None:
    admin, alice, bob = crowd.admin, crowd.alice, crowd.bob
    await administrator(crowd.made.main, "other")
    body = {"suspended": True, "locked": True}
    await bob.post(
        "/account/deactivate", {"auth": {"type": "m.login.password", "user": bob.id, "password": "a password"}}
    )
    for user_id in (admin.id, "@nobody:test"):  # nothing is told of who exists
        assert await alice.refused("PUT", f"{ADMIN}/{kind}/{user_id}", body) == (403, "M_FORBIDDEN")
        assert await alice.refused("GET", f"{ADMIN}/{kind}/{user_id}") == (403, "M_FORBIDDEN")
    for user_id, expected in (
        ("@nobody:test", (404, "M_NOT_FOUND")),
        (bob.id, (404, "M_NOT_FOUND")),
        ("@alice:far", (400, "M_INVALID_PARAM")),
        ("alice", (400, "M_INVALID_PARAM")),
        ("@other:test", (403, "M_FORBIDDEN")),
    ):
        assert await admin.refused("PUT", f"{ADMIN}/{kind}/{user_id}", body) == expected
        assert await admin.refused("GET", f"{ADMIN}/{kind}/{user_id}") == expected
    assert await admin.refused("PUT", f"{ADMIN}/{kind}/{admin.id}", body) == (403, "M_FORBIDDEN")
    assert False in (await admin.get(f"{ADMIN}/{kind}/{admin.id}")).values()
    assert await admin.refused("PUT", f"{ADMIN}/{kind}/{alice.id}", {}) == (400, "M_MISSING_PARAM")
    capabilities = await admin.get("/capabilities")
    assert capabilities["capabilities"]["m.account_moderation"] == {"suspend": True, "lock": True}
    assert "m.account_moderation" not in (await alice.get("/capabilities"))["capabilities"]


# -- whois -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_whois_tells_all_connections_of_all_devices(crowd: Crowd) -> None:
    admin, alice = crowd.admin, crowd.alice
    sightings = crowd.made.main.hs.accounts.sightings
    now = crowd.made.main.hs.reactor.seconds() * 1000
    for ip, at in (("192.0.2.1", 5_000), ("192.0.2.1", 4_000), ("192.0.2.2", 6_000)):  # as workers hand them over
        sightings.add([Seen(alice.id, "PHONE", ip, "fox", at)])
    expected = [
        {"ip": "192.0.2.2", "last_seen": 6_000, "user_agent": "fox"},
        {"ip": "192.0.2.1", "last_seen": 5_000, "user_agent": "fox"},
    ]
    for who, path in (
        (admin, f"/admin/whois/{alice.id}"),
        (admin, f"/_synapse/admin/v1/whois/{alice.id}"),
        (alice, f"/admin/whois/{alice.id}"),
    ):
        answer = await who.get(path)
        assert answer["user_id"] == alice.id
        assert answer["devices"]["PHONE"] == {"sessions": [{"connections": expected}]}
    (now_used,) = (device for name, device in answer["devices"].items() if name != "PHONE")
    (connection,) = now_used["sessions"][0]["connections"]
    assert connection["ip"] == "127.0.0.1"
    assert connection["last_seen"] > now - 60_000
    assert await alice.refused("GET", f"/admin/whois/{admin.id}") == (403, "M_FORBIDDEN")
    assert await alice.refused("GET", f"/_synapse/admin/v1/whois/{alice.id}") == (403, "M_FORBIDDEN")
    assert await admin.refused("GET", "/admin/whois/@nobody:test") == (404, "M_NOT_FOUND")
    assert await admin.refused("GET", "/admin/whois/@alice:far") == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_whois_hears_of_workers(crowd: Crowd) -> None:
    alice = crowd.alice
    worker = crowd.made["synchrotron"]
    code, _ = await worker.client.get(f"{V3}/sync", alice.token)
    assert code == 200
    await worker.hs.accounts.sightings.flush()
    while not (await alice.get(f"/admin/whois/{alice.id}"))["devices"]:
        await deferLater(real_reactor(), 0.01)  # the main process hears of it in its own time
    waiting = crowd.made.main.hs.accounts.user_ip_store
    assert {seen.ip for seen in await waiting.of_user(alice.id)} == {"127.0.0.1"}


@pytest_twisted.ensureDeferred
async def test_sightings_are_forgotten_in_time(database: Database) -> None:
    server = Server(database, user_ips_max_age="2d")
    token = await server.register("alice")
    now = int(server.clock.seconds() * 1000)
    day = 24 * 3600 * 1000
    await server.accounts.user_ip_store.record([Seen("@alice:test", "OLD", "192.0.2.1", "x", now - 3 * day)])
    path = "/_matrix/client/v3/admin/whois/@alice:test"
    assert set((await server.call("GET", path, user=token)).json["devices"]) == {"OLD", "DEVICE"}
    await server.accounts._forget_old()
    assert set((await server.call("GET", path, user=token)).json["devices"]) == {"DEVICE"}
    assert error(await server.call("GET", "/_matrix/client/v3/admin/whois/@bob:test", user=token)) == (
        403,
        "M_FORBIDDEN",
    )


@pytest_twisted.ensureDeferred
async def test_who_is_locked_cannot_log_in_and_who_is_suspended_can(crowd: Crowd) -> None:
    alice = crowd.alice
    login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "a password"}
    await crowd.mark(alice, "locked")
    code, answer = await alice.ask("POST", "/login", login)
    assert (code, answer["errcode"], answer["soft_logout"]) == (401, "M_USER_LOCKED", True)
    await crowd.mark(alice, "locked", False)
    await crowd.mark(alice, "suspended")
    again = Person(alice.client, alice.id, (await alice.post("/login", login))["access_token"])
    assert await again.refused("POST", "/createRoom", {}) == (403, "M_USER_SUSPENDED")


@pytest.mark.parametrize("tracked", [False, True])
@pytest_twisted.ensureDeferred
async def test_what_application_services_do_is_noted_where_that_is_wanted(database: Database, tracked: bool) -> None:
    server = Server(database, track_appservice_user_ips=tracked)
    ghost = Requester("@ghost:test", "D", app_service="bridge")
    server.accounts.sightings.note(ghost, "192.0.2.1", "bridge/1.0")
    await server.accounts.sightings.flush()
    assert len(await server.accounts.user_ip_store.of_user("@ghost:test")) == tracked


@pytest_twisted.ensureDeferred
async def test_who_is_locked_can_neither_end_the_account_nor_get_a_new_password(database: Database) -> None:
    server = Server(database, email={"notif_from": "Synapse <noreply@test>"}, public_baseurl="https://test.example/")
    token = await server.register("alice")
    await server.accounts.contacts.store.add("@alice:test", "email", "alice@example.org", 1, 1)
    await server.conduct.moderation.mark(Requester("@admin:test", is_admin=True), "@alice:test", "locked", True)
    password = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}}
    for auth, expected in (
        (password | {"password": "wrong"}, "M_FORBIDDEN"),
        (password | {"password": "password"}, "M_USER_LOCKED"),
    ):
        reply = await server.call("POST", "/account/deactivate", {"auth": auth})
        assert (reply.code, reply.errcode) == (401, expected)
    sid = await validated(server, PASSWORD_RESET)
    body = {"new_password": "better", "auth": proof(sid)}
    reply = await server.call("POST", "/account/password", body)
    assert (reply.code, reply.errcode, reply.json["soft_logout"]) == (401, "M_USER_LOCKED", True)
    await server.conduct.moderation.mark(Requester("@admin:test", is_admin=True), "@alice:test", "locked", False)
    assert await server.is_logged_in(token)
    assert (await server.login("alice")).code == 200


@pytest_twisted.ensureDeferred
async def test_clients_that_call_themselves_anything_fill_no_tables(server: Server) -> None:
    sightings, alice = server.accounts.sightings, Requester("@alice:test", "D")
    for number in range(1000):
        sightings.note(alice, "192.0.2.1", f"agent {number}")
    for number in range(5):
        sightings.note(Requester("@bob:test", "D"), "192.0.2.1", "\x00" + "b" * 300 + str(number))
    await sightings.flush()
    store = server.accounts.user_ip_store
    assert len(await store.of_user("@alice:test")) == MAX_FRESH
    assert [seen.user_agent for seen in await store.of_user("@bob:test")] == ["b" * 300]
    server.clock.advance(121)
    await sightings.flush()
    sightings.note(alice, "192.0.2.1", "another")
    await sightings.flush()
    assert (await store.of_user("@alice:test"))[0].user_agent == "another"
