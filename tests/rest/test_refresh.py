"""Access tokens that expire, and refresh tokens that are exchanged for new ones."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.storage.database import Database, Transaction
from tests.rest.accounts import Server, error
from tests.rest.driver import Reply

REFRESHING = {"refresh_token": True}
MINUTE = 60


async def refresh(server: Server, token: str) -> Reply:
    return await server.call("POST", "/refresh", {"refresh_token": token})


async def login(server: Server, **kw: Any) -> dict[str, Any]:
    """A session with a refresh token."""
    reply = await server.login("alice", device_id="PHONE", **{**REFRESHING, **kw})
    assert reply.code == 200, reply
    return dict(reply.json)


async def rejected(server: Server, token: str) -> bool:
    """Whether the server refuses the access token, and whether it says that the session lives on."""
    reply = await server.call("GET", "/account/whoami", user=token)
    assert error(reply) == (401, "M_UNKNOWN_TOKEN")
    return bool(reply.json["soft_logout"])


@pytest_twisted.ensureDeferred
async def test_only_who_asks_for_it_gets_a_refresh_token(server: Server) -> None:
    await server.register("alice")
    plain = (await server.login("alice")).json
    assert "refresh_token" not in plain
    assert "expires_in_ms" not in plain
    got = await login(server)
    assert got["refresh_token"].startswith("syr_YWxpY2U_")
    assert got["expires_in_ms"] == 5 * MINUTE * 1000
    body = {"username": "bob", "password": "password", "auth": {"type": "m.login.dummy"}, **REFRESHING}
    bob = (await server.call("POST", "/register", body)).json
    assert bob["expires_in_ms"] == 5 * MINUTE * 1000
    assert (await refresh(server, bob["refresh_token"])).code == 200


@pytest_twisted.ensureDeferred
async def test_tokens_of_before_are_good_until_the_new_access_token_is_used(server: Server) -> None:
    await server.register("alice")
    first = await login(server)
    second = (await refresh(server, first["refresh_token"])).json
    assert set(second) == {"access_token", "refresh_token", "expires_in_ms"}
    assert await server.is_logged_in(first["access_token"])
    assert await server.is_logged_in(second["access_token"])
    assert await rejected(server, first["access_token"]), "the session goes on"
    late = await refresh(server, first["refresh_token"])
    assert error(late) == (401, "M_UNKNOWN_TOKEN")
    assert late.json["soft_logout"] is True
    assert await server.is_logged_in(second["access_token"])


@pytest_twisted.ensureDeferred
async def test_an_answer_that_was_lost_can_be_had_again(server: Server) -> None:
    await server.register("alice")
    first = await login(server)
    lost = (await refresh(server, first["refresh_token"])).json
    again = (await refresh(server, first["refresh_token"])).json
    assert not await rejected(server, lost["access_token"])
    assert (await refresh(server, lost["refresh_token"])).json["soft_logout"] is False
    assert await server.is_logged_in(again["access_token"])


@pytest_twisted.ensureDeferred
async def test_using_the_new_refresh_token_ends_the_old_ones(server: Server) -> None:
    await server.register("alice")
    first = await login(server)
    second = (await refresh(server, first["refresh_token"])).json
    third = (await refresh(server, second["refresh_token"])).json
    assert error(await refresh(server, first["refresh_token"])) == (401, "M_UNKNOWN_TOKEN")
    assert await rejected(server, first["access_token"])
    assert await server.is_logged_in(second["access_token"])
    assert await server.is_logged_in(third["access_token"])
    assert not await rejected(server, first["access_token"]), "what is two steps back is forgotten"


@pytest_twisted.ensureDeferred
async def test_a_session_leaves_few_rows_however_often_it_is_refreshed(server: Server, database: Database) -> None:
    await server.register("alice")
    tokens = await login(server)
    for _ in range(6):
        tokens = (await refresh(server, tokens["refresh_token"])).json
        assert await server.is_logged_in(tokens["access_token"])

    def count(txn: Transaction) -> tuple[Any, ...]:
        txn.execute(
            "SELECT (SELECT count(*) FROM refresh_tokens),"
            " (SELECT count(*) FROM access_tokens WHERE device_id = 'PHONE')"
        )
        return txn.one()

    assert await database.read("test", count) == (2, 2)


@pytest_twisted.ensureDeferred
async def test_two_exchanges_at_once_leave_one_session(server: Server) -> None:
    await server.register("alice")
    first = await login(server)
    both = [Deferred.fromCoroutine(refresh(server, first["refresh_token"])) for _ in range(2)]
    replies = await gatherResults(both)
    assert [reply.code for reply in replies] == [200, 200]
    known = [(await server.call("GET", "/devices", user=reply.json["access_token"])).code for reply in replies]
    assert sorted(known) == [200, 401]


@pytest_twisted.ensureDeferred
async def test_an_access_token_expires_and_the_session_does_not(server: Server) -> None:
    await server.register("alice")
    first = await login(server)
    server.clock.advance(5 * MINUTE - 1)
    assert await server.is_logged_in(first["access_token"])
    server.clock.advance(1)
    assert await rejected(server, first["access_token"])
    second = (await refresh(server, first["refresh_token"])).json
    assert await server.is_logged_in(second["access_token"])


@pytest_twisted.ensureDeferred
async def test_a_refresh_token_expires_where_it_is_told_to(database: Database) -> None:
    server = Server(database, refresh_token_lifetime="1h")
    await server.register("alice")
    first = await login(server)
    server.clock.advance(50 * MINUTE)
    second = (await refresh(server, first["refresh_token"])).json
    server.clock.advance(50 * MINUTE)
    third = (await refresh(server, second["refresh_token"])).json
    server.clock.advance(60 * MINUTE)
    late = await refresh(server, third["refresh_token"])
    assert error(late) == (401, "M_UNKNOWN_TOKEN")
    assert late.json["soft_logout"] is True


@pytest_twisted.ensureDeferred
async def test_a_session_ends_however_it_is_refreshed(database: Database) -> None:
    server = Server(database, session_lifetime="1h", refreshable_access_token_lifetime="40m")
    await server.register("alice")
    first = await login(server)
    assert first["expires_in_ms"] == 40 * MINUTE * 1000
    server.clock.advance(30 * MINUTE)
    second = (await refresh(server, first["refresh_token"])).json
    assert second["expires_in_ms"] == 30 * MINUTE * 1000
    server.clock.advance(30 * MINUTE)
    assert await rejected(server, second["access_token"])
    assert (await refresh(server, second["refresh_token"])).json["soft_logout"] is True
    assert (await login(server))["device_id"] == "PHONE"


@pytest_twisted.ensureDeferred
async def test_tokens_without_refreshing_expire_where_they_are_told_to(database: Database) -> None:
    server = Server(database, nonrefreshable_access_token_lifetime="1d", session_lifetime="2d", allow_guest_access=True)
    await server.register("alice")
    plain = (await server.login("alice", device_id="PHONE")).json
    assert plain["expires_in_ms"] == 24 * 60 * MINUTE * 1000
    guest = (await server.call("POST", "/register", {}, query={"kind": "guest"})).json
    server.clock.advance(24 * 60 * MINUTE)
    assert await rejected(server, plain["access_token"])
    again = (await server.login("alice", device_id="PHONE")).json
    assert again["device_id"] == "PHONE"
    assert not await rejected(server, plain["access_token"]), "replaced by the new login"
    server.clock.advance(1000 * 24 * 60 * MINUTE)
    assert await server.is_logged_in(guest["access_token"]), "a guest could not log in again"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/logout", None),
        ("POST", "/logout/all", None),
        ("POST", "/login", {"type": "m.login.password", "user": "alice", "password": "password", "device_id": "PHONE"}),
        (
            "POST",
            "/account/deactivate",
            {"auth": {"type": "m.login.password", "user": "alice", "password": "password"}},
        ),
    ],
)
@pytest_twisted.ensureDeferred
async def test_whatever_ends_the_session_ends_its_refresh_token(
    server: Server, database: Database, method: str, path: str, body: Any
) -> None:
    await server.register("alice")
    first = await login(server)
    assert (await server.call(method, path, body, first["access_token"])).code == 200
    late = await refresh(server, first["refresh_token"])
    assert error(late) == (401, "M_UNKNOWN_TOKEN")
    assert late.json["soft_logout"] is False

    def count(txn: Transaction) -> Any:
        txn.execute("SELECT count(*) FROM refresh_tokens")
        return txn.one()[0]

    assert await database.read("test", count) == 0


@pytest_twisted.ensureDeferred
async def test_locked_users_neither_refresh_nor_log_in(server: Server, database: Database) -> None:
    await server.register("alice")
    first = await login(server)

    def lock(txn: Transaction, locked: bool) -> None:
        txn.execute("UPDATE users SET locked = %s", (locked,))

    await database.write("test", lock, True)
    for reply in (await refresh(server, first["refresh_token"]), await server.login("alice")):
        assert error(reply) == (401, "M_USER_LOCKED")
        assert reply.json["soft_logout"] is True
    await database.write("test", lock, False)
    assert (await refresh(server, first["refresh_token"])).code == 200


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"refresh_token": 5}, (400, "M_BAD_JSON")),
        ({"refresh_token": ""}, (401, "M_UNKNOWN_TOKEN")),
        ({"refresh_token": "syr_YWxpY2U_abcdefghijklmnopqrst_000000"}, (401, "M_UNKNOWN_TOKEN")),
        ({"refresh_token": "a" * 4000}, (401, "M_UNKNOWN_TOKEN")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_no_refresh_token(server: Server, body: Any, expected: tuple[int, str]) -> None:
    assert error(await server.call("POST", "/refresh", body)) == expected
