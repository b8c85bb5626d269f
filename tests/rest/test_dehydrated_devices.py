"""Dehydrated devices: left by one device, sent to by others, taken by the next login."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from tests.rest.accounts import Server, error
from tests.rest.driver import Reply

PATH = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
ALICE = "@alice:test"
DATA = {"algorithm": "org.matrix.msc3814.v2", "device_pickle": "secret", "nonce": "n"}


def device(device_id: str = "DRY", **more: Any) -> dict[str, Any]:
    return {
        "device_id": device_id,
        "device_data": DATA,
        "initial_device_display_name": "Dehydrated device",
        "device_keys": {
            "user_id": ALICE,
            "device_id": device_id,
            "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {f"ed25519:{device_id}": "key"},
            "signatures": {ALICE: {f"ed25519:{device_id}": "signature"}},
            "dehydrated": True,
        },
        "one_time_keys": {"signed_curve25519:A": {"key": device_id, "signatures": {}}},
        "fallback_keys": {"signed_curve25519:F": {"key": "f", "fallback": True, "signatures": {}}},
        **more,
    }


async def put(server: Server, token: str, body: Any) -> Reply:
    return await server.call("PUT", PATH, body, token)


async def keys_of_alice(server: Server, token: str) -> dict[str, Any]:
    reply = await server.call("POST", "/keys/query", {"device_keys": {ALICE: []}}, token)
    found: dict[str, Any] = reply.json["device_keys"][ALICE]
    return found


async def send(server: Server, token: str, device_id: str, number: int) -> None:
    body = {"messages": {ALICE: {device_id: {"number": number}}}}
    assert (await server.call("PUT", f"/sendToDevice/m.x/{number}", body, token)).code == 200


@pytest_twisted.ensureDeferred
async def test_a_device_is_left_and_found(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    assert error(await server.call("GET", PATH, user=alice)) == (404, "M_NOT_FOUND")
    assert error(await server.call("DELETE", PATH, user=alice)) == (404, "M_NOT_FOUND")
    assert (await put(server, alice, device())).json == {"device_id": "DRY"}
    assert (await server.call("GET", PATH, user=alice)).json == {"device_id": "DRY", "device_data": DATA}
    assert error(await server.call("GET", PATH, user=bob)) == (404, "M_NOT_FOUND")
    assert ALICE in server.streams["device_lists"].told
    keys = await keys_of_alice(server, bob)
    assert keys["DRY"] == {**device()["device_keys"], "unsigned": {"device_display_name": "Dehydrated device"}}
    claim = {"one_time_keys": {ALICE: {"DRY": "signed_curve25519"}}}
    claimed = [(await server.call("POST", "/keys/claim", claim, bob)).json["one_time_keys"] for _ in range(2)]
    assert [list(one[ALICE]["DRY"]) for one in claimed] == [["signed_curve25519:A"], ["signed_curve25519:F"]]


@pytest_twisted.ensureDeferred
async def test_what_is_sent_to_it_is_read_in_pages(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    await put(server, alice, device())
    for number in range(5):
        await send(server, bob, "DRY", number)
    events = f"{PATH}/DRY/events"
    for method in ("GET", "POST"):
        seen, token = [], None
        for _ in range(10):
            query: dict[str, Any] = {"limit": 2}
            if method == "GET" and token is not None:
                query["from"] = token
            body = {} if token is None else {"next_batch": token}
            page = (await server.call(method, events, body if method == "POST" else None, alice, query=query)).json
            seen += page["events"]
            token = page.get("next_batch")
            if token is None:
                break
        assert seen == [{"type": "m.x", "sender": "@bob:test", "content": {"number": number}} for number in range(5)]
        assert page == {"events": []}, "the end is a page without events and token"
    assert error(await server.call("GET", f"{PATH}/DEVICE/events", user=alice)) == (403, "M_FORBIDDEN")
    assert error(await server.call("GET", events, user=bob)) == (404, "M_NOT_FOUND")
    for wrong in ("x", "-1", "9" * 30):
        assert error(await server.call("POST", events, {"next_batch": wrong}, alice)) == (400, "M_INVALID_PARAM")
        assert error(await server.call("GET", events, user=alice, query={"from": wrong})) == (400, "M_INVALID_PARAM")


@pytest_twisted.ensureDeferred
async def test_the_next_device_takes_its_place(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    await put(server, alice, device("OLD"))
    await send(server, bob, "OLD", 1)
    assert (await put(server, alice, device("NEW"))).code == 200
    assert set(await keys_of_alice(server, bob)) == {"NEW"}
    assert error(await server.call("GET", f"{PATH}/OLD/events", user=alice)) == (403, "M_FORBIDDEN")
    assert (await server.call("GET", f"{PATH}/NEW/events", user=alice)).json == {"events": []}
    # Under the same id, too, it is another device.
    await send(server, bob, "NEW", 2)
    again = device("NEW", one_time_keys={"signed_curve25519:A": {"key": "other", "signatures": {}}})
    assert (await put(server, alice, again)).code == 200
    assert (await server.call("GET", f"{PATH}/NEW/events", user=alice)).json == {"events": []}
    listed = (await server.call("GET", "/devices", user=alice)).json["devices"]
    assert {one["device_id"] for one in listed} == {"DEVICE", "NEW"}


@pytest_twisted.ensureDeferred
async def test_many_at_once_leave_one(server: Server) -> None:
    alice = await server.register("alice")
    puts = [put(server, alice, device(f"D{number}")) for number in range(8)]
    replies = await gatherResults([Deferred.fromCoroutine(each) for each in puts])
    assert [reply.code for reply in replies] == [200] * 8
    left = (await server.call("GET", PATH, user=alice)).json["device_id"]
    assert set(await keys_of_alice(server, alice)) == {left}


@pytest.mark.parametrize("how", ["delete", "logout_all", "deactivate"])
@pytest_twisted.ensureDeferred
async def test_it_goes(server: Server, how: str) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    await put(server, alice, device())
    await send(server, bob, "DRY", 1)
    if how == "delete":
        assert (await server.call("DELETE", PATH, user=alice)).json == {"device_id": "DRY"}
        assert error(await server.call("GET", PATH, user=alice)) == (404, "M_NOT_FOUND")
    elif how == "logout_all":
        assert (await server.call("POST", "/logout/all", user=alice)).code == 200
    else:
        auth = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}}
        body = {"auth": {**auth, "password": "password"}}
        assert (await server.call("POST", "/account/deactivate", body, alice)).code == 200
    assert await rows(server) == (0, 0)
    assert "DRY" not in (await server.call("POST", "/keys/query", {"device_keys": {ALICE: []}}, bob)).json[
        "device_keys"
    ].get(ALICE, {})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"device_id": None}, (400, "M_BAD_JSON")),
        ({"device_id": ""}, (400, "M_INVALID_PARAM")),
        ({"device_id": "x" * 256}, (400, "M_INVALID_PARAM")),
        ({"device_id": "OTHER"}, (400, "M_INVALID_PARAM")),
        ({"device_data": "x"}, (400, "M_BAD_JSON")),
        ({"device_data": {}}, (400, "M_MISSING_PARAM")),
        ({"device_data": {"algorithm": "\x00"}}, (400, "M_INVALID_PARAM")),
        ({"device_data": {"algorithm": "x" * 200_000}}, (413, "M_TOO_LARGE")),
        ({"device_keys": None}, (400, "M_MISSING_PARAM")),
        ({"device_keys": {**device()["device_keys"], "user_id": "@bob:test"}}, (400, "M_INVALID_PARAM")),
        ({"one_time_keys": {"x": "y"}}, (400, "M_INVALID_PARAM")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_is_refused(server: Server, change: dict[str, Any], expected: tuple[int, str]) -> None:
    alice = await server.register("alice")
    assert error(await put(server, alice, {**device(), **change})) == expected
    assert await rows(server) == (0, 0)


@pytest_twisted.ensureDeferred
async def test_a_device_in_use_is_none(server: Server) -> None:
    alice = await server.register("alice")
    await put(server, alice, device())
    assert error(await put(server, alice, device("DEVICE"))) == (403, "M_FORBIDDEN")
    assert (await server.call("GET", PATH, user=alice)).json["device_id"] == "DRY"
    assert await server.is_logged_in(alice)


async def rows(server: Server) -> tuple[int, int]:
    def count(txn: Any) -> tuple[int, int]:
        txn.execute("SELECT (SELECT count(*) FROM dehydrated_devices), (SELECT count(*) FROM to_device_messages)")
        devices, messages = txn.one()
        return devices, messages

    return await server.database.read("test.rows", count)
