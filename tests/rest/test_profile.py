"""Profiles through their endpoints."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.storage.database import Database
from tests.rest.accounts import Server, error

PROFILE = "/profile/@alice:test"


@pytest_twisted.ensureDeferred
async def test_name_and_picture_are_set_shown_and_taken_away(server: Server) -> None:
    token = await server.register("alice")
    assert (await server.call("GET", PROFILE)).json == {"displayname": "alice"}
    for field, value in (("displayname", "Älice 🦊"), ("avatar_url", "mxc://test/abcdef")):
        assert (await server.call("PUT", f"{PROFILE}/{field}", {field: value}, token)).json == {}
        assert (await server.call("GET", f"{PROFILE}/{field}")).json == {field: value}
    assert (await server.call("GET", PROFILE)).json == {"displayname": "Älice 🦊", "avatar_url": "mxc://test/abcdef"}
    assert server.propagated == ["@alice:test"] * 2
    await server.call("PUT", f"{PROFILE}/displayname", {"displayname": "Älice 🦊"}, token)
    assert len(server.propagated) == 2, "nothing has changed"
    assert (await server.call("DELETE", f"{PROFILE}/avatar_url", user=token)).json == {}
    assert (await server.call("PUT", f"{PROFILE}/displayname", {"displayname": ""}, token)).json == {}
    assert (await server.call("GET", PROFILE)).json == {}
    assert (await server.call("GET", f"{PROFILE}/displayname")).json == {}
    assert len(server.propagated) == 4


@pytest.mark.parametrize("value", [None, False, 0, "", "text", [1, [2]], {"a": {"b": None}}, 1.5, "🦊"])
@pytest_twisted.ensureDeferred
async def test_fields_of_ones_own_hold_any_json(server: Server, value: Any) -> None:
    token = await server.register("alice")
    path = f"{PROFILE}/com.example.field"
    assert (await server.call("PUT", path, {"com.example.field": value}, token)).code == 200
    assert (await server.call("GET", path)).json == {"com.example.field": value}
    assert (await server.call("DELETE", path, user=token)).code == 200
    assert (await server.call("DELETE", path, user=token)).code == 200
    for field in ("com.example.field", "plain", "Bad Name", "com." + "x" * 255):
        assert error(await server.call("GET", f"{PROFILE}/{quote(field)}")) == (404, "M_NOT_FOUND")
    assert server.propagated == []


@pytest_twisted.ensureDeferred
async def test_only_ones_own_profile_can_be_changed(server: Server) -> None:
    await server.register("alice")
    bob = await server.register("bob")
    for user in ("@alice:test", "@alice:far", "@nobody:test"):
        for method in ("PUT", "DELETE"):
            reply = await server.call(method, f"/profile/{user}/displayname", {"displayname": "x"}, bob)
            assert error(reply) == (403, "M_FORBIDDEN")
    assert error(await server.call("PUT", f"{PROFILE}/displayname", {})) == (401, "M_MISSING_TOKEN")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("@nobody:test", (404, "M_NOT_FOUND")),
        ("@alice:far", (404, "M_NOT_FOUND")),
        ("alice", (400, "M_INVALID_PARAM")),
        ("@alice", (400, "M_INVALID_PARAM")),
        ("@" + "x" * 300 + ":test", (400, "M_INVALID_PARAM")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_users_without_a_profile(server: Server, user: str, expected: tuple[int, str]) -> None:
    assert error(await server.call("GET", f"/profile/{quote(user)}")) == expected
    assert error(await server.call("GET", f"/profile/{quote(user)}/displayname")) == expected


@pytest.mark.parametrize(
    ("field", "body", "errcode"),
    [
        ("displayname", {}, "M_MISSING_PARAM"),
        ("displayname", {"displayname": 5}, "M_BAD_JSON"),
        ("displayname", {"displayname": {}}, "M_BAD_JSON"),
        ("displayname", {"displayname": "x" * 257}, "M_INVALID_PARAM"),
        ("displayname", {"displayname": "a\x00"}, "M_INVALID_PARAM"),
        ("avatar_url", {"avatar_url": "x" * 1001}, "M_INVALID_PARAM"),
        ("m.tz", {"m.tz": 5}, "M_BAD_JSON"),
        ("m.tz", {"m.tz": None}, "M_BAD_JSON"),
        ("com.example.x", {"com.example.y": 1}, "M_MISSING_PARAM"),
        ("com.example.x", {"com.example.x": {"a": ["\x00"]}}, "M_INVALID_PARAM"),
        ("com.example.x", {"com.example.x": "x" * 65_536}, "M_PROFILE_TOO_LARGE"),
        ("com." + "x" * 255, {}, "M_KEY_TOO_LARGE"),
        ("Bad Name", {}, "M_INVALID_PARAM"),
        ("plain", {}, "M_INVALID_PARAM"),
        ("com..x", {}, "M_INVALID_PARAM"),
        ("com.", {}, "M_INVALID_PARAM"),
        ("1com.x", {}, "M_INVALID_PARAM"),
        ("com.X", {}, "M_INVALID_PARAM"),
        ("displayname\n", {}, "M_INVALID_PARAM"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_a_profile_cannot_hold(server: Server, field: str, body: Any, errcode: str) -> None:
    token = await server.register("alice")
    assert error(await server.call("PUT", f"{PROFILE}/{quote(field)}", body, token)) == (400, errcode)
    assert (await server.call("GET", PROFILE)).json == {"displayname": "alice"}


@pytest.mark.parametrize(("option", "field"), [("displayname", "displayname"), ("avatar_url", "avatar_url")])
@pytest_twisted.ensureDeferred
async def test_what_users_cannot_change(database: Database, option: str, field: str) -> None:
    server = Server(database, **{f"enable_set_{option}": False})
    token = await server.register("alice")
    for method, body in (("PUT", {field: "x"}), ("DELETE", None)):
        assert error(await server.call(method, f"{PROFILE}/{field}", body, token)) == (403, "M_FORBIDDEN")
    assert (await server.call("GET", PROFILE)).json == {"displayname": "alice"}
    told = (await server.call("GET", "/capabilities", user=token)).json["capabilities"]
    assert told["m.profile_fields"] == {"enabled": True, "disallowed": [field]}
    for name in ("displayname", "avatar_url"):
        assert told[f"m.set_{name}"] == {"enabled": name != field}
    assert (await server.call("PUT", f"{PROFILE}/m.tz", {"m.tz": "UTC"}, token)).code == 200


@pytest_twisted.ensureDeferred
async def test_the_whole_profile_has_a_limit(server: Server) -> None:
    token = await server.register("alice")
    for number in range(2):
        field = f"com.example.x{number}"
        reply = await server.call("PUT", f"{PROFILE}/{field}", {field: "x" * 40_000}, token)
        assert reply.code == (200, 400)[number]
    assert error(reply) == (400, "M_PROFILE_TOO_LARGE")


@pytest.mark.parametrize("field", ["org.my-app.field", "com.example.0", "m.unheard_of", "a." + "b" * 253])
@pytest_twisted.ensureDeferred
async def test_names_that_fields_may_have(server: Server, field: str) -> None:
    token = await server.register("alice")
    assert (await server.call("PUT", f"{PROFILE}/{field}", {field: 1}, token)).json == {}
    assert (await server.call("GET", f"{PROFILE}/{field}")).json == {field: 1}


@pytest_twisted.ensureDeferred
async def test_the_limit_holds_for_many_at_once(server: Server) -> None:
    token = await server.register("alice")
    fields = [f"com.example.x{number}" for number in range(5)]
    sets = [server.call("PUT", f"{PROFILE}/{field}", {field: "x" * 30_000}, token) for field in fields]
    replies = await gatherResults([Deferred.fromCoroutine(each) for each in sets])
    assert sorted(reply.code for reply in replies) == [200, 200, 400, 400, 400]
    assert len((await server.call("GET", PROFILE)).body) < 65_536
