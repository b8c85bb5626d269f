"""Pushers through their endpoints: what is taken, what is listed, and that they end with the session that made them."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted

from synapse.handlers import pushers as rules
from tests.rest.accounts import Server, admin_of, error

URL = "https://gateway.test/_matrix/push/v1/notify"
PUSHER: dict[str, Any] = {
    "kind": "http",
    "app_id": "org.example.app",
    "pushkey": "key",
    "app_display_name": "App",
    "device_display_name": "Phone",
    "profile_tag": "tag",
    "lang": "en",
    "data": {"url": URL, "format": "event_id_only", "brand": {"n": [1]}},
}


async def put(server: Server, token: str, **changes: Any) -> None:
    reply = await server.call("POST", "/pushers/set", {**PUSHER, **changes}, token)
    assert (reply.code, reply.json) == (200, {}), reply


async def keys(server: Server, token: str) -> list[str]:
    return [pusher["pushkey"] for pusher in (await server.call("GET", "/pushers", user=token)).json["pushers"]]


async def everybody(server: Server) -> list[str]:
    """The pushkeys of all, as the database has them."""

    def read(txn: Any) -> list[str]:
        txn.execute("SELECT pushkey FROM pushers ORDER BY pushkey")
        return [key for (key,) in txn.rows()]

    return await server.database.read("test", read)


@pytest_twisted.ensureDeferred
async def test_pushers_are_made_changed_listed_and_deleted(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    assert (await server.call("GET", "/pushers", user=alice)).json == {"pushers": []}
    await put(server, alice)
    assert (await server.call("GET", "/pushers", user=alice)).json == {"pushers": [PUSHER]}
    assert await keys(server, bob) == []
    await put(server, alice, lang="de", profile_tag=None, data={"url": URL})
    changed = {**PUSHER, "lang": "de", "data": {"url": URL}}
    del changed["profile_tag"]
    assert (await server.call("GET", "/pushers", user=alice)).json == {"pushers": [changed]}
    await put(server, alice, app_id="another")
    assert await keys(server, alice) == ["key", "key"]
    for app_id in ("another", "unknown"):
        gone = {"kind": None, "app_id": app_id, "pushkey": "key"}
        assert (await server.call("POST", "/pushers/set", gone, alice)).json == {}
    assert await keys(server, alice) == ["key"]


@pytest_twisted.ensureDeferred
async def test_a_pushkey_goes_over_to_whoever_sets_it_unless_it_is_appended(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    await put(server, alice)
    await put(server, bob, append=True)
    assert await keys(server, alice) == await keys(server, bob) == ["key"]
    await put(server, alice, app_id="another", append=False)
    assert await keys(server, bob) == ["key"], "it is another app's"
    await put(server, bob, append=False)
    assert await keys(server, bob) == ["key"]
    listed = (await server.call("GET", "/pushers", user=alice)).json["pushers"]
    assert [pusher["app_id"] for pusher in listed] == ["another"]


@pytest_twisted.ensureDeferred
async def test_there_are_only_so_many(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_PUSHERS", 2)
    token = await server.register("alice")
    for key in ("a", "b", "a"):
        await put(server, token, pushkey=key)
    assert error(await server.call("POST", "/pushers/set", {**PUSHER, "pushkey": "c"}, token)) == (
        400,
        "M_INVALID_PARAM",
    )
    assert await keys(server, token) == ["a", "b"]


def _url(url: Any) -> dict[str, Any]:
    return {"data": {"url": url}}


@pytest.mark.parametrize(
    ("changes", "errcode"),
    [
        *(({name: ...}, "M_MISSING_PARAM") for name in ("kind", "app_id", "pushkey", "lang", "data")),
        *(({name: ...}, "M_MISSING_PARAM") for name in ("app_display_name", "device_display_name")),
        *(({name: 5}, "M_BAD_JSON") for name in PUSHER),
        ({"append": "yes"}, "M_BAD_JSON"),
        *(({name: "a\x00"}, "M_INVALID_PARAM") for name in PUSHER if name not in ("kind", "data")),
        ({"data": {}}, "M_MISSING_PARAM"),
        ({"kind": "carrier pigeon"}, "M_INVALID_PARAM"),
        ({"kind": "email", "app_id": "m.email", "pushkey": "a@b.c"}, "M_INVALID_PARAM"),
        ({"app_id": "x" * 65}, "M_INVALID_PARAM"),
        ({"app_id": ""}, "M_INVALID_PARAM"),
        ({"pushkey": "é" * 257}, "M_INVALID_PARAM"),
        ({"pushkey": ""}, "M_INVALID_PARAM"),
        ({"lang": "x" * 600}, "M_INVALID_PARAM"),
        ({"data": {"url": URL, "format": 5}}, "M_INVALID_PARAM"),
        ({"data": {"url": URL, "x": "\x00"}}, "M_INVALID_PARAM"),
        ({"data": {"url": URL, "x": "x" * 9000}}, "M_INVALID_PARAM"),
        (_url(5), "M_INVALID_PARAM"),
        (_url("https://gateway.test"), "M_INVALID_PARAM"),
        (_url("https://gateway.test/_matrix/push/v1/notify/"), "M_INVALID_PARAM"),
        (_url("ftp://gateway.test/_matrix/push/v1/notify"), "M_INVALID_PARAM"),
        (_url("https:///_matrix/push/v1/notify"), "M_INVALID_PARAM"),
        (_url("https://a:b@gateway.test/_matrix/push/v1/notify"), "M_INVALID_PARAM"),
        (_url("https://gateway.test:99999/_matrix/push/v1/notify"), "M_INVALID_PARAM"),
        (_url("https://[gateway/_matrix/push/v1/notify"), "M_INVALID_PARAM"),
        (_url("https://gäteway.test/_matrix/push/v1/notify"), "M_INVALID_PARAM"),
        (_url("https://gateway.test/_matrix/push/v1/notify#x"), "M_INVALID_PARAM"),
        (_url(URL + "?" + "x" * 2048), "M_INVALID_PARAM"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_refused(server: Server, changes: dict[str, Any], errcode: str) -> None:
    token = await server.register("alice")
    body = {name: value for name, value in {**PUSHER, **changes}.items() if value is not ...}
    assert error(await server.call("POST", "/pushers/set", body, token)) == (400, errcode)
    assert await keys(server, token) == []


@pytest_twisted.ensureDeferred
async def test_they_end_with_their_device(server: Server) -> None:
    tokens = {"DEVICE": await server.register("alice")}
    for device in ("B", "C", "D"):
        tokens[device] = (await server.login("alice", device_id=device)).json["access_token"]
    for device, token in tokens.items():
        await put(server, token, pushkey=device)
    assert await everybody(server) == ["B", "C", "D", "DEVICE"]
    assert (await server.call("POST", "/logout", {}, tokens["B"])).code == 200
    assert await everybody(server) == ["C", "D", "DEVICE"]
    password = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}}
    auth = {"auth": {**password, "password": "password"}}
    assert (await server.call("DELETE", "/devices/C", auth, tokens["D"])).code == 200
    assert await everybody(server) == ["D", "DEVICE"]
    kept = {**auth, "new_password": "another password", "logout_devices": False}
    assert (await server.call("POST", "/account/password", kept, tokens["D"])).code == 200
    assert await everybody(server) == ["D", "DEVICE"]
    auth = {"auth": {**password, "password": "another password"}}
    changed = {**auth, "new_password": "a third password", "logout_devices": True}
    assert (await server.call("POST", "/account/password", changed, tokens["D"])).code == 200
    assert await everybody(server) == ["D"], "its own stays"
    assert (await server.call("POST", "/logout/all", {}, tokens["D"])).code == 200
    assert await everybody(server) == []


@pytest_twisted.ensureDeferred
async def test_whoever_changes_a_pusher_last_has_it_end_with_them(server: Server) -> None:
    first = await server.register("alice")
    second = (await server.login("alice", device_id="B")).json["access_token"]
    await put(server, first)
    await put(server, second)
    await server.call("POST", "/logout", {}, first)
    assert await everybody(server) == ["key"]
    await server.call("POST", "/logout", {}, second)
    assert await everybody(server) == []


@pytest_twisted.ensureDeferred
async def test_they_end_with_a_token_that_has_no_device(server: Server) -> None:
    own = await server.register("alice")
    admin = await admin_of(server)

    async def deviceless(pushkey: str) -> str:
        reply = await server.call("POST", "/_synapse/admin/v1/users/@alice:test/login", {}, admin)
        token = str(reply.json["access_token"])
        await put(server, token, pushkey=pushkey)
        return token

    first, second, third = [await deviceless(key) for key in ("1", "2", "3")]
    await put(server, own, pushkey="own")
    assert (await server.call("POST", "/logout", {}, first)).code == 200
    assert await everybody(server) == ["2", "3", "own"]
    password = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}}
    auth = {"auth": {**password, "password": "password"}}
    assert (await server.call("POST", "/account/password", {**auth, "new_password": "changed it"}, second)).code == 200
    assert await everybody(server) == ["2"]
    assert not await server.is_logged_in(third)
    assert (await server.call("POST", "/logout/all", {}, second)).code == 200
    assert await everybody(server) == []


@pytest_twisted.ensureDeferred
async def test_they_end_with_a_token_that_expires(server: Server) -> None:
    await server.register("alice")
    admin = await admin_of(server)
    until = int((server.clock.seconds() + 60) * 1000)
    reply = await server.call("POST", "/_synapse/admin/v1/users/@alice:test/login", {"valid_until_ms": until}, admin)
    await put(server, reply.json["access_token"])
    await server.accounts.tokens.forget_expired(until)
    assert await everybody(server) == ["key"]
    await server.accounts.tokens.forget_expired(until + 1)
    assert await everybody(server) == []


@pytest_twisted.ensureDeferred
async def test_they_end_with_the_account(server: Server) -> None:
    token = await server.register("alice")
    await put(server, token)
    auth = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "password"}
    assert (await server.call("POST", "/account/deactivate", {"auth": auth}, token)).code == 200
    assert await everybody(server) == []
