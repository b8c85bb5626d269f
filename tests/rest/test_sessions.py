"""Registering, logging in and out, and interactive authentication."""

from __future__ import annotations

import re
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.handlers.tokens import hash_token, is_plausible, make_token
from synapse.storage.access_tokens import AccessTokenStore, NewSession
from synapse.storage.database import Database, Transaction
from synapse.storage.user_ips import UserIpStore
from tests.rest.accounts import START, Server, error

DUMMY = {"type": "m.login.dummy"}
ALICE = "@alice:test"


# -- registering -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_registration_asks_for_proof_and_then_logs_in(server: Server) -> None:
    body = {"username": "alice", "password": "secret", "initial_device_display_name": "my phone"}
    first = await server.call("POST", "/register", body)
    assert first.code == 401
    assert first.json["flows"] == [{"stages": ["m.login.dummy"]}]
    assert "errcode" not in first.json
    auth = {**DUMMY, "session": first.json["session"]}
    done = await server.call("POST", "/register", {**body, "auth": auth})
    assert done.code == 200
    assert set(done.json) == {"user_id", "home_server", "access_token", "device_id"}
    assert done.json["user_id"] == ALICE
    assert re.fullmatch(r"syt_YWxpY2U_[A-Za-z]{20}_[0-9A-Za-z]{6}", done.json["access_token"])
    who = await server.call("GET", "/account/whoami", user=done.json["access_token"])
    assert who.json == {"user_id": ALICE, "device_id": done.json["device_id"], "is_guest": False}
    again = await server.call("POST", "/register", {"username": "bob", "auth": auth})
    assert error(again) == (403, "M_FORBIDDEN"), "a session is for one account"


@pytest_twisted.ensureDeferred
async def test_the_last_step_may_bring_the_authentication_alone(server: Server) -> None:
    first = await server.call("POST", "/register", {"username": "alice", "inhibit_login": True})
    auth = {**DUMMY, "session": first.json["session"]}
    done = await server.call("POST", "/register", {"auth": auth})
    assert done.json == {"user_id": ALICE, "home_server": "test"}


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ("dummy", (400, "M_BAD_JSON")),
        ([], (400, "M_BAD_JSON")),
        ({"response": "x"}, (400, "M_MISSING_PARAM")),
        ({"type": 5}, (400, "M_BAD_JSON")),
        ({"type": "m.login.password"}, (400, "M_UNKNOWN")),
        ({"type": "m.login.dummy", "session": 5}, (400, "M_BAD_JSON")),
        ({"type": "m.login.dummy", "session": "nope"}, (400, "M_UNKNOWN")),
        ({"type": "m.login.dummy", "session": "a\x00b"}, (400, "M_UNKNOWN")),
        ({"session": "nope"}, (400, "M_UNKNOWN")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_authentication(server: Server, auth: Any, expected: tuple[int, str]) -> None:
    reply = await server.call("POST", "/register", {"username": "alice", "auth": auth})
    assert (reply.code, reply.errcode) == expected


@pytest_twisted.ensureDeferred
async def test_an_empty_registration_makes_up_a_name(server: Server) -> None:
    reply = await server.call("POST", "/register", {"auth": DUMMY})
    assert re.fullmatch(r"@[a-z0-9]{10}:test", reply.json["user_id"])
    other = await server.call("POST", "/register", {"auth": DUMMY})
    assert other.json["user_id"] != reply.json["user_id"]


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"username": "al ice"}, "M_INVALID_USERNAME"),
        ({"username": "älice"}, "M_INVALID_USERNAME"),
        ({"username": ""}, "M_INVALID_USERNAME"),
        ({"username": "a" * 250}, "M_INVALID_USERNAME"),
        ({"username": "a\x00"}, "M_INVALID_USERNAME"),
        ({"username": "taken"}, "M_USER_IN_USE"),
        ({"username": "TAKEN"}, "M_USER_IN_USE"),
        ({"username": 5}, "M_BAD_JSON"),
        ({"username": ["x"]}, "M_BAD_JSON"),
        ({"password": 5}, "M_BAD_JSON"),
        ({"password": ""}, "M_WEAK_PASSWORD"),
        ({"password": "x" * 513}, "M_INVALID_PARAM"),
        ({"device_id": 5}, "M_BAD_JSON"),
        ({"device_id": ""}, "M_INVALID_PARAM"),
        ({"device_id": "x" * 256}, "M_INVALID_PARAM"),
        ({"device_id": "x\x00"}, "M_INVALID_PARAM"),
        ({"initial_device_display_name": "x" * 101}, "M_INVALID_PARAM"),
        ({"initial_device_display_name": {}}, "M_BAD_JSON"),
        ({"inhibit_login": "yes"}, "M_BAD_JSON"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_registrations_that_are_refused(server: Server, body: dict[str, Any], errcode: str) -> None:
    await server.register("taken")
    reply = await server.call("POST", "/register", {"username": "alice", **body, "auth": DUMMY})
    assert error(reply) == (400, errcode)
    if body.get("username") not in ("taken", "TAKEN"):
        assert (await server.call("GET", "/register/available", query={"username": "alice"})).code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"5", b'"x"', b"\xff", b'{"a":1,"a":2}'])
@pytest_twisted.ensureDeferred
async def test_bodies_that_are_no_object(server: Server, body: bytes) -> None:
    token = await server.register("alice")
    for path in ("/login", "/delete_devices"):
        reply = await server.call("POST", path, body, token)
        assert reply.code == 400
        assert reply.errcode in ("M_NOT_JSON", "M_BAD_JSON")


@pytest_twisted.ensureDeferred
async def test_two_cannot_have_one_name(server: Server) -> None:
    body = {"username": "alice", "auth": DUMMY}
    calls = [Deferred.fromCoroutine(server.call("POST", "/register", body)) for _ in range(5)]
    codes = sorted(reply.code for reply in await gatherResults(calls))
    assert codes == [200, 400, 400, 400, 400]


@pytest_twisted.ensureDeferred
async def test_registration_may_be_switched_off(database: Database) -> None:
    server = Server(database, enable_registration=False)
    for reply in (
        await server.call("POST", "/register", {"username": "alice", "auth": DUMMY}),
        await server.call("GET", "/register/available", query={"username": "alice"}),
    ):
        assert error(reply) == (403, "M_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_guests_only_where_they_are_allowed(server: Server, database: Database) -> None:
    guest = {"query": {"kind": "guest"}}
    assert error(await server.call("POST", "/register", {}, **guest)) == (403, "M_GUEST_ACCESS_FORBIDDEN")
    assert error(await server.call("POST", "/register", {}, query={"kind": "king"})) == (400, "M_INVALID_PARAM")
    open_server = Server(database, enable_registration=False, allow_guest_access=True)
    reply = await open_server.call("POST", "/register", {"username": "ignored", "password": 5}, **guest)
    who = await open_server.call("GET", "/account/whoami", user=reply.json["access_token"])
    assert who.json == {"user_id": reply.json["user_id"], "device_id": reply.json["device_id"], "is_guest": True}
    refused = await open_server.call("POST", "/delete_devices", {}, reply.json["access_token"])
    assert error(refused) == (403, "M_GUEST_ACCESS_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_whether_a_name_is_available(server: Server) -> None:
    await server.register("taken")
    for query, expected in (
        ({}, "M_MISSING_PARAM"),
        ({"username": "taken"}, "M_USER_IN_USE"),
        ({"username": "Not A Name"}, "M_INVALID_USERNAME"),
    ):
        assert error(await server.call("GET", "/register/available", query=query)) == (400, expected)
    assert (await server.call("GET", "/register/available", query={"username": "free"})).json == {"available": True}


# -- logging in --------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_who_may_log_in_by_which_name(server: Server) -> None:
    await server.register("alice")
    assert (await server.call("GET", "/login")).json == {"flows": [{"type": "m.login.password"}]}
    for name in ("alice", "Alice", ALICE, "@ALICE:test"):
        reply = await server.login(name)
        assert reply.code == 200, name
        assert reply.json["user_id"] == ALICE
        assert await server.is_logged_in(reply.json["access_token"])
    old = await server.call("POST", "/login", {"type": "m.login.password", "user": "alice", "password": "password"})
    assert old.code == 200


@pytest_twisted.ensureDeferred
async def test_wrong_user_and_wrong_password_look_the_same(server: Server) -> None:
    await server.register("alice")
    token = await server.register("nopassword")
    assert token
    replies = [
        await server.login("alice", "wrong"),
        await server.login("nobody", "password"),
        await server.login("@alice:elsewhere", "password"),
        await server.login("a\x00b", "password"),
        await server.login("x" * 1000, "password"),
        await server.login("alice", "x" * 10_000),
        await server.login("alice", ""),
    ]
    assert {reply.body for reply in replies} == {replies[0].body}
    assert error(replies[0]) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"type": 5}, "M_BAD_JSON"),
        ({"type": "m.login.token", "token": "x"}, "M_UNKNOWN"),
        ({"type": "m.login.password"}, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "identifier": 5}, "M_BAD_JSON"),
        ({"type": "m.login.password", "identifier": {}}, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "identifier": {"type": "m.id.dog"}}, "M_UNKNOWN"),
        ({"type": "m.login.password", "identifier": {"type": "m.id.user"}}, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "identifier": {"type": "m.id.user", "user": 5}}, "M_BAD_JSON"),
        ({"type": "m.login.password", "user": "alice"}, "M_MISSING_PARAM"),
        ({"type": "m.login.password", "user": "alice", "password": ["x"]}, "M_BAD_JSON"),
        ({"type": "m.login.password", "user": "alice", "password": "password", "device_id": 5}, "M_BAD_JSON"),
        ({"type": "m.login.password", "user": "alice", "password": "password", "device_id": ""}, "M_INVALID_PARAM"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_logins_that_are_not_understood(server: Server, body: dict[str, Any], errcode: str) -> None:
    await server.register("alice")
    assert error(await server.call("POST", "/login", body)) == (400, errcode)


@pytest_twisted.ensureDeferred
async def test_a_device_that_logs_in_again_keeps_one_session(server: Server) -> None:
    first = await server.register("alice", device="PHONE")
    assert await server.is_logged_in(first)
    second = (await server.login("alice", device_id="PHONE", initial_device_display_name="other")).json
    assert second["device_id"] == "PHONE"
    assert not await server.is_logged_in(first)
    third = (await server.login("alice")).json
    assert third["device_id"] != "PHONE"
    assert await server.is_logged_in(second["access_token"])
    devices = (await server.call("GET", "/devices", user=third["access_token"])).json["devices"]
    assert {device["device_id"] for device in devices} == {"PHONE", third["device_id"]}


@pytest_twisted.ensureDeferred
async def test_failed_attempts_are_limited_by_account(database: Database) -> None:
    server = Server(database, limited=True)
    await server.register("alice")
    for _ in range(5):
        assert error(await server.login("alice", "wrong")) == (403, "M_FORBIDDEN")
    limited = await server.login("alice", "password")
    assert error(limited) == (429, "M_LIMIT_EXCEEDED")
    assert limited.json["retry_after_ms"] > 0
    server.clock.advance(60)
    assert (await server.login("alice", "password")).code == 200


@pytest_twisted.ensureDeferred
async def test_deactivated_and_locked_accounts(server: Server, database: Database) -> None:
    token = await server.register("alice")

    def mark(txn: Transaction, column: str) -> None:
        txn.execute(f"UPDATE users SET {column} = true WHERE user_id = %s", (ALICE,))

    await database.write("test", mark, "locked")
    locked = await server.call("GET", "/account/whoami", user=token)
    assert error(locked) == (401, "M_USER_LOCKED")
    assert locked.json["soft_logout"] is True
    await database.write("test", mark, "deactivated")
    server.caches.invalidate("access_token", hash_token(token).hex())
    assert error(await server.call("GET", "/account/whoami", user=token)) == (401, "M_UNKNOWN_TOKEN")
    assert error(await server.login("alice")) == (403, "M_FORBIDDEN")


# -- tokens ------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_whoami_asks_the_database_nothing_when_warm(server: Server) -> None:
    token = await server.register("alice")
    assert await server.is_logged_in(token)
    with server.database.counted() as counts:
        for _ in range(3):
            assert await server.is_logged_in(token)
    assert (counts.statements_read, counts.statements_written) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_tokens_that_are_none(server: Server) -> None:
    token = await server.register("alice")
    assert error(await server.call("GET", "/account/whoami")) == (401, "M_MISSING_TOKEN")
    with server.database.counted() as counts:
        for bad in (
            "nonsense",
            "syt_x_y_z",
            token[:-1] + ("a" if token[-1] != "a" else "b"),
            token + "x",
            "syt_" * 500,
        ):
            reply = await server.call("GET", "/account/whoami", user=bad)
            assert error(reply) == (401, "M_UNKNOWN_TOKEN")
            assert reply.json["soft_logout"] is False
    assert counts.statements_read == 0
    unknown = await server.call("GET", "/account/whoami", user=make_token(ALICE))
    assert error(unknown) == (401, "M_UNKNOWN_TOKEN")


@pytest_twisted.ensureDeferred
async def test_a_token_may_be_in_the_query(server: Server) -> None:
    token = await server.register("alice")
    assert (await server.call("GET", "/account/whoami", query={"access_token": token})).code == 200


@pytest_twisted.ensureDeferred
async def test_an_expired_token_leaves_the_device(server: Server, database: Database) -> None:
    token = await server.register("alice")

    def expire(txn: Transaction) -> None:
        txn.execute("UPDATE access_tokens SET expires_ts = %s", ((START + 10) * 1000,))

    await database.write("test", expire)
    assert await server.is_logged_in(token)
    server.clock.advance(10)
    reply = await server.call("GET", "/account/whoami", user=token)
    assert error(reply) == (401, "M_UNKNOWN_TOKEN")
    assert reply.json["soft_logout"] is True


@pytest_twisted.ensureDeferred
async def test_logging_out_ends_the_session_and_its_device(server: Server) -> None:
    phone = await server.register("alice", device="PHONE")
    laptop = (await server.login("alice", device_id="LAPTOP")).json["access_token"]
    assert await server.is_logged_in(phone)
    assert (await server.call("POST", "/logout", user=phone)).json == {}
    reply = await server.call("GET", "/account/whoami", user=phone)
    assert error(reply) == (401, "M_UNKNOWN_TOKEN")
    assert reply.json["soft_logout"] is False
    assert ("access_token", hash_token(phone).hex()) in server.forgotten
    devices = (await server.call("GET", "/devices", user=laptop)).json["devices"]
    assert [device["device_id"] for device in devices] == ["LAPTOP"]


@pytest_twisted.ensureDeferred
async def test_logging_out_everywhere(server: Server) -> None:
    tokens = [await server.register("alice")]
    tokens += [(await server.login("alice")).json["access_token"] for _ in range(2)]
    bob = await server.register("bob")
    assert (await server.call("POST", "/logout/all", user=tokens[0])).json == {}
    assert [await server.is_logged_in(token) for token in tokens] == [False] * 3
    assert await server.is_logged_in(bob)


@pytest_twisted.ensureDeferred
async def test_a_session_without_a_device_logs_out_alone(server: Server, database: Database) -> None:
    phone = await server.register("alice")
    token = make_token(ALICE)
    await AccessTokenStore(database).login(NewSession(ALICE, hash_token(token), None, None, 1))
    assert (await server.call("GET", "/account/whoami", user=token)).json == {"user_id": ALICE, "is_guest": False}
    assert (await server.call("POST", "/logout", user=token)).code == 200
    assert not await server.is_logged_in(token)
    assert await server.is_logged_in(phone)


def test_tokens_are_recognised() -> None:
    tokens = {make_token("@älice_x:test") for _ in range(50)}
    assert len(tokens) == 50
    assert all(is_plausible(token) for token in tokens)
    assert not any(is_plausible(token.swapcase()) for token in tokens)
    assert not is_plausible("")


@pytest_twisted.ensureDeferred
async def test_sightings_are_gathered_and_written_in_batches(server: Server) -> None:
    token = await server.register("alice")
    store = UserIpStore(server.database)
    for _ in range(3):
        await server.call("GET", "/account/whoami", user=token, headers={"user-agent": "nio"})
    assert await store.of_user(ALICE) == []
    await server.accounts.sightings.flush()
    assert [seen[:4] for seen in await store.of_user(ALICE)] == [(ALICE, "DEVICE", "127.0.0.1", "nio")]
    with server.database.counted() as counts:
        await server.call("GET", "/account/whoami", user=token, headers={"user-agent": "nio"})
        await server.accounts.sightings.flush()
    assert counts.statements_written == 0, "not news within two minutes"
    device = (await server.call("GET", "/devices/DEVICE", user=token)).json
    assert device["last_seen_ip"] == "127.0.0.1"
    assert device["last_seen_ts"] == START * 1000
