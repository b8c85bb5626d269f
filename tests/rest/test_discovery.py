"""The user directory, capabilities, TURN servers, identifiers, and registration with the shared secret."""

from __future__ import annotations

import base64
import hmac
from typing import Any

import pytest
import pytest_twisted

from synapse.api.room_versions import ROOM_VERSIONS
from synapse.rest.client.versions import Versions
from synapse.storage.database import Database
from tests.rest.accounts import SECRET, START, Server, error
from tests.rest.driver import Driver

SEARCH = "/user_directory/search"
REGISTER = "/_synapse/admin/v1/register"


@pytest_twisted.ensureDeferred
async def test_versions() -> None:
    told = (await Driver(Versions()).call("GET", "/_matrix/client/versions")).json
    assert {"r0.6.1", "v1.1", "v1.19"} <= set(told["versions"])
    assert told["unstable_features"] == {
        "org.matrix.msc3391": True,
        "org.matrix.msc3814": True,
        "org.matrix.msc4222": True,
        "uk.half-shot.msc2666.query_mutual_rooms": True,
    }


@pytest_twisted.ensureDeferred
async def test_users_are_found(server: Server) -> None:
    token = await server.register("alice")
    for name in ("bob1", "bob2", "bob3"):
        await server.register(name)
    found = (await server.call("POST", SEARCH, {"search_term": "ALI"}, token)).json
    assert found == {"results": [{"user_id": "@alice:test", "display_name": "alice"}], "limited": False}
    for limit, limited in ((0, True), (2, True), (3, False), (1000, False)):
        found = (await server.call("POST", SEARCH, {"search_term": "bob", "limit": limit}, token)).json
        assert (len(found["results"]), found["limited"]) == (min(limit, 3), limited)


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"search_term": 5}, "M_BAD_JSON"),
        ({"search_term": "x", "limit": "y"}, "M_BAD_JSON"),
        ({"search_term": "x", "limit": 1.5}, "M_BAD_JSON"),
        ({"search_term": "x", "limit": -1}, "M_INVALID_PARAM"),
        ({"search_term": "x" * 513}, "M_INVALID_PARAM"),
        ({"search_term": "\x00"}, "M_BAD_JSON"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_searches_that_are_refused(server: Server, body: dict[str, Any], errcode: str) -> None:
    token = await server.register("alice")
    assert error(await server.call("POST", SEARCH, body, token)) == (400, errcode)


@pytest_twisted.ensureDeferred
async def test_the_directory_follows_its_settings(database: Database) -> None:
    server = Server(database, user_directory={})
    token = await server.register("alice")
    await server.register("bob")
    assert (await server.call("POST", SEARCH, {"search_term": "bob"}, token)).json["results"] == []


@pytest_twisted.ensureDeferred
async def test_the_directory_may_be_off(database: Database) -> None:
    server = Server(database, user_directory={"enabled": False})
    token = await server.register("alice")
    assert error(await server.call("POST", SEARCH, {"search_term": "x"}, token)) == (403, "M_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_capabilities(server: Server) -> None:
    token = await server.register("alice")
    found = (await server.call("GET", "/capabilities", user=token)).json["capabilities"]
    assert found["m.room_versions"]["default"] == "12"
    assert set(found["m.room_versions"]["available"]) == set(ROOM_VERSIONS)
    assert found["m.change_password"] == {"enabled": True}
    assert found["m.profile_fields"] == {"enabled": True}
    assert error(await server.call("GET", "/capabilities")) == (401, "M_MISSING_TOKEN")


@pytest_twisted.ensureDeferred
async def test_third_party_identifiers(server: Server) -> None:
    token = await server.register("alice")
    assert (await server.call("GET", "/account/3pid", user=token)).json == {"threepids": []}


@pytest_twisted.ensureDeferred
async def test_turn_servers(database: Database) -> None:
    shared = {"turn_uris": ["turn:a"], "turn_shared_secret": "s", "turn_user_lifetime": "1m"}
    server = Server(database, **shared)
    token = await server.register("alice")
    found = (await server.call("GET", "/voip/turnServer", user=token)).json
    username = f"{START + 60}:@alice:test"
    password = base64.b64encode(hmac.digest(b"s", username.encode(), "sha1")).decode()
    assert found == {"username": username, "password": password, "uris": ["turn:a"], "ttl": 60}
    fixed = Server(database, turn_uris=["turn:a"], turn_username="u", turn_password="p")
    found = (await fixed.call("GET", "/voip/turnServer", user=token)).json
    assert (found["username"], found["password"]) == ("u", "p")
    assert (await Server(database).call("GET", "/voip/turnServer", user=token)).json == {}


@pytest_twisted.ensureDeferred
async def test_turn_servers_for_guests(database: Database) -> None:
    for allowed in (True, False):
        server = Server(database, allow_guest_access=True, turn_allow_guests=allowed)
        guest = (await server.call("POST", "/register", {}, query={"kind": "guest"})).json["access_token"]
        reply = await server.call("GET", "/voip/turnServer", user=guest)
        assert reply.code == (200 if allowed else 403)


# -- the shared secret -------------------------------------------------------------------------------------------------


async def nonce(server: Server) -> str:
    return str((await server.call("GET", REGISTER)).json["nonce"])


def signed(nonce: str, user_type: str | None = None, **values: Any) -> dict[str, Any]:
    body = {"nonce": nonce, "username": "root", "password": "secret", "admin": True, **values}
    parts = [nonce, body["username"], body["password"], "admin" if body["admin"] else "notadmin"]
    if user_type is not None:
        parts.append(user_type)
        body["user_type"] = user_type
    mac = hmac.new(SECRET.encode(), "\x00".join(map(str, parts)).encode(), "sha1").hexdigest()
    return {**body, "mac": mac}


@pytest.mark.parametrize("user_type", [None, "bot"])
@pytest_twisted.ensureDeferred
async def test_who_knows_the_secret_registers(database: Database, user_type: str | None) -> None:
    server = Server(database, enable_registration=False)
    body = signed(await nonce(server), user_type, displayname="The Root")
    done = await server.call("POST", REGISTER, body)
    assert done.code == 200, done
    assert await server.is_logged_in(done.json["access_token"])
    assert (await server.call("GET", "/profile/@root:test")).json == {"displayname": "The Root"}
    assert (await server.login("root", "secret")).code == 200
    assert error(await server.call("POST", REGISTER, body)) == (400, "M_UNKNOWN"), "a nonce serves once"
    taken = signed(await nonce(server), admin=False)
    assert error(await server.call("POST", REGISTER, taken)) == (400, "M_USER_IN_USE")


@pytest_twisted.ensureDeferred
async def test_proofs_that_do_not_hold(server: Server) -> None:
    for change in ({"username": "other"}, {"password": "other"}, {"admin": False}, {"mac": "00"}, {"mac": "ä"}):
        body = {**signed(await nonce(server)), **change}
        assert error(await server.call("POST", REGISTER, body)) == (403, "M_FORBIDDEN")
    late = signed(await nonce(server))
    server.clock.advance(61)
    assert error(await server.call("POST", REGISTER, late)) == (400, "M_UNKNOWN")
    assert error(await server.call("POST", REGISTER, signed("made up"))) == (400, "M_UNKNOWN")
    for name in ("nonce", "username", "password", "mac"):
        body = {key: value for key, value in signed("x").items() if key != name}
        assert error(await server.call("POST", REGISTER, body)) == (400, "M_MISSING_PARAM")
        assert error(await server.call("POST", REGISTER, {**body, name: 5})) == (400, "M_BAD_JSON")
    long = signed(await nonce(server), displayname="x" * 257)
    assert error(await server.call("POST", REGISTER, long)) == (400, "M_INVALID_PARAM")
    odd = signed(await nonce(server), "emperor")
    assert error(await server.call("POST", REGISTER, odd)) == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_without_a_secret_nobody_knows_it(database: Database) -> None:
    server = Server(database, registration_shared_secret=None)
    assert error(await server.call("GET", REGISTER)) == (400, "M_UNKNOWN")
    assert error(await server.call("POST", REGISTER, signed("x"))) == (400, "M_UNKNOWN")
