"""Key backups through their endpoints."""

from __future__ import annotations

import threading
from itertools import permutations
from typing import Any
from urllib.parse import quote

import orjson
import pytest
import pytest_twisted
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, gatherResults

from synapse.handlers import key_backup
from synapse.handlers.key_backup import checked_keys
from synapse.storage.key_backups import Place, Session
from tests.rest.accounts import Server, error
from tests.rest.driver import Reply

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
AUTH = {"public_key": "abc", "signatures": {"@alice:test": {"ed25519:DEVICE": "x"}}}
ROOM, OTHER = "!room:test", "!" + "a/b+c" * 8


def key(data: str = "secret", index: int = 1, forwarded: int = 0, verified: bool = False) -> dict[str, Any]:
    session_data = {"ephemeral": "e", "ciphertext": data, "mac": "m"}
    return {
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": session_data,
    }


class Client:
    """A user with key backups."""

    def __init__(self, server: Server, token: str) -> None:
        self.server = server
        self.token = token

    async def create(self, auth_data: Any = AUTH) -> str:
        body = {"algorithm": ALGORITHM, "auth_data": auth_data}
        reply = await self.server.call("POST", "/room_keys/version", body, self.token)
        assert reply.code == 200, reply
        return str(reply.json["version"])

    async def info(self, version: str | None = None) -> Reply:
        path = "/room_keys/version" + ("" if version is None else f"/{version}")
        return await self.server.call("GET", path, user=self.token)

    async def keys(self, method: str, version: str, *place: str, body: Any = None) -> Reply:
        path = "/".join(("/room_keys/keys", *(quote(part, safe="") for part in place)))
        return await self.server.call(method, path, body, self.token, query={"version": version})

    async def put(self, version: str, rooms: dict[str, dict[str, Any]]) -> Reply:
        body = {"rooms": {room: {"sessions": sessions} for room, sessions in rooms.items()}}
        return await self.keys("PUT", version, body=body)


async def user(server: Server, name: str = "alice") -> Client:
    return Client(server, await server.register(name))


# -- backups -----------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_backups_are_made_changed_and_deleted(server: Server) -> None:
    alice, bob = await user(server), await user(server, "bob")
    assert error(await alice.info()) == (404, "M_NOT_FOUND")
    first, second = await alice.create(), await alice.create({"public_key": "later"})
    assert first != second
    about = {"algorithm": ALGORITHM, "count": 0}
    latest = (await alice.info()).json
    etag = latest.pop("etag")
    assert latest == {**about, "auth_data": {"public_key": "later"}, "version": second}
    assert isinstance(etag, str)
    assert (await alice.info(first)).json == {**about, "auth_data": AUTH, "version": first, "etag": etag}
    change = {"algorithm": ALGORITHM, "auth_data": {"public_key": "new"}}
    for body in (change, {**change, "version": first}):
        assert (await server.call("PUT", f"/room_keys/version/{first}", body, alice.token)).json == {}
    assert (await alice.info(first)).json["auth_data"] == {"public_key": "new"}
    assert error(await bob.info(first)) == (404, "M_NOT_FOUND"), "everybody has their own"
    assert (await server.call("DELETE", f"/room_keys/version/{second}", user=alice.token)).json == {}
    assert (await server.call("DELETE", f"/room_keys/version/{second}", user=alice.token)).code == 200, "deleted before"
    assert error(await alice.info(second)) == (404, "M_NOT_FOUND")
    assert (await alice.info()).json["version"] == first
    third = await alice.create()
    assert third not in (first, second), "versions are given out once"
    for gone in (second, third, third):
        assert (await server.call("DELETE", f"/room_keys/version/{gone}", user=alice.token)).code == 200
    assert error(await server.call("DELETE", "/room_keys/version/99", user=alice.token)) == (404, "M_NOT_FOUND")
    for _ in range(5):
        last = await alice.create()
        await server.call("DELETE", f"/room_keys/version/{last}", user=alice.token)
    assert await rows(server, "key_backups") == 2, "nobody fills the database with what is deleted"
    assert (await alice.info()).json["version"] == first


@pytest_twisted.ensureDeferred
async def test_changes_of_a_backup_that_are_refused(server: Server) -> None:
    alice = await user(server)
    version = await alice.create()
    good = {"algorithm": ALGORITHM, "auth_data": {"public_key": "x"}}
    for path, change, expected in (
        (version, {"algorithm": "m.other"}, (400, "M_INVALID_PARAM")),
        (version, {"version": "77"}, (400, "M_INVALID_PARAM")),
        (version, {"auth_data": 5}, (400, "M_BAD_JSON")),
        (version, {"auth_data": {"x": "\x00"}}, (400, "M_BAD_JSON")),
        (version, {"auth_data": {"x": "y" * 70_000}}, (413, "M_TOO_LARGE")),
        ("77", {}, (404, "M_NOT_FOUND")),
        ("bogus", {}, (404, "M_NOT_FOUND")),
        ("9" * 30, {}, (404, "M_NOT_FOUND")),
    ):
        reply = await server.call("PUT", f"/room_keys/version/{path}", {**good, **change}, alice.token)
        assert error(reply) == expected, change
    for unknown in ("77", "bogus", "9" * 30, "0"):
        assert error(await server.call("DELETE", f"/room_keys/version/{unknown}", user=alice.token))[0] == 404
    assert (await alice.info(version)).json["auth_data"] == AUTH


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"algorithm": ALGORITHM}, "M_MISSING_PARAM"),
        ({"auth_data": AUTH}, "M_MISSING_PARAM"),
        ({"algorithm": 5, "auth_data": AUTH}, "M_BAD_JSON"),
        ({"algorithm": "", "auth_data": AUTH}, "M_INVALID_PARAM"),
        ({"algorithm": "x" * 256, "auth_data": AUTH}, "M_INVALID_PARAM"),
        ({"algorithm": ALGORITHM, "auth_data": []}, "M_BAD_JSON"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_backups_that_are_refused(server: Server, body: Any, errcode: str) -> None:
    alice = await user(server)
    assert error(await server.call("POST", "/room_keys/version", body, alice.token)) == (400, errcode)
    assert (await alice.info()).code == 404


@pytest_twisted.ensureDeferred
async def test_nobody_has_more_than_so_many_backups(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_backup, "MAX_BACKUPS", 3)
    alice = await user(server)
    versions = [await alice.create() for _ in range(3)]
    body = {"algorithm": ALGORITHM, "auth_data": AUTH}
    assert error(await server.call("POST", "/room_keys/version", body, alice.token)) == (413, "M_TOO_LARGE")
    await server.call("DELETE", f"/room_keys/version/{versions[0]}", user=alice.token)
    await alice.create()


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_keys_are_stored_read_and_deleted(server: Server) -> None:
    alice = await user(server)
    version = await alice.create()
    for place, empty in (((), {"rooms": {}}), ((ROOM,), {"sessions": {}})):
        assert (await alice.keys("GET", version, *place)).json == empty
    assert error(await alice.keys("GET", version, ROOM, "s1")) == (404, "M_NOT_FOUND")
    counts = [
        (await alice.put(version, {ROOM: {"s1": key("1"), "s/+2": key('quo"te')}, OTHER: {"s1": key("3")}})).json,
        (await alice.keys("PUT", version, ROOM, body={"sessions": {"s4": key("4")}})).json,
        (await alice.keys("PUT", version, OTHER, 's/"5', body=key("ünicode"))).json,
    ]
    assert [counted["count"] for counted in counts] == [3, 4, 5]
    assert len({counted["etag"] for counted in counts}) == 3
    assert {name: (await alice.info()).json[name] for name in ("etag", "count")} == counts[-1]
    room = {"sessions": {"s1": key("1"), "s/+2": key('quo"te'), "s4": key("4")}}
    other = {"sessions": {"s1": key("3"), 's/"5': key("ünicode")}}
    assert (await alice.keys("GET", version)).json == {"rooms": {ROOM: room, OTHER: other}}
    assert (await alice.keys("GET", version, ROOM)).json == room
    assert (await alice.keys("GET", version, OTHER, 's/"5')).json == key("ünicode")
    gone = (await alice.keys("DELETE", version, ROOM, "s1")).json
    assert gone["count"] == 4
    assert gone["etag"] != counts[-1]["etag"]
    assert (await alice.keys("DELETE", version, ROOM, "s1")).json == gone, "nothing has changed"
    assert (await alice.keys("DELETE", version, ROOM)).json["count"] == 2
    assert (await alice.keys("GET", version)).json == {"rooms": {OTHER: other}}
    assert (await alice.keys("DELETE", version)).json["count"] == 0
    assert (await alice.keys("GET", version)).json == {"rooms": {}}


WORST_TO_BEST = [
    key("a", verified=False, index=1, forwarded=0),
    key("b", verified=True, index=9, forwarded=9),
    key("c", verified=True, index=9, forwarded=8),
    key("d", verified=True, index=8, forwarded=99),
]


@pytest.mark.parametrize("order", list(permutations(range(4))), ids=str)
@pytest_twisted.ensureDeferred
async def test_the_better_key_stays(server: Server, order: tuple[int, ...]) -> None:
    """ "Server-side key backups": verified keys, then those from an earlier message on, then those less forwarded."""
    alice = await user(server)
    version = await alice.create()
    best, etag = -1, ""
    for rank in order:
        reply = (await alice.keys("PUT", version, ROOM, "s", body=WORST_TO_BEST[rank])).json
        assert reply["count"] == 1
        assert (reply["etag"] != etag) is (rank > best), "the etag changes with what is stored, and only then"
        best, etag = max(best, rank), reply["etag"]
        assert (await alice.keys("GET", version, ROOM, "s")).json == WORST_TO_BEST[best]
    equal = {**WORST_TO_BEST[3], "session_data": {"ciphertext": "no better"}}
    assert (await alice.keys("PUT", version, ROOM, "s", body=equal)).json["etag"] == etag
    assert (await alice.keys("GET", version, ROOM, "s")).json == WORST_TO_BEST[3]


def rank_of(stored: dict[str, Any]) -> tuple[bool, int, int]:
    return not stored["is_verified"], stored["first_message_index"], stored["forwarded_count"]


UPLOADS = st.lists(
    st.dictionaries(
        st.sampled_from(["s1", "s2", "s3"]),
        st.builds(key, st.text("abc", max_size=3), st.integers(0, 2), st.integers(0, 2), st.booleans()),
        max_size=3,
    ),
    min_size=1,
    max_size=6,
)


@pytest.mark.parametrize("seed", range(3))
@pytest_twisted.ensureDeferred
async def test_any_uploads_leave_the_best_of_each(server: Server, seed: int) -> None:
    alice = await user(server)
    made: list[Any] = []

    @settings(max_examples=6, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(UPLOADS)
    def collect(uploads: Any) -> None:
        made.append(uploads)

    collect()
    for uploads in made[seed * 2 : seed * 2 + 2]:
        version = await alice.create()
        model: dict[str, Any] = {}
        etag = (await alice.info()).json["etag"]
        for upload in uploads:
            before = dict(model)
            for name, data in upload.items():
                if name not in model or rank_of(data) < rank_of(model[name]):
                    model[name] = data
            told = (await alice.keys("PUT", version, ROOM, body={"sessions": upload})).json
            assert told["count"] == len(model)
            assert (told["etag"] != etag) is (model != before)
            etag = told["etag"]
            assert (await alice.keys("GET", version, ROOM)).json == {"sessions": model}


@pytest_twisted.ensureDeferred
async def test_keys_go_into_the_latest_backup_only(server: Server) -> None:
    alice = await user(server)
    assert error(await alice.put("1", {ROOM: {"s": key()}})) == (404, "M_NOT_FOUND"), "there is none"
    old = await alice.create()
    await alice.put(old, {ROOM: {"s": key()}})
    latest = await alice.create()
    bodies: Any = {(): {"rooms": {}}, (ROOM,): {"sessions": {"s": key()}}, (ROOM, "s"): key()}
    for version in (old, "77", "bogus"):
        for place, body in bodies.items():
            reply = await alice.keys("PUT", version, *place, body=body)
            assert error(reply) == (403, "M_WRONG_ROOM_KEYS_VERSION")
            assert reply.json["current_version"] == latest
    assert (await alice.keys("GET", old, ROOM, "s")).json == key(), "old ones are still read"
    assert (await alice.keys("DELETE", old, ROOM)).json["count"] == 0
    for version in ("77", "bogus", "9" * 30):
        for place in ((), (ROOM,), (ROOM, "s")):
            for method in ("GET", "DELETE"):
                assert error(await alice.keys(method, version, *place)) == (404, "M_NOT_FOUND")
    reply = await server.call("GET", "/room_keys/keys", user=alice.token)
    assert error(reply) == (400, "M_MISSING_PARAM")


@pytest_twisted.ensureDeferred
async def test_a_deleted_backup_keeps_nothing(server: Server) -> None:
    alice = await user(server)
    version = await alice.create()
    await alice.put(version, {ROOM: {"s": key()}})
    await server.call("DELETE", f"/room_keys/version/{version}", user=alice.token)
    for place in ((), (ROOM,), (ROOM, "s")):
        assert error(await alice.keys("GET", version, *place)) == (404, "M_NOT_FOUND")
    assert error(await alice.put(version, {ROOM: {"s": key()}})) == (404, "M_NOT_FOUND")
    assert (await alice.keys("GET", await alice.create())).json == {"rooms": {}}
    assert await rows(server) == 0


@pytest.mark.parametrize(
    ("rooms", "expected"),
    [
        ({ROOM: {"s": {**key(), "is_verified": "yes"}}}, (400, "M_BAD_JSON")),
        ({ROOM: {"s": {**key(), "first_message_index": -1}}}, (400, "M_BAD_JSON")),
        ({ROOM: {"s": {**key(), "first_message_index": 2**53}}}, (400, "M_BAD_JSON")),
        ({ROOM: {"s": {**key(), "forwarded_count": True}}}, (400, "M_BAD_JSON")),
        ({ROOM: {"s": {**key(), "session_data": None}}}, (400, "M_BAD_JSON")),
        ({ROOM: {"s": {**key(), "session_data": {"\x00": 1}}}}, (400, "M_INVALID_PARAM")),
        ({ROOM: {"s": {"is_verified": True}}}, (400, "M_MISSING_PARAM")),
        ({ROOM: {"s" * 256: key()}}, (400, "M_INVALID_PARAM")),
        ({ROOM: {"": key()}}, (400, "M_INVALID_PARAM")),
        ({ROOM: {"\x00": key()}}, (400, "M_INVALID_PARAM")),
        ({"room": {"s": key()}}, (400, "M_INVALID_PARAM")),
        ({"!" + "x" * 255: {"s": key()}}, (400, "M_INVALID_PARAM")),
        ({ROOM: {"s": key("x" * 20_000)}}, (413, "M_TOO_LARGE")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_keys_that_are_refused(server: Server, rooms: Any, expected: tuple[int, str]) -> None:
    alice = await user(server)
    version = await alice.create()
    # A good key in the same request is not stored either.
    assert error(await alice.put(version, {OTHER: {"good": key()}, **rooms})) == expected
    assert (await alice.info()).json["count"] == 0


@pytest_twisted.ensureDeferred
async def test_large_uploads_hold_up_nobody(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = await user(server)
    version = await alice.create()
    checked_in = []

    def checked(place: Place, body: dict[str, Any]) -> list[Session]:
        checked_in.append(threading.current_thread())
        return checked_keys(place, body)

    monkeypatch.setattr(key_backup, "checked_keys", checked)
    monkeypatch.setattr(key_backup, "LARGE_BODY", 1000)
    assert (await alice.put(version, {ROOM: {"small": key()}})).json["count"] == 1
    assert (await alice.put(version, {ROOM: {"large": key("x" * 1000)}})).json["count"] == 2
    assert error(await alice.put(version, {"room": {"large": key("x" * 1000)}})) == (400, "M_INVALID_PARAM")
    assert checked_in[0] is threading.main_thread()
    assert threading.main_thread() not in checked_in[1:]


@pytest_twisted.ensureDeferred
async def test_a_backup_has_a_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_backup, "MAX_KEYS", 3)
    alice = await user(server)
    version = await alice.create()
    await alice.put(version, {ROOM: {"1": key(), "2": key()}})
    full = await alice.put(version, {ROOM: {"3": key(), "4": key()}})
    assert error(full) == (413, "M_TOO_LARGE")
    assert (await alice.info()).json["count"] == 2, "all or nothing"
    # Deleting makes room, and what has become shorter always fits.
    size = len(orjson.dumps(key("x" * 100)["session_data"]))
    await alice.keys("DELETE", version)
    monkeypatch.setattr(key_backup, "MAX_BYTES", size)
    assert (await alice.put(version, {ROOM: {"1": key("x" * 100)}})).code == 200
    assert error(await alice.put(version, {ROOM: {"2": key()}})) == (413, "M_TOO_LARGE")
    assert (await alice.put(version, {ROOM: {"1": key("x" * 50, verified=True)}})).code == 200
    assert error(await alice.put(version, {ROOM: {"1": key("x" * 101, 0, verified=True)}})) == (413, "M_TOO_LARGE")
    assert (await alice.put(version, {ROOM: {"1": key("x" * 100, 0, verified=True)}})).code == 200


@pytest_twisted.ensureDeferred
async def test_statements_do_not_grow_with_keys(server: Server) -> None:
    alice = await user(server)
    version = await alice.create()

    def many(rooms: int, index: int) -> dict[str, Any]:
        return {f"!{room}:test": {str(n): key(index=index) for n in range(100)} for room in range(rooms)}

    costs = []
    for rooms, index in ((1, 5), (30, 4), (30, 4)):
        with server.database.counted() as counts:
            assert (await alice.put(version, many(rooms, index))).json["count"] == rooms * 100
        costs.append(counts.sql)
    assert [len(sql) for sql in costs] == [3, 3, 2], "look, store, and count where something changed"
    with server.database.counted() as counts:
        assert len((await alice.keys("GET", version)).json["rooms"]) == 30
        assert len((await alice.keys("GET", version, "!3:test")).json["sessions"]) == 100
    assert counts.statements_read == 4


@pytest_twisted.ensureDeferred
async def test_uploads_at_the_same_time_lose_nothing(server: Server) -> None:
    alice = await user(server)
    version = await alice.create()
    uploads = [
        alice.put(version, {ROOM: {f"{n}": key(), "shared": key(str(n), index=50 - n)}, f"!{n}": {"s": key()}})
        for n in range(30)
    ]
    replies = await gatherResults([Deferred.fromCoroutine(upload) for upload in uploads])
    assert [reply.code for reply in replies] == [200] * 30
    assert len({reply.json["etag"] for reply in replies}) == 30
    held = (await alice.keys("GET", version)).json["rooms"]
    assert set(held[ROOM]["sessions"]) == {"shared", *(str(n) for n in range(30))}
    assert held[ROOM]["sessions"]["shared"] == key("29", index=21)
    assert (await alice.info()).json["count"] == 61 == sum(len(room["sessions"]) for room in held.values())


@pytest_twisted.ensureDeferred
async def test_two_processes_lose_nothing_either(server: Server) -> None:
    """One process has the queue; should there be two for a moment, the database keeps them apart."""
    alice = await user(server)
    version = await alice.create()
    other = Server(server.database)
    second = Client(other, alice.token)
    uploads = [client.put(version, {ROOM: {f"{n}": key()}}) for n in range(8) for client in (alice, second)]
    replies = await gatherResults([Deferred.fromCoroutine(upload) for upload in uploads])
    assert [reply.code for reply in replies] == [200] * 16
    assert (await alice.info()).json["count"] == 8 == len((await alice.keys("GET", version, ROOM)).json["sessions"])


@pytest_twisted.ensureDeferred
async def test_deactivation_takes_backups_away(server: Server) -> None:
    alice, bob = await user(server), await user(server, "bob")
    for client in (alice, bob):
        await client.put(await client.create(), {ROOM: {"s": key()}})
    auth = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "password"}
    reply = await server.call("POST", "/account/deactivate", {"auth": auth}, alice.token)
    assert reply.code == 200
    assert await rows(server) == 1
    assert (await bob.info()).json["count"] == 1


@pytest_twisted.ensureDeferred
async def test_old_clients_have_strings(server: Server) -> None:
    """They are as opaque as the objects that the description wants today."""
    alice = await user(server)
    body = {"algorithm": "m.megolm_backup.v1", "auth_data": "opaque"}
    reply = await server.call("POST", "/room_keys/version", body, alice.token)
    version = reply.json["version"]
    again = {**body, "version": int(version)}
    assert (await server.call("PUT", f"/room_keys/version/{version}", again, alice.token)).code == 200
    await alice.keys("PUT", version, ROOM, "s", body={**key(), "session_data": "opaque"})
    assert (await alice.info()).json["auth_data"] == "opaque"
    assert (await alice.keys("GET", version, ROOM, "s")).json["session_data"] == "opaque"


async def rows(server: Server, table: str = "key_backup_sessions") -> int:
    def count(txn: Any) -> int:
        txn.execute(f"SELECT count(*) FROM {table}")
        return int(txn.one()[0])

    return await server.database.read("test.count", count)
