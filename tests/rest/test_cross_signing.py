"""Cross-signing through its endpoints: who may upload which keys and signatures, and who sees them."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from signedjson.key import encode_verify_key_base64, generate_signing_key
from signedjson.sign import sign_json
from twisted.internet.defer import Deferred, gatherResults

from synapse.replication.streams import PrivateDeviceListRow
from synapse.storage.database import Database
from tests.rest.accounts import Server, error

ALICE, BOB = "@alice:test", "@bob:test"
UPLOAD, SIGN = "/keys/device_signing/upload", "/keys/signatures/upload"
AUTH = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "alice"}, "password": "password"}


class Key:
    """A key pair of Ed25519, in the hand of its user."""

    def __init__(self, user: str, name: str | None = None) -> None:
        self._key = generate_signing_key("x")
        self.user = user
        self.public = encode_verify_key_base64(self._key.verify_key)
        self._key.version = self.public if name is None else name
        self.id = f"ed25519:{self._key.version}"

    def sign(self, value: dict[str, Any]) -> dict[str, Any]:
        signed: dict[str, Any] = sign_json({**value}, self.user, self._key)
        return signed

    def signature_of(self, value: dict[str, Any]) -> str:
        return str(self.sign({**value, "signatures": {}})["signatures"][self.user][self.id])

    def as_json(self, usage: str) -> dict[str, Any]:
        return {"user_id": self.user, "usage": [usage], "keys": {self.id: self.public}}


class Identity:
    """A user's three keys, and the key of a device."""

    def __init__(self, user: str = ALICE, device: str = "DEVICE") -> None:
        self.user = user
        self.master, self.self_signing, self.user_signing = Key(user), Key(user), Key(user)
        self.device_id, self.device = device, Key(user, device)

    def body(self, *usages: str) -> dict[str, Any]:
        parts = {
            "master_key": self.master.as_json("master"),
            "self_signing_key": self.master.sign(self.self_signing.as_json("self_signing")),
            "user_signing_key": self.master.sign(self.user_signing.as_json("user_signing")),
        }
        return {name: parts[name] for name in usages or parts}

    def device_keys(self) -> dict[str, Any]:
        return self.device.sign(
            {
                "user_id": self.user,
                "device_id": self.device_id,
                "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
                "keys": {self.device.id: self.device.public},
            }
        )


async def publish(server: Server, identity: Identity, token: str, *usages: str) -> None:
    reply = await server.call("POST", "/keys/upload", {"device_keys": identity.device_keys()}, token)
    assert reply.code == 200, reply
    reply = await server.call("POST", UPLOAD, identity.body(*usages), token)
    assert (reply.code, reply.json) == (200, {})


async def query(server: Server, token: str, *users: str) -> Any:
    reply = await server.call("POST", "/keys/query", {"device_keys": {user: [] for user in users}}, token)
    return reply.json


def told(server: Server) -> list[Any]:
    rows, server.streams["device_lists"].told = server.streams["device_lists"].told, []
    return rows


# -- keys --------------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_keys_are_shown_to_others_but_for_the_user_signing_key(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    identity = Identity()
    await publish(server, identity, alice)
    assert told(server) == [ALICE, ALICE]
    body = identity.body()
    seen = await query(server, bob, ALICE, BOB)
    assert seen["master_keys"] == {ALICE: body["master_key"]}
    assert seen["self_signing_keys"] == {ALICE: body["self_signing_key"]}
    assert seen["user_signing_keys"] == {}
    assert (await query(server, alice, ALICE))["user_signing_keys"] == {ALICE: body["user_signing_key"]}


@pytest_twisted.ensureDeferred
async def test_the_same_keys_again_are_no_news_and_others_need_the_password(server: Server) -> None:
    alice = await server.register("alice")
    first, second = Identity(), Identity()
    await publish(server, first, alice)
    told(server)
    for usages in ((), ("master_key",), ("self_signing_key",)):
        assert (await server.call("POST", UPLOAD, first.body(*usages), alice)).json == {}
    assert told(server) == []
    for body in (second.body(), {"self_signing_key": first.master.sign(Key(ALICE).as_json("self_signing"))}):
        reply = await server.call("POST", UPLOAD, body, alice)
        assert reply.code == 401
        assert reply.json["flows"] == [{"stages": ["m.login.password"]}]
    session = {"session": reply.json["session"]}
    reply = await server.call("POST", UPLOAD, {"auth": {**AUTH, **session, "password": "wrong"}}, alice)
    assert (reply.code, reply.errcode) == (401, "M_FORBIDDEN")
    assert (await query(server, alice, ALICE))["master_keys"] == {ALICE: first.body()["master_key"]}
    reply = await server.call("POST", UPLOAD, {**second.body(), "auth": AUTH}, alice)
    assert (reply.code, reply.json) == (200, {})
    assert (await query(server, alice, ALICE))["master_keys"] == {ALICE: second.body()["master_key"]}


@pytest_twisted.ensureDeferred
async def test_the_session_remembers_which_keys_were_to_be_uploaded(server: Server) -> None:
    alice = await server.register("alice")
    await publish(server, Identity(), alice)
    second = Identity()
    session = (await server.call("POST", UPLOAD, second.body(), alice)).json["session"]
    reply = await server.call("POST", UPLOAD, {"auth": {**AUTH, "session": session}}, alice)
    assert (reply.code, reply.json) == (200, {})
    assert (await query(server, alice, ALICE))["master_keys"] == {ALICE: second.body()["master_key"]}


@pytest_twisted.ensureDeferred
async def test_an_administrator_opens_a_window(server: Server) -> None:
    admin, alice = await server.register("admin"), await server.register("alice")
    path = f"/_synapse/admin/v1/users/{ALICE}/_allow_cross_signing_replacement_without_uia"
    await server.database.write(
        "test", lambda txn: txn.execute("UPDATE users SET admin = true WHERE user_id = '@admin:test'")
    )
    await server.invalidate("access_token", [None])
    assert error(await server.call("POST", path, {}, alice)) == (403, "M_FORBIDDEN")
    assert error(await server.call("POST", path, {}, admin)) == (404, "M_NOT_FOUND")
    await publish(server, Identity(), alice)
    until = (await server.call("POST", path, {}, admin)).json["updatable_without_uia_before_ms"]
    assert until == int(server.clock.seconds() * 1000) + 600_000
    second = Identity()
    assert (await server.call("POST", UPLOAD, second.body(), alice)).code == 200
    assert (await server.call("POST", UPLOAD, Identity().body(), alice)).code == 401, "once"
    await server.call("POST", path, {}, admin)
    server.clock.advance(600)
    assert (await server.call("POST", UPLOAD, Identity().body(), alice)).code == 401, "the time is over"


@pytest_twisted.ensureDeferred
async def test_two_first_sets_at_the_same_time_are_one(server: Server) -> None:
    alice = await server.register("alice")
    uploads = [server.call("POST", UPLOAD, Identity().body(), alice) for _ in range(6)]
    replies = await gatherResults([Deferred.fromCoroutine(upload) for upload in uploads])
    assert sorted(reply.code for reply in replies) == [200, 401, 401, 401, 401, 401]


def _changed(name: str, **changes: Any) -> Any:
    def change(identity: Identity, body: dict[str, Any]) -> None:
        body[name] = {**body[name], **changes}

    return change


def _without_master(identity: Identity, body: dict[str, Any]) -> None:
    del body["master_key"]


def _signed_by_another(identity: Identity, body: dict[str, Any]) -> None:
    key = identity.self_signing.as_json("self_signing")
    wrong = Key(ALICE).signature_of(key)
    body["self_signing_key"] = {**key, "signatures": {ALICE: {identity.master.id: wrong}}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_without_master, "M_MISSING_PARAM"),
        (_changed("master_key", user_id=BOB), "M_INVALID_PARAM"),
        (_changed("master_key", usage=["self_signing"]), "M_INVALID_PARAM"),
        (_changed("master_key", usage=["master", 5]), "M_INVALID_PARAM"),
        (_changed("master_key", usage="master"), "M_INVALID_PARAM"),
        (_changed("master_key", keys={}), "M_INVALID_PARAM"),
        (_changed("master_key", keys={"ed25519:x": "y"}), "M_INVALID_PARAM"),
        (_changed("master_key", keys={"ed25519:AAAA": "AAAA"}), "M_INVALID_PARAM"),
        (_changed("master_key", keys={"ed25519:é": "é"}), "M_INVALID_PARAM"),
        (_changed("master_key", keys={"curve25519:" + "A" * 43: "A" * 43}), "M_INVALID_PARAM"),
        (_changed("master_key", extra=1.5), "M_BAD_JSON"),
        (_changed("master_key", extra=2**53), "M_BAD_JSON"),
        (_changed("master_key", extra="\x00"), "M_INVALID_PARAM"),
        (_changed("master_key", extra="x" * 70_000), "M_INVALID_PARAM"),
        (_changed("master_key", signatures={ALICE: {"ed25519:x": "y" * 70_000}}), "M_INVALID_PARAM"),
        (_changed("master_key", signatures={ALICE: {"ed25519:" + "x" * 5_000: "y"}}), "M_INVALID_PARAM"),
        (_changed("master_key", signatures={ALICE: {"ed25519:x": "\x00"}}), "M_INVALID_PARAM"),
        (_changed("master_key", signatures=[]), "M_BAD_JSON"),
        (_changed("master_key", signatures={ALICE: {"ed25519:x": 5}}), "M_BAD_JSON"),
        (_changed("self_signing_key", signatures={}), "M_INVALID_SIGNATURE"),
        (_changed("self_signing_key", more="than was signed"), "M_INVALID_SIGNATURE"),
        (_changed("user_signing_key", signatures={BOB: {}}), "M_INVALID_SIGNATURE"),
        (_signed_by_another, "M_INVALID_SIGNATURE"),
        (lambda _, body: body.update(master_key=[]), "M_BAD_JSON"),
        (lambda _, body: body.clear(), "M_MISSING_PARAM"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_keys_that_are_refused(server: Server, change: Any, expected: str) -> None:
    alice = await server.register("alice")
    identity = Identity()
    body = identity.body()
    change(identity, body)
    assert error(await server.call("POST", UPLOAD, body, alice)) == (400, expected)
    assert (await query(server, alice, ALICE))["master_keys"] == {}


@pytest_twisted.ensureDeferred
async def test_a_key_and_a_device_have_different_names(server: Server) -> None:
    identity = Identity()
    alice = await server.register("alice", device=identity.self_signing.public)
    assert error(await server.call("POST", UPLOAD, identity.body(), alice)) == (403, "M_FORBIDDEN")
    assert (await server.call("POST", UPLOAD, identity.body("master_key"), alice)).code == 200
    taken = await server.login("alice", device_id=identity.master.public)
    assert error(taken) == (403, "M_FORBIDDEN")
    assert (await server.login("alice", device_id=identity.self_signing.public)).code == 200


@pytest_twisted.ensureDeferred
async def test_another_master_key_takes_the_others_with_it(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    first, second, bobs = Identity(), Identity(), Identity(BOB)
    await publish(server, first, alice)
    await publish(server, bobs, bob)
    assert (await server.call("POST", SIGN, signed_by(first, bobs), alice)).json == {"failures": {}}
    assert (await server.call("POST", SIGN, signed_by(bobs, first, own=False), bob)).json == {"failures": {}}
    body = {**second.body("master_key"), "auth": AUTH}
    assert (await server.call("POST", UPLOAD, body, alice)).code == 200
    seen = await query(server, alice, ALICE, BOB)
    assert seen["master_keys"] == {ALICE: second.body()["master_key"], BOB: bobs.body()["master_key"]}
    assert ALICE not in seen["self_signing_keys"]
    assert seen["user_signing_keys"] == {}
    assert seen["device_keys"][ALICE] == {"DEVICE": {**first.device_keys(), "unsigned": {}}}
    assert (await query(server, bob, ALICE))["master_keys"] == {ALICE: second.body()["master_key"]}


# -- signatures --------------------------------------------------------------------------------------------------------


def signed_by(identity: Identity, other: Identity | None = None, *, own: bool = True) -> dict[str, Any]:
    """What a client uploads that has verified its device, and another user."""
    signed: dict[str, Any] = {}
    if own:
        device = {**identity.device_keys(), "signatures": {}}
        master = identity.master.as_json("master")
        signed[identity.user] = {
            identity.device_id: identity.self_signing.sign(device),
            identity.master.public: identity.device.sign(master),
        }
    if other is not None:
        signed[other.user] = {other.master.public: identity.user_signing.sign(other.master.as_json("master"))}
    return signed


@pytest_twisted.ensureDeferred
async def test_signatures_are_merged_in_and_shown_to_whom_they_concern(server: Server) -> None:
    alice, bob, carol = await server.register("alice"), await server.register("bob"), await server.register("carol")
    identity, bobs = Identity(), Identity(BOB)
    await publish(server, identity, alice)
    await publish(server, bobs, bob)
    told(server)
    signed = signed_by(identity, bobs)
    assert (await server.call("POST", SIGN, signed, alice)).json == {"failures": {}}
    assert told(server) == [ALICE, PrivateDeviceListRow(ALICE)]
    assert (await server.call("POST", SIGN, signed, alice)).json == {"failures": {}}
    assert told(server) == [], "they are known"
    for viewer in (alice, bob, carol):
        seen = await query(server, viewer, ALICE, BOB)
        on_device = seen["device_keys"][ALICE]["DEVICE"]["signatures"]
        own = identity.device_keys()["signatures"][ALICE]
        assert on_device == {ALICE: {**own, **signed[ALICE]["DEVICE"]["signatures"][ALICE]}}
        assert seen["master_keys"][ALICE] == signed[ALICE][identity.master.public]
        of_bob = bobs.body()["master_key"] if viewer != alice else signed[BOB][bobs.master.public]
        assert seen["master_keys"][BOB] == of_bob


@pytest_twisted.ensureDeferred
async def test_signatures_that_came_with_keys_are_shown_by_the_same_rule(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    identity = Identity()
    device = identity.user_signing.sign(identity.device_keys())
    device["signatures"][BOB] = {"ed25519:B": "x"}
    await server.call("POST", "/keys/upload", {"device_keys": device}, alice)
    body = identity.body()
    body["master_key"] = identity.device.sign(body["master_key"])
    body["master_key"]["signatures"][BOB] = {"ed25519:B": "x"}
    body["master_key"]["unsigned"] = {"a": 1}
    assert (await server.call("POST", UPLOAD, body, alice)).code == 200
    mine = {identity.device.id: identity.device.signature_of(identity.device_keys())}
    secret = {identity.user_signing.id: identity.user_signing.signature_of(identity.device_keys())}
    for viewer, expected in ((alice, {ALICE: {**mine, **secret}}), (bob, {ALICE: mine})):
        seen = await query(server, viewer, ALICE)
        assert seen["device_keys"][ALICE]["DEVICE"]["signatures"] == expected
        assert seen["master_keys"][ALICE] == identity.device.sign(identity.master.as_json("master"))


@pytest_twisted.ensureDeferred
async def test_each_signature_fails_by_itself(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    identity, bobs = Identity(), Identity(BOB)
    await publish(server, identity, alice)
    await publish(server, bobs, bob)
    told(server)
    device, master = identity.device_keys(), bobs.master.as_json("master")
    other = Key(ALICE)
    forged = {**device, "signatures": {ALICE: {identity.self_signing.id: other.signature_of(device)}}}
    body = {
        ALICE: {
            "DEVICE": forged,
            "NONE": device,
            identity.master.public: {**identity.master.as_json("master"), "x": 1},
        },
        BOB: {bobs.master.public: other.sign(master), bobs.self_signing.public: {}, "DEVICE": {}},
        "@nobody:test": {"x": {"signatures": 5}},
    }
    failures = (await server.call("POST", SIGN, body, alice)).json["failures"]
    codes = {user: {key: failure["errcode"] for key, failure in keys.items()} for user, keys in failures.items()}
    invalid, missing = "M_INVALID_SIGNATURE", "M_NOT_FOUND"
    assert codes == {
        ALICE: {"DEVICE": invalid, "NONE": missing, identity.master.public: invalid},
        BOB: {bobs.master.public: invalid, bobs.self_signing.public: missing, "DEVICE": missing},
        "@nobody:test": {"x": "M_BAD_JSON"},
    }
    assert told(server) == []
    body[ALICE] = signed_by(identity)[ALICE]
    assert (await server.call("POST", SIGN, body, alice)).json["failures"].keys() == {BOB, "@nobody:test"}
    assert told(server) == [ALICE], "what is good is stored"


@pytest.mark.parametrize(("by", "code"), [("self_signing", "M_INVALID_SIGNATURE"), ("master", "M_INVALID_SIGNATURE")])
@pytest_twisted.ensureDeferred
async def test_other_users_are_signed_by_the_user_signing_key_only(server: Server, by: str, code: str) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    identity, bobs = Identity(), Identity(BOB)
    await publish(server, identity, alice)
    await publish(server, bobs, bob)
    key: Key = getattr(identity, by)
    body = {BOB: {bobs.master.public: key.sign(bobs.master.as_json("master"))}}
    failures = (await server.call("POST", SIGN, body, alice)).json["failures"]
    assert failures[BOB][bobs.master.public]["errcode"] == code


@pytest_twisted.ensureDeferred
async def test_who_has_no_key_to_sign_with_is_told(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    identity, bobs = Identity(), Identity(BOB)
    await publish(server, identity, alice, "master_key")
    await publish(server, bobs, bob)
    failures = (await server.call("POST", SIGN, signed_by(identity, bobs), alice)).json["failures"]
    assert failures[ALICE]["DEVICE"]["errcode"] == failures[BOB][bobs.master.public]["errcode"] == "M_NOT_FOUND"
    assert failures[ALICE].keys() == {"DEVICE"}, "the device has signed the master key"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([], (400, "M_BAD_JSON")),
        ({"bob": {}}, (400, "M_INVALID_PARAM")),
        ({BOB: []}, (400, "M_BAD_JSON")),
        ({BOB: {"x": 5}}, (400, "M_BAD_JSON")),
        ({BOB: {str(n): {} for n in range(1_001)}}, (413, "M_TOO_LARGE")),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bodies_that_hold_no_signatures(server: Server, body: Any, expected: tuple[int, str]) -> None:
    alice = await server.register("alice")
    assert error(await server.call("POST", SIGN, body, alice)) == expected
    assert (await server.call("POST", SIGN, {}, alice)).json == {"failures": {}}


@pytest.mark.parametrize("signatures", [5, [], {ALICE: 5}, {ALICE: True}, {ALICE: {"ed25519:DEVICE": 5}}])
@pytest_twisted.ensureDeferred
async def test_what_is_no_signature_fails_by_itself(server: Server, signatures: Any) -> None:
    alice = await server.register("alice")
    failures = (await server.call("POST", SIGN, {ALICE: {"DEVICE": {"signatures": signatures}}}, alice)).json[
        "failures"
    ]
    assert failures[ALICE]["DEVICE"]["errcode"] in ("M_BAD_JSON", "M_NOT_FOUND")


@pytest_twisted.ensureDeferred
async def test_signatures_go_with_the_device_and_with_other_keys_for_it(server: Server) -> None:
    alice = await server.register("alice")
    second = (await server.login("alice", device_id="SECOND")).json["access_token"]
    identity = Identity()
    await publish(server, identity, alice)
    identity.device_id, identity.device = "SECOND", Key(ALICE, "SECOND")
    await server.call("POST", "/keys/upload", {"device_keys": identity.device_keys()}, second)
    signed = signed_by(identity)
    assert (await server.call("POST", SIGN, signed, second)).json == {"failures": {}}
    seen = await query(server, alice, ALICE)
    assert identity.self_signing.id in seen["device_keys"][ALICE]["SECOND"]["signatures"][ALICE]
    assert seen["master_keys"][ALICE]["signatures"] == signed[ALICE][identity.master.public]["signatures"]
    again = {**identity.device_keys(), "signatures": {}}
    await server.call("POST", "/keys/upload", {"device_keys": again}, second)
    seen = await query(server, alice, ALICE)
    assert identity.self_signing.id in seen["device_keys"][ALICE]["SECOND"]["signatures"][ALICE], "the same keys"
    identity.device = Key(ALICE, "SECOND")
    await server.call("POST", "/keys/upload", {"device_keys": identity.device_keys()}, second)
    seen = await query(server, alice, ALICE)
    assert seen["device_keys"][ALICE]["SECOND"]["signatures"] == identity.device_keys()["signatures"]
    assert seen["master_keys"][ALICE] == identity.master.as_json("master")
    await server.call("POST", SIGN, signed_by(identity), second)
    await server.accounts.devices.delete(ALICE, ["SECOND"])
    assert (await query(server, alice, ALICE))["master_keys"][ALICE] == identity.master.as_json("master")
    count = "SELECT COUNT(*) FROM key_signatures WHERE key_id LIKE '%SECOND' OR target_id = 'SECOND'"
    assert await _value(server.database, count) == 0


@pytest_twisted.ensureDeferred
async def test_deactivation_takes_everything(server: Server) -> None:
    alice, bob = await server.register("alice"), await server.register("bob")
    identity, bobs = Identity(), Identity(BOB)
    await publish(server, identity, alice)
    await publish(server, bobs, bob)
    await server.call("POST", SIGN, signed_by(identity, bobs), alice)
    await server.call("POST", SIGN, signed_by(bobs, identity, own=False), bob)
    await server.accounts.devices.delete(ALICE, ["DEVICE"])
    told(server)
    await server.accounts.deactivation.deactivate(ALICE, erase=False)
    assert told(server) == [ALICE]
    seen = await query(server, bob, ALICE)
    assert seen["device_keys"] == {ALICE: {}}
    assert seen["master_keys"] == seen["self_signing_keys"] == {}
    assert (
        await _value(server.database, "SELECT COUNT(*) FROM key_signatures WHERE signer_user_id = '@alice:test'") == 0
    )


@pytest_twisted.ensureDeferred
async def test_looking_keys_up_costs_the_same_for_any_number_of_users(server: Server) -> None:
    bob = await server.register("bob")
    users = []
    for number in range(3):
        token = await server.register(f"u{number}")
        users.append(f"@u{number}:test")
        await publish(server, Identity(users[-1]), token)
        with server.database.counted() as counts:
            await query(server, bob, *users)
        assert counts.read["published_keys.of_users"] == 3
        assert counts.statements_written == 0


async def _value(database: Database, sql: str) -> Any:
    def value(txn: Any) -> Any:
        txn.execute(sql)
        return txn.one()[0]

    return await database.read("test", value)
