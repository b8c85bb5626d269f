"""Devices: listing, naming, and taking them away with the password."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.storage.database import Database
from tests.rest.accounts import Server, error

ALICE, BOB = "@alice:test", "@bob:test"


def password(user: str = ALICE, secret: str = "password") -> dict[str, Any]:
    return {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": user}, "password": secret}


@pytest_twisted.ensureDeferred
async def test_a_device_is_shown_and_named(server: Server) -> None:
    token = await server.register("alice", device="PHONE")
    bob = await server.register("bob")
    assert (await server.call("GET", "/devices", user=token)).json == {"devices": [{"device_id": "PHONE"}]}
    assert (await server.call("PUT", "/devices/PHONE", {"display_name": "mine"}, token)).json == {}
    shown = {"device_id": "PHONE", "display_name": "mine"}
    assert (await server.call("GET", "/devices/PHONE", user=token)).json == shown
    assert (await server.call("PUT", "/devices/PHONE", {}, token)).code == 200
    assert (await server.call("GET", "/devices/PHONE", user=token)).json == shown
    assert server.streams["device_lists"].told == [ALICE]
    for method, body in (("GET", None), ("PUT", {"display_name": "x"})):
        assert error(await server.call(method, "/devices/PHONE", body, bob)) == (404, "M_NOT_FOUND")
        assert error(await server.call(method, "/devices/" + "x" * 300, body, token)) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "errcode"),
    [({"display_name": 5}, "M_BAD_JSON"), ({"display_name": "x" * 101}, "M_INVALID_PARAM"), ([], "M_BAD_JSON")],
)
@pytest_twisted.ensureDeferred
async def test_names_that_no_device_can_have(server: Server, body: Any, errcode: str) -> None:
    token = await server.register("alice", device="PHONE")
    assert error(await server.call("PUT", "/devices/PHONE", body, token)) == (400, errcode)


@pytest_twisted.ensureDeferred
async def test_a_device_goes_with_the_password_only(server: Server) -> None:
    phone = await server.register("alice", device="PHONE")
    laptop = (await server.login("alice", device_id="LAPTOP")).json["access_token"]
    first = await server.call("DELETE", "/devices/LAPTOP", user=phone)
    assert first.code == 401
    assert first.json["flows"] == [{"stages": ["m.login.password"]}]
    session = first.json["session"]
    wrong = await server.call(
        "DELETE", "/devices/LAPTOP", {"auth": {**password(secret="no"), "session": session}}, phone
    )
    assert (wrong.code, wrong.errcode) == (401, "M_FORBIDDEN")
    assert wrong.json["session"] == session
    other = await server.call("DELETE", "/devices/PHONE", {"auth": {**password(), "session": session}}, phone)
    assert error(other) == (403, "M_FORBIDDEN")
    assert await server.is_logged_in(laptop)
    done = await server.call("DELETE", "/devices/LAPTOP", {"auth": {**password(), "session": session}}, phone)
    assert (done.code, done.json) == (200, {})
    assert not await server.is_logged_in(laptop)
    assert await server.is_logged_in(phone)


@pytest_twisted.ensureDeferred
async def test_nobody_elses_password_counts(server: Server) -> None:
    token = await server.register("alice", device="PHONE")
    await server.register("bob")
    reply = await server.call("DELETE", "/devices/PHONE", {"auth": password(BOB)}, token)
    assert error(reply) == (403, "M_FORBIDDEN")
    assert await server.is_logged_in(token)


@pytest_twisted.ensureDeferred
async def test_several_devices_at_once(server: Server) -> None:
    tokens = [await server.register("alice", device="D0")]
    tokens += [(await server.login("alice", device_id=f"D{n}")).json["access_token"] for n in (1, 2)]
    body = {"devices": ["D1", "D2", "D9", "x\x00", "x" * 999], "auth": password()}
    assert (await server.call("POST", "/delete_devices", body, tokens[0])).json == {}
    assert [await server.is_logged_in(token) for token in tokens] == [True, False, False]
    for bad in ({}, {"devices": "D1"}, {"devices": [5]}):
        reply = await server.call("POST", "/delete_devices", {**bad, "auth": password()}, tokens[0])
        assert error(reply)[0] == 400


@pytest_twisted.ensureDeferred
async def test_the_session_remembers_which_devices_were_to_be_deleted(server: Server) -> None:
    token = await server.register("alice", device="FIRST")
    other = (await server.login("alice", device_id="SECOND")).json["access_token"]
    session = (await server.call("POST", "/delete_devices", {"devices": ["SECOND"]}, token)).json["session"]
    proof = {"auth": {**password(), "session": session}}
    assert (await server.call("POST", "/delete_devices", proof, token)).json == {}
    assert not await server.is_logged_in(other)


@pytest_twisted.ensureDeferred
async def test_a_new_device_is_told_of_and_the_login_stands_where_nobody_can_be(server: Server) -> None:
    await server.register("alice", device="FIRST")
    assert server.streams["device_lists"].told == [], "who is new shares no rooms"
    assert (await server.login("alice", device_id="FIRST")).code == 200
    assert server.streams["device_lists"].told == [], "there is nothing new to see"
    assert (await server.login("alice", device_id="SECOND")).code == 200
    assert server.streams["device_lists"].told == [ALICE]

    async def fail(*_: object) -> None:
        raise RuntimeError("the main process is away")

    server.accounts.device_changes.devices_changed = fail  # type: ignore[method-assign]
    assert (await server.login("alice", device_id="THIRD")).code == 200


@pytest_twisted.ensureDeferred
async def test_who_takes_the_id_of_a_deleted_device_has_nothing_of_it(server: Server) -> None:
    token = await server.register("alice", device="PHONE")
    await server.call("POST", "/keys/upload", {"one_time_keys": {"x:1": "key"}}, token)
    server.forgotten.clear()
    await server.accounts.devices.delete(ALICE, ["PHONE"])
    assert ("keys_left", f"{ALICE} PHONE") in server.forgotten
    again = (await server.login("alice", device_id="PHONE")).json["access_token"]
    assert (await server.call("POST", "/keys/upload", {}, again)).json == {"one_time_key_counts": {}}


@pytest.mark.parametrize("ends_by", ["login", "logout"])
@pytest_twisted.ensureDeferred
async def test_what_was_proven_in_a_session_ends_with_it(database: Database, ends_by: str) -> None:
    server = Server(database, ui_auth={"session_timeout": "1h"})
    token = await server.register("alice", device="PHONE")
    auth = {"type": "m.login.password", "user": "alice", "password": "password"}
    assert (await server.call("POST", "/delete_devices", {"devices": [], "auth": auth}, token)).code == 200
    assert (await server.call("POST", "/delete_devices", {"devices": []}, token)).code == 200
    if ends_by == "logout":
        assert (await server.call("POST", "/logout", {}, token)).code == 200
    token = (await server.login("alice", device_id="PHONE")).json["access_token"]
    assert (await server.call("POST", "/delete_devices", {"devices": []}, token)).code == 401
