"""The policy server that a homeserver may be: what it signs for whom, and what it refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_twisted
from signedjson.key import encode_signing_key_base64, generate_signing_key
from signedjson.sign import verify_signed_json

from synapse.api.errors import MatrixError
from synapse.config import ConfigError, from_options
from synapse.events.redaction import redact
from synapse.handlers.doors.policy import PolicyJudge, PolicyRules, PolicyService
from synapse.handlers.event_creation import Draft
from synapse.handlers.policy_server import KEY_ID
from synapse.storage.pool import PoolSettings
from tests.rest.people import Person, person
from tests.support.homeserver import OPTIONS, TestServer, homeserver
from tests.support.postgres import SERVER_NAME


def key_file(directory: Path) -> str:
    path = directory / "policy.key"
    path.write_text(f"ed25519 whatever {encode_signing_key_base64(generate_signing_key('0'))}\n")
    return str(path)


@asynccontextmanager
async def policed(
    settings: PoolSettings, directory: Path, **rules: Any
) -> AsyncIterator[tuple[TestServer, Person, str]]:
    """A server that is a policy server, Alice, and a room of hers that it looks after."""
    options = {"enabled": True, "signing_key_path": key_file(directory), **rules}
    async with homeserver(settings, policy_server=options) as hs:
        alice = await person(hs, "alice")
        room = await alice.room()
        _, keys = await hs.client.get("/.well-known/matrix/policy_server")
        await alice.state(room, "m.room.policy", via=SERVER_NAME, public_keys=keys["public_keys"])
        yield hs, alice, room


def service(hs: TestServer) -> PolicyService:
    found = hs.hs.doors.policy
    assert found is not None
    return found


async def refusal(hs: TestServer, body: Any, origin: str = "far") -> tuple[int, str]:
    with pytest.raises(MatrixError) as caught:
        await service(hs).answer(origin, body if isinstance(body, bytes) else orjson.dumps(body))
    return caught.value.code, caught.value.errcode


async def raw_event(hs: TestServer, room: str, sender: str, event_type: str = "m.room.message", **content: Any) -> Any:
    event = await hs.hs.rooms.creation.rehearse(Draft(room, sender, event_type, content))
    return dict(event.raw)


@pytest_twisted.ensureDeferred
async def test_own_events_are_signed_or_refused(database_settings: PoolSettings, tmp_path: Path) -> None:
    async with policed(database_settings, tmp_path, blocked_words=["casino"]) as (hs, alice, room):
        said = await alice.say(room, "hello")
        stored = await hs.hs.rooms.events.get(said)
        assert stored is not None
        signed = {"signatures": stored.event.raw["signatures"], **redact(stored.event.raw, stored.event.room_version)}
        verify_signed_json(signed, SERVER_NAME, _verify_key(hs))
        body = {"msgtype": "m.text", "body": "Come to the CASINO!"}
        code, error = await alice.ask("PUT", f"/rooms/{room}/send/m.room.message/1", body)
        assert (code, error["errcode"]) == (400, "M_FORBIDDEN")
        await alice.state(room, "m.room.policy")  # which needs nobody's word
        await alice.say(room, "casino")


def _verify_key(hs: TestServer) -> Any:
    key: Any = service(hs)._key.verify_key
    key.alg, key.version = "ed25519", "policy_server"
    return key


@pytest_twisted.ensureDeferred
async def test_a_room_that_chose_a_server_which_is_none_is_silent(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as hs:
        assert (await hs.client.get("/.well-known/matrix/policy_server"))[0] == 404
        alice = await person(hs, "alice")
        room = await alice.room()
        await alice.state(room, "m.room.policy", via=SERVER_NAME, public_keys={"ed25519": "A" * 43})
        assert await alice.refused("PUT", f"/rooms/{room}/send/m.room.message/1", {"body": "x"}) == (403, "M_FORBIDDEN")


@pytest_twisted.ensureDeferred
async def test_what_is_asked_for_from_outside(database_settings: PoolSettings, tmp_path: Path) -> None:
    async with policed(database_settings, tmp_path, blocked_words=["casino"]) as (hs, alice, room):
        raw = await raw_event(hs, room, alice.id, body="hello")
        signature = (await service(hs).answer("far", orjson.dumps(raw)))[SERVER_NAME][KEY_ID]
        assert len(signature) == 86
        assert await refusal(hs, b"{") == (400, "M_NOT_JSON")
        assert await refusal(hs, []) == (400, "M_BAD_JSON")
        assert await refusal(hs, {"room_id": "nowhere"}) == (400, "M_BAD_JSON")
        assert await refusal(hs, {**raw, "depth": 1.5}) == (400, "M_BAD_JSON")
        assert await refusal(hs, {**raw, "type": "x" * 300}) == (400, "M_BAD_JSON")
        assert await refusal(hs, {**raw, "content": {"body": "something else"}}) == (400, "M_FORBIDDEN")
        bad = await raw_event(hs, room, alice.id, body="the casino")
        assert await refusal(hs, bad) == (400, "M_FORBIDDEN")
        other = await raw_event(hs, await alice.room(), alice.id, body="hello")
        assert await refusal(hs, other) == (404, "M_NOT_FOUND"), "a room that has chosen nobody"
        await alice.state(room, "m.room.server_acl", allow=["*"], deny=["far"])
        assert await refusal(hs, raw) == (403, "M_FORBIDDEN")
        await service(hs).answer("near", orjson.dumps(raw))


@pytest_twisted.ensureDeferred
async def test_received_events_are_asked_about(database_settings: PoolSettings, tmp_path: Path) -> None:
    async with policed(database_settings, tmp_path, blocked_words=["casino"]) as (hs, alice, room):
        creation, policies = hs.hs.rooms.creation, hs.hs.rooms.policy_servers
        good = await creation.rehearse(Draft(room, alice.id, "m.room.message", {"body": "hello"}))
        bad = await creation.rehearse(Draft(room, alice.id, "m.room.message", {"body": "casino"}))
        signed = await policies.check_received(good)
        assert KEY_ID in signed.raw["signatures"][SERVER_NAME]
        assert await policies.check_received(signed) is signed, "which needs no further word"
        with pytest.raises(MatrixError):
            await policies.check_received(bad)
        state = await hs.hs.rooms.state.current(room, [("m.room.policy", "")])
        assert await policies.objection(good, state) is None
        assert "policy" in str(await policies.objection(bad, state))


def judged(content: dict[str, Any], *, kind: str = "m.room.message", sender: str = "@a:good", **rules: Any) -> bool:
    """Whether it may be sent."""
    event = {"type": kind, "sender": sender, "content": content}
    return PolicyJudge(PolicyRules(**rules)).objection(event) is None


def test_rules() -> None:
    words = {"blocked_words": ["casino", " free  coins", ""]}
    assert judged({"body": "anything"})
    assert not judged({"body": "a CaSiNo"}, **words)
    assert not judged({"body": "\uff43asino"}, **words), "in full width"
    assert judged({"body": "casinos"}, **words), "which is another word"
    assert not judged({"m.new_content": {"parts": ["x", "casino"]}}, **words)
    assert judged({"ciphertext": "casino"}, kind="m.room.encrypted", **words)
    assert not judged({"name": "the casino"}, kind="m.room.name", **words)
    servers = {"blocked_servers": ["*.spam", "bad"]}
    assert not judged({}, sender="@a:www.spam", **servers)
    assert not judged({}, sender="@a:bad:8448", **servers)
    assert judged({}, sender="@a:good", **servers)
    assert judged({"membership": "leave"}, kind="m.room.member", sender="@a:bad", **servers)
    assert not judged({"membership": "join"}, kind="m.room.member", sender="@a:bad", **servers)
    assert judged({"body": "x" * 10}, max_body_bytes=10)
    assert not judged({"body": "ä" * 6}, max_body_bytes=10)
    assert judged({"m.mentions": {"user_ids": ["@a:b"]}}, max_mentions=1)
    assert not judged({"m.mentions": {"user_ids": ["@a:b", "@c:d"]}}, max_mentions=1)
    assert judged({"m.mentions": {"user_ids": "@a:b"}}, max_mentions=1)


def test_mistakes_in_the_configuration(tmp_path: Path) -> None:
    for path in (None, str(tmp_path / "nothing"), OPTIONS["signing_key_path"]):
        policy = {"enabled": True, **({} if path is None else {"signing_key_path": path})}
        with pytest.raises(ConfigError, match=r"policy_server\.signing_key_path"):
            from_options({**OPTIONS, "database": {"name": "psycopg2"}, "policy_server": policy})
