"""Encryption keys of devices through their endpoints."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.storage.database import Database, Transaction
from tests.rest.accounts import Server, error

ALICE, BOB = "@alice:test", "@bob:test"


def identity(user: str = ALICE, device: str = "DEVICE", **more: Any) -> dict[str, Any]:
    return {
        "user_id": user,
        "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {f"ed25519:{device}": "key"},
        "signatures": {user: {f"ed25519:{device}": "signature"}},
        **more,
    }


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest_twisted.ensureDeferred
async def test_keys_are_uploaded_counted_and_queried(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    one_time: dict[str, Any] = {f"signed_curve25519:{n}": {"key": n, "signatures": {}} for n in ("A", "B")}
    one_time["x:A"] = "c"
    body = {"device_keys": identity(), "one_time_keys": one_time}
    reply = await server.call("POST", "/keys/upload", body, alice)
    assert reply.json == {"one_time_key_counts": {"signed_curve25519": 2, "x": 1}}
    assert server.streams["device_lists"].told == [ALICE]
    assert ("keys_left", f"{ALICE} DEVICE") in server.forgotten
    again = await server.call("POST", "/keys/upload/DEVICE", body, alice)
    assert again.json == reply.json
    assert server.streams["device_lists"].told == [ALICE], "the same keys are no news"
    for wanted in ([], ["DEVICE"]):
        found = (await server.call("POST", "/keys/query", {"device_keys": {ALICE: wanted}}, bob)).json
        assert found["device_keys"] == {ALICE: {"DEVICE": {**identity(), "unsigned": {}}}}
        assert found["failures"] == {}
    empty = (await server.call("POST", "/keys/query", {"device_keys": {ALICE: ["X"], BOB: []}}, bob)).json
    assert empty["device_keys"] == {ALICE: {}, BOB: {}}
    nobody = (await server.call("POST", "/keys/query", {"device_keys": {"@nobody:test": []}}, bob)).json
    assert nobody["device_keys"] == nobody["failures"] == {}


@pytest_twisted.ensureDeferred
async def test_an_upload_of_nothing_new_writes_nothing(server: Server) -> None:
    token = await server.register("alice")
    await server.call("POST", "/keys/upload", {"device_keys": identity()}, token)
    with server.database.counted() as counts:
        for body in ({}, {"device_keys": identity()}, {"one_time_keys": {}, "fallback_keys": {}}):
            assert (await server.call("POST", "/keys/upload", body, token)).json == {"one_time_key_counts": {}}
    assert counts.statements_written == counts.statements_read == 0, "all is in memory"


@pytest_twisted.ensureDeferred
async def test_a_devices_name_goes_with_its_keys(server: Server) -> None:
    token = await server.register("alice")
    await server.call("POST", "/keys/upload", {"device_keys": identity(unsigned={"x": 1})}, token)
    await server.call("PUT", "/devices/DEVICE", {"display_name": "phone"}, token)
    assert server.streams["device_lists"].told == [ALICE, ALICE]
    found = (await server.call("POST", "/keys/query", {"device_keys": {ALICE: []}}, token)).json
    assert found["device_keys"][ALICE]["DEVICE"]["unsigned"] == {"device_display_name": "phone"}
    await server.call("POST", "/logout", user=token)
    assert server.streams["device_lists"].told == [ALICE] * 3


@pytest_twisted.ensureDeferred
async def test_keys_are_claimed_once_each(server: Server) -> None:
    token = await server.register("alice")
    keys = {f"signed_curve25519:{n:02}": {"key": str(n), "signatures": {}} for n in range(10)}
    fallback = {"signed_curve25519:F": {"key": "f", "fallback": True, "signatures": {}}}
    await server.call("POST", "/keys/upload", {"one_time_keys": keys, "fallback_keys": fallback}, token)
    body = {"one_time_keys": {ALICE: {"DEVICE": "signed_curve25519", "NONE": "x"}, "@b:far": {"D": "x"}}}
    calls = [Deferred.fromCoroutine(server.call("POST", "/keys/claim", body, token)) for _ in range(12)]
    replies = [reply.json for reply in await gatherResults(calls)]
    given = [next(iter(reply["one_time_keys"][ALICE]["DEVICE"].items())) for reply in replies]
    assert sorted(given, key=str) == sorted([*keys.items(), *fallback.items(), *fallback.items()], key=str)
    assert all(set(reply["failures"]) == {"far"} for reply in replies)
    assert (await server.call("POST", "/keys/upload", {}, token)).json == {"one_time_key_counts": {}}


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"device_keys": 5}, "M_BAD_JSON"),
        ({"device_keys": {}}, "M_MISSING_PARAM"),
        ({"device_keys": identity(user=BOB)}, "M_INVALID_PARAM"),
        ({"device_keys": identity(device="X")}, "M_INVALID_PARAM"),
        ({"device_keys": identity(algorithms="x")}, "M_BAD_JSON"),
        ({"device_keys": identity(algorithms=[5])}, "M_BAD_JSON"),
        ({"device_keys": identity(keys=[])}, "M_BAD_JSON"),
        ({"device_keys": identity(keys={"a": 5})}, "M_BAD_JSON"),
        ({"device_keys": identity(signatures=5)}, "M_BAD_JSON"),
        ({"device_keys": identity(signatures=None)}, "M_BAD_JSON"),
        ({"device_keys": identity(signatures={ALICE: 5})}, "M_BAD_JSON"),
        ({"device_keys": identity(signatures={ALICE: {"ed25519:DEVICE": 5}})}, "M_BAD_JSON"),
        ({"device_keys": identity(more=0.5)}, "M_BAD_JSON"),
        ({"device_keys": identity(more=2**53)}, "M_BAD_JSON"),
        ({"device_keys": identity(more=nested(150))}, "M_BAD_JSON"),
        ({"device_keys": identity(more="x" * 70_000)}, "M_INVALID_PARAM"),
        ({"device_keys": identity(more="\x00")}, "M_INVALID_PARAM"),
        ({"one_time_keys": []}, "M_BAD_JSON"),
        ({"one_time_keys": {"nocolon": "x"}}, "M_INVALID_PARAM"),
        ({"one_time_keys": {":x": "x"}}, "M_INVALID_PARAM"),
        ({"one_time_keys": {"x:": "x"}}, "M_INVALID_PARAM"),
        ({"one_time_keys": {"x:\x00": "x"}}, "M_INVALID_PARAM"),
        ({"one_time_keys": {"x:" + "y" * 300: "x"}}, "M_INVALID_PARAM"),
        ({"one_time_keys": {"x:y": 5}}, "M_BAD_JSON"),
        ({"one_time_keys": {"x:y": None}}, "M_BAD_JSON"),
        ({"one_time_keys": {"x:y": {"no": "key"}}}, "M_BAD_JSON"),
        ({"one_time_keys": {"x:y": {"key": "key"}}}, "M_BAD_JSON"),
        ({"one_time_keys": {"x:y": {"key": "key", "signatures": {ALICE: []}}}}, "M_BAD_JSON"),
        ({"one_time_keys": {"x:y": {"key": "key", "signatures": {}, "fallback": 1}}}, "M_BAD_JSON"),
        ({"one_time_keys": {"x:y": {"key": "key", "signatures": {}, "more": 1.5}}}, "M_BAD_JSON"),
        ({"one_time_keys": {f"x:{n}": "key" for n in range(1_000)}}, "M_INVALID_PARAM"),
        ({"one_time_keys": {"x:y": "\x00"}}, "M_INVALID_PARAM"),
        ({"one_time_keys": {"x:taken": "other"}}, "M_INVALID_PARAM"),
        ({"fallback_keys": {"x:1": "a", "x:2": "b"}}, "M_INVALID_PARAM"),
        ({"fallback_keys": "x"}, "M_BAD_JSON"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_uploads_that_are_refused(server: Server, body: dict[str, Any], errcode: str) -> None:
    token = await server.register("alice")
    await server.call("POST", "/keys/upload", {"one_time_keys": {"x:taken": "key"}}, token)
    assert error(await server.call("POST", "/keys/upload", body, token)) == (400, errcode)
    assert (await server.call("POST", "/keys/upload", {}, token)).json == {"one_time_key_counts": {"x": 1}}


@pytest_twisted.ensureDeferred
async def test_keys_of_another_device_cannot_be_uploaded(server: Server) -> None:
    token = await server.register("alice")
    assert error(await server.call("POST", "/keys/upload/OTHER", {}, token)) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("path", ["/keys/query", "/keys/claim"])
@pytest_twisted.ensureDeferred
async def test_questions_that_are_not_understood(server: Server, path: str) -> None:
    token = await server.register("alice")
    for timeout in ("x", 1.5, True, -1):
        body = {"device_keys": {}, "one_time_keys": {}, "timeout": timeout}
        assert error(await server.call("POST", path, body, token)) == (400, "M_BAD_JSON")
    name = "device_keys" if path == "/keys/query" else "one_time_keys"
    assert error(await server.call("POST", path, {}, token)) == (400, "M_MISSING_PARAM")
    for value in (5, [], {"alice": []}, {ALICE: 5}, {ALICE: "x"}, {ALICE: [5]}, {ALICE: {"D": 5}}):
        reply = await server.call("POST", path, {name: value}, token)
        assert reply.code == 400, value
        assert reply.errcode in ("M_BAD_JSON", "M_INVALID_PARAM")
    odd = {ALICE: ["\x00"]} if path == "/keys/query" else {ALICE: {"\x00": "x"}}
    assert (await server.call("POST", path, {name: odd}, token)).code < 500
    many = {f"@u{n}:test": [] if path == "/keys/query" else {} for n in range(10_001)}
    assert error(await server.call("POST", path, {name: many}, token)) == (400, "M_UNKNOWN")


# -- who changed ----------------------------------------------------------------------------------------------------

ROOM = "!enc:test"


def member(txn: Transaction, at: int, user: str, membership: str, before: int | None = None) -> None:
    """What the writer of events leaves behind of a membership."""
    prev = None if before is None else f"${before}"
    txn.execute(
        "INSERT INTO memberships VALUES (%s, %s, %s, %s, %s, NULL, NULL, %s)",
        (f"${at}", ROOM, user, user, membership, at),
    )
    txn.execute(
        "INSERT INTO current_state VALUES (%s, 'm.room.member', %s, %s, %s, %s) ON CONFLICT (room_id, type, state_key)"
        " DO UPDATE SET event_id = EXCLUDED.event_id, membership = EXCLUDED.membership",
        (ROOM, user, f"${at}", membership, at),
    )
    txn.execute(
        "INSERT INTO current_state_deltas VALUES (%s, %s, 'm.room.member', %s, %s, %s)",
        (at, ROOM, user, f"${at}", prev),
    )
    txn.execute(
        "INSERT INTO local_memberships VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (user_id, room_id) DO UPDATE"
        " SET membership = EXCLUDED.membership, stream_ordering = EXCLUDED.stream_ordering",
        (user, ROOM, membership, user, f"${at}", at),
    )


def encrypted_room(txn: Transaction) -> None:
    txn.execute("INSERT INTO room_stats (room_id, encryption) VALUES (%s, 'm.megolm.v1.aes-sha2')", (ROOM,))
    member(txn, 1, ALICE, "join")
    member(txn, 2, BOB, "join")
    member(txn, 3, BOB, "leave", 2)
    member(txn, 4, BOB, "join", 3)


@pytest_twisted.ensureDeferred
async def test_whose_keys_changed_between_two_syncs(server: Server, database: Database) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    await server.register("stranger")
    await database.write("test", encrypted_room)

    async def changes(since: str, until: str = "s100_0_0_0_0_0_100", user: str = alice) -> Any:
        query = {"from": since, "to": until}
        return (await server.call("GET", "/keys/changes", user=user, query=query)).json

    await server.call("POST", "/keys/upload", {"device_keys": identity(BOB)}, bob)
    assert await changes("s4_0_0_0_0_0_0") == {"changed": [BOB], "left": []}
    assert await changes("s4_0_0_0_0_0_1") == {"changed": [], "left": []}
    assert await changes("s4_0_0_0_0_0_0", "s4_0_0_0_0_0_0") == {"changed": [], "left": []}
    assert await changes("s4_0_0_0_0_0_0", user=bob) == {"changed": [BOB], "left": []}, "one's own, too"
    assert await changes("s2_0_0_0_0_0_1", "s3_0_0_0_0_0_1") == {"changed": [], "left": []}, "they are back"
    assert await changes("s3_0_0_0_0_0_1") == {"changed": [BOB], "left": []}
    assert await changes("s3_0_0_0_0_0_1", user=bob) == {"changed": [ALICE, BOB], "left": []}
    await database.write("test", member, 5, BOB, "leave", 4)
    assert await changes("s4_0_0_0_0_0_1") == {"changed": [], "left": [BOB]}
    assert await changes("s4_0_0_0_0_0_1", user=bob) == {"changed": [], "left": [ALICE]}


@pytest_twisted.ensureDeferred
async def test_changes_are_asked_for_by_tokens(server: Server) -> None:
    token = await server.register("alice")
    assert error(await server.call("GET", "/keys/changes", user=token)) == (400, "M_MISSING_PARAM")
    assert error(await server.call("GET", "/keys/changes", user=token, query={"from": "s1"})) == (
        400,
        "M_MISSING_PARAM",
    )
    for query in ({"from": "x", "to": "s1"}, {"from": "s1", "to": "x"}, {"from": "", "to": "s1"}):
        assert error(await server.call("GET", "/keys/changes", user=token, query=query)) == (400, "M_INVALID_PARAM")
