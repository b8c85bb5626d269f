"""Changing one's password."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.storage.database import Database, Transaction
from tests.rest.accounts import Server, error

PATH = "/account/password"


def auth(secret: str = "password") -> dict[str, Any]:
    return {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": secret}


@pytest_twisted.ensureDeferred
async def test_the_new_password_counts_and_other_sessions_end(server: Server) -> None:
    token = await server.register("alice", device="PHONE")
    other = (await server.login("alice", device_id="LAPTOP")).json["access_token"]
    bob = await server.register("bob")
    first = await server.call("POST", PATH, {"new_password": "better"}, token)
    assert (first.code, first.json["flows"]) == (401, [{"stages": ["m.login.password"]}])
    proof = {**auth(), "session": first.json["session"]}
    other_password = await server.call("POST", PATH, {"new_password": "worse", "auth": proof}, token)
    assert error(other_password) == (403, "M_FORBIDDEN")
    done = await server.call("POST", PATH, {"auth": proof}, token)
    assert (done.code, done.json) == (200, {})
    assert await server.is_logged_in(token)
    assert await server.is_logged_in(bob)
    assert not await server.is_logged_in(other)
    assert [one["device_id"] for one in (await server.call("GET", "/devices", user=token)).json["devices"]] == ["PHONE"]
    assert error(await server.login("alice")) == (403, "M_FORBIDDEN")
    assert (await server.login("alice", "better")).code == 200


@pytest_twisted.ensureDeferred
async def test_other_sessions_may_stay(server: Server) -> None:
    token = await server.register("alice", device="PHONE")
    other = (await server.login("alice", device_id="LAPTOP")).json["access_token"]
    body = {"new_password": "better", "logout_devices": False, "auth": auth()}
    assert (await server.call("POST", PATH, body, token)).code == 200
    assert await server.is_logged_in(other)


@pytest_twisted.ensureDeferred
async def test_without_the_old_password_nothing_changes(server: Server) -> None:
    token = await server.register("alice")
    wrong = await server.call("POST", PATH, {"new_password": "better", "auth": auth("wrong")}, token)
    assert (wrong.code, wrong.errcode) == (401, "M_FORBIDDEN")
    assert (await server.login("alice")).code == 200


@pytest.mark.parametrize(
    ("body", "errcode"),
    [({}, "M_MISSING_PARAM"), ({"new_password": 5}, "M_BAD_JSON"), ({"new_password": ""}, "M_WEAK_PASSWORD")],
)
@pytest_twisted.ensureDeferred
async def test_passwords_that_are_none(server: Server, body: Any, errcode: str) -> None:
    token = await server.register("alice")
    assert error(await server.call("POST", PATH, body, token)) == (400, errcode)
    assert error(await server.call("POST", PATH, {**body, "auth": auth()}, token)) == (400, errcode)


@pytest_twisted.ensureDeferred
async def test_the_new_password_is_not_written_down(server: Server, database: Database) -> None:
    token = await server.register("alice")
    await server.call("POST", PATH, {"new_password": "much better"}, token)
    kept = await database.read("test", _sessions)
    assert len(kept) == 1
    assert "much better" not in kept[0][0]


@pytest_twisted.ensureDeferred
async def test_no_passwords_on_this_server(database: Database) -> None:
    server = Server(database, password_config={"enabled": False})
    token = await server.register("alice")
    assert error(await server.call("POST", PATH, {"new_password": "better"}, token)) == (403, "M_FORBIDDEN")
    found = (await server.call("GET", "/capabilities", user=token)).json["capabilities"]
    assert found["m.change_password"] == {"enabled": False}


def _sessions(txn: Transaction) -> list[tuple[str]]:
    txn.execute("SELECT s::text FROM ui_auth_sessions s")
    return [(text,) for (text,) in txn.rows()]
