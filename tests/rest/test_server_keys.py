"""The server's published keys, and its version."""

from __future__ import annotations

import pytest_twisted
from canonicaljson import encode_canonical_json
from signedjson.key import decode_verify_key_bytes
from signedjson.sign import verify_signed_json
from twisted.internet.task import Clock
from unpaddedbase64 import decode_base64

from synapse import __version__
from synapse.config.sections import SigningSeed
from synapse.handlers.server_keys import VALID_FOR_MS, ServerKeys
from synapse.rest.federation.version import FederationVersion
from synapse.rest.key.server import KeyServer
from tests.rest.driver import Driver

SEEDS = [SigningSeed("ed25519", "a_one", b"\x01" * 32), SigningSeed("ed25519", "two", b"\x02" * 32)]


@pytest_twisted.ensureDeferred
async def test_keys_are_published_under_their_own_signatures() -> None:
    clock = Clock()
    clock.advance(1_700_000_000)
    driver = Driver(KeyServer(ServerKeys("test", SEEDS, clock)))
    reply = await driver.call("GET", "/_matrix/key/v2/server")
    assert reply.code == 200
    keys = reply.json
    assert keys["server_name"] == "test"
    assert keys["valid_until_ts"] == 1_700_000_000_000 + VALID_FOR_MS
    assert keys["old_verify_keys"] == {}
    assert set(keys["verify_keys"]) == {"ed25519:a_one", "ed25519:two"}
    for key_id, key in keys["verify_keys"].items():
        verify_signed_json(keys, "test", decode_verify_key_bytes(key_id, decode_base64(key["key"])))
    for path in ("/_matrix/key/v2/server/", "/_matrix/key/v2/server/ed25519:two"):
        assert (await driver.call("GET", path)).json == keys


@pytest_twisted.ensureDeferred
async def test_they_are_sent_as_they_were_signed() -> None:
    """In canonical JSON, for those who check the signature over what they received, less the signatures."""
    reply = await Driver(KeyServer(ServerKeys("test", SEEDS, Clock()))).call("GET", "/_matrix/key/v2/server")
    assert reply.body == encode_canonical_json(reply.json)


@pytest_twisted.ensureDeferred
async def test_they_are_signed_anew_before_they_expire() -> None:
    clock = Clock()
    driver = Driver(KeyServer(ServerKeys("test", SEEDS, clock)))
    first = (await driver.call("GET", "/_matrix/key/v2/server")).json
    clock.advance(3599)
    assert (await driver.call("GET", "/_matrix/key/v2/server")).json == first
    clock.advance(1)
    assert (await driver.call("GET", "/_matrix/key/v2/server")).json["valid_until_ts"] == VALID_FOR_MS + 3_600_000


@pytest_twisted.ensureDeferred
async def test_the_version_is_told() -> None:
    reply = await Driver(FederationVersion()).call("GET", "/_matrix/federation/v1/version")
    assert reply.json == {"server": {"name": "Synapse", "version": __version__}}
