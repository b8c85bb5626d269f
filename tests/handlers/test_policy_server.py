"""Rooms with a policy server: one that signs, refuses, errs or is away, over real HTTPS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from signedjson.key import generate_signing_key, get_verify_key
from signedjson.sign import verify_signed_json
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from unpaddedbase64 import encode_base64

from synapse.api.errors import MatrixError
from synapse.api.room_versions import RoomVersion, room_version
from synapse.events.signing import add_signature
from synapse.federation.api import FederationApi
from synapse.federation.client import FederationClient
from synapse.federation.discovery import Discovery, SrvAnswer
from synapse.federation.transport import HttpsTransport
from synapse.handlers.event_creation import Draft
from synapse.http.addresses import AddressFilter
from synapse.http.outside import OutsideClient, Trust
from synapse.http.peers import PeerClient
from synapse.storage.database import Database
from tests.support.elsewhere import Asked, Certificates, Elsewhere, Told, elsewhere
from tests.support.reactor import real_reactor
from tests.support.rooms import ALICE, BOB, CAROL, SERVER, SIGNER, RoomProcess, start


class PolicyServer:
    """Signs what it is asked to, unless it is told what to answer."""

    def __init__(self) -> None:
        self.name = ""
        self.key = generate_signing_key("policy_server")
        self.version: RoomVersion = room_version("12")
        self.instead: Told | None = None

    async def answer(self, asked: Asked) -> Told:
        if self.instead is not None:
            return self.instead
        signed = add_signature(asked.json, self.version, self.name, self.key)
        return Told(
            200, {self.name: {"ed25519:policy_server": signed["signatures"][self.name]["ed25519:policy_server"]}}
        )

    @property
    def content(self) -> dict[str, Any]:
        return {"via": self.name, "public_keys": {"ed25519": encode_base64(get_verify_key(self.key).encode())}}

    @property
    def bot(self) -> str:
        return f"@bot:{self.name}"


@asynccontextmanager
async def guarded(
    database: Database, tmp_path: Path, version: str = "12", workers: int = 0
) -> AsyncIterator[tuple[RoomProcess, str, PolicyServer, Elsewhere]]:
    """A process, a room of Alice and Bob with a policy server, and that server."""
    certificates, policy = Certificates(tmp_path), PolicyServer()
    policy.version = room_version(version)
    cluster = await start(database, workers)
    process = cluster.workers[0] if workers else cluster.main
    async with elsewhere(certificates, policy.answer) as server:
        policy.name = server.name
        reactor = real_reactor()
        outside = OutsideClient(reactor, AddressFilter(()), Trust(authorities=(certificates.path,)))
        peers = PeerClient(reactor, AddressFilter(()), lambda _: True, (certificates.path,))
        transport = HttpsTransport(Discovery(lambda: outside, _no_records, Clock()), lambda: peers, reactor)
        client = FederationClient(SERVER, SIGNER.key, transport, reactor)
        process.federation_api = FederationApi(client, deferToThread)
        room_id = await process.room(room_version=version, joined=[BOB])
        await process.creation.send(Draft(room_id, policy.bot, "m.room.member", {"membership": "join"}, policy.bot))
        await process.set(ALICE, room_id, "m.room.policy", policy.content)
        assert server.asked == [], "its own state needs no signature"
        yield process, room_id, policy, server
        peers.close()


async def _no_records(name: str) -> SrvAnswer:
    return SrvAnswer((), 300.0)


async def signatures(process: RoomProcess, event_id: str) -> dict[str, Any]:
    stored = await process.events.get(event_id)
    assert stored is not None
    found: dict[str, Any] = stored.event.raw["signatures"]
    return found


async def refused(doing: Any) -> MatrixError:
    with pytest.raises(MatrixError) as caught:
        await doing
    return caught.value


@pytest.mark.parametrize("version", ["1", "5", "11", "12"])
@pytest_twisted.ensureDeferred
async def test_what_is_sent_is_signed(database: Database, tmp_path: Path, version: str) -> None:
    async with guarded(database, tmp_path, version) as (process, room_id, policy, server):
        said = await process.say(ALICE, room_id)
        assert set(await signatures(process, said)) == {SERVER, policy.name}
        await process.set(ALICE, room_id, "m.room.topic", {"topic": "here"})
        await process.set(ALICE, room_id, "m.room.policy", {"not": "the one that counts"}, "other key")
        await process.creation.create(ALICE, room_id, "m.room.policy", {"no": "state at all"})
        await process.memberships.join(CAROL, room_id)
        await process.redactions.redact(ALICE, room_id, said, {}, "t")
        kinds = [(asked.json["type"], asked.json.get("state_key")) for asked in server.asked]
        assert kinds == [
            ("m.room.message", None),
            ("m.room.topic", ""),
            ("m.room.policy", "other key"),
            ("m.room.policy", None),
            ("m.room.member", CAROL.user_id),
            ("m.room.redaction", None),
        ]
        _check_request(server.asked[0], policy)


def _check_request(asked: Asked, policy: PolicyServer) -> None:
    assert (asked.method, asked.path) == ("POST", "/_matrix/policy/v1/sign")
    scheme, _, text = asked.headers["authorization"].partition(" ")
    fields = dict(field.split("=", 1) for field in text.split(","))
    fields = {name: value.strip('"') for name, value in fields.items()}
    assert (scheme, fields["origin"], fields["destination"]) == ("X-Matrix", SERVER, policy.name)
    request = {
        "method": "POST",
        "uri": asked.path,
        "origin": SERVER,
        "destination": policy.name,
        "content": asked.json,
        "signatures": {SERVER: {fields["key"]: fields["sig"]}},
    }
    verify_signed_json(request, SERVER, get_verify_key(SIGNER.key))
    assert asked.headers["host"] == policy.name


REFUSALS = [
    (Told(400, {"errcode": "M_FORBIDDEN", "error": "This is spam"}), "400 M_FORBIDDEN: This is spam"),
    (Told(403, {"errcode": "M_FORBIDDEN", "error": "Not you"}), "403 M_FORBIDDEN: Not you"),
    (Told(404, {"errcode": "M_NOT_FOUND", "error": "Unknown room"}), "404 M_NOT_FOUND: Unknown room"),
    (Told(429, {"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 7}), "429 M_LIMIT_EXCEEDED"),
    (Told(401, {"errcode": "M_UNKNOWN_TOKEN", "error": "Log out!"}), "403 M_FORBIDDEN: Log out!"),
    (Told(400, {"errcode": "M_UNKNOWN_TOKEN", "error": "Log out!"}), "400 M_FORBIDDEN: Log out!"),
    (Told(500, b"<html>"), "403 M_FORBIDDEN"),
    (Told(302, b"", {"Location": "/elsewhere"}), "403 M_FORBIDDEN"),
    (Told(200, {}), "403 M_FORBIDDEN"),
    (Told(200, b"[]"), "502 M_CONNECTION_FAILED"),
    (Told(200, {"NAME": {"ed25519:policy_server": "AAAA"}}), "403 M_FORBIDDEN"),
    (Told(200, b"x" * (2 << 20)), "502 M_CONNECTION_FAILED"),
]


@pytest_twisted.ensureDeferred
async def test_what_it_does_not_sign_is_not_sent(database: Database, tmp_path: Path) -> None:
    async with guarded(database, tmp_path) as (process, room_id, policy, server):
        before = await process.heads.get(room_id)
        for told, expected in REFUSALS:
            if isinstance(told.body, dict) and "NAME" in told.body:
                told = told._replace(body={policy.name: told.body["NAME"]})
            policy.instead = told
            error = await refused(process.say(BOB, room_id, txn_id="again"))
            assert str(error).startswith(expected), (told, error)
        policy.instead = None
        policy.key = generate_signing_key("policy_server")  # not the one that the room knows
        assert (await refused(process.say(BOB, room_id))).errcode == "M_FORBIDDEN"
        assert await process.heads.get(room_id) == before
        # The room can always do without it.
        await process.set(ALICE, room_id, "m.room.policy", {})
        asked = len(server.asked)
        await process.say(BOB, room_id)
        assert len(server.asked) == asked


@pytest_twisted.ensureDeferred
async def test_a_policy_server_that_is_away(database: Database, tmp_path: Path) -> None:
    async with guarded(database, tmp_path) as (process, room_id, _policy, _server):
        pass
    error = await refused(process.say(BOB, room_id))
    assert (error.code, error.errcode) == (502, "M_CONNECTION_FAILED")
    await process.set(ALICE, room_id, "m.room.policy", {})
    await process.say(BOB, room_id)


@pytest_twisted.ensureDeferred
async def test_it_counts_only_while_somebody_of_it_is_in_the_room(database: Database, tmp_path: Path) -> None:
    async with guarded(database, tmp_path) as (process, room_id, policy, server):
        await process.say(BOB, room_id)
        with database.counted() as counts:
            await process.say(BOB, room_id)
        assert counts.statements_read == 0, counts.sql
        left = Draft(room_id, policy.bot, "m.room.member", {"membership": "leave"}, policy.bot)
        await process.creation.send(left)
        asked = len(server.asked)
        await process.say(BOB, room_id)
        assert len(server.asked) == asked


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"via": 5},
        {"public_keys": {"ed25519": 5}},
        {"public_keys": {}},
        {"via": "not a name!"},
        {"via": "elsewhere"},
    ],
)
@pytest_twisted.ensureDeferred
async def test_rooms_that_use_none(database: Database, tmp_path: Path, content: dict[str, Any]) -> None:
    async with guarded(database, tmp_path) as (process, room_id, policy, server):
        await process.set(ALICE, room_id, "m.room.policy", {**policy.content, **content} if content else {})
        await process.say(BOB, room_id)
        assert server.asked == []


@pytest_twisted.ensureDeferred
async def test_workers_ask_it_too(database: Database, tmp_path: Path) -> None:
    async with guarded(database, tmp_path, workers=1) as (process, room_id, policy, _server):
        said = await process.say(BOB, room_id)
        assert policy.name in await signatures(process, said)
