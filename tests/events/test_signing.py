"""Hashes and signatures: the vectors of the appendices, and what may and may not change without breaking them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signedjson.key import generate_signing_key, get_verify_key
from signedjson.sign import sign_json

from synapse.api.room_versions import ROOM_VERSIONS, room_version
from synapse.events import hashes, signing
from synapse.events.event import Event
from synapse.events.redaction import redact
from tests.events.factory import ALICE, BOB, DAVE, KEY, SERVER, usual_room

V1 = room_version("1")
ALL = list(ROOM_VERSIONS)

MINIMAL: dict[str, Any] = {
    "room_id": "!x:domain",
    "sender": "@a:domain",
    "origin": "domain",
    "origin_server_ts": 1000000,
    "signatures": {},
    "hashes": {},
    "type": "X",
    "content": {},
    "prev_events": [],
    "auth_events": [],
    "depth": 3,
    "unsigned": {"age_ts": 1000000},
}
WITH_CONTENT: dict[str, Any] = {
    "content": {"body": "Here is the message content"},
    "event_id": "$0:domain",
    "origin": "domain",
    "origin_server_ts": 1000000,
    "type": "m.room.message",
    "room_id": "!r:domain",
    "sender": "@u:domain",
    "signatures": {},
    "unsigned": {"age_ts": 1000000},
}
EVENT_VECTORS = [
    (
        MINIMAL,
        "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
        "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
    ),
    (
        WITH_CONTENT,
        "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
        "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
    ),
]


@pytest.mark.parametrize(("event", "content_hash", "signature"), EVENT_VECTORS)
def test_event_vectors(event: dict[str, Any], content_hash: str, signature: str) -> None:
    assert hashes.content_hash(event, V1) == content_hash
    hashed = {**event, "hashes": {"sha256": content_hash}}
    signed = signing.add_signature(hashed, V1, "domain", KEY)
    assert signed["signatures"] == {"domain": {"ed25519:1": signature}}
    assert hashes.has_valid_content_hash(signed, V1)
    assert event["signatures"] == {}


@pytest.mark.parametrize(
    ("value", "signature"),
    [
        ({}, "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
        (
            {"one": 1, "two": "Two"},
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ],
)
def test_json_vectors(value: dict[str, Any], signature: str) -> None:
    assert sign_json(dict(value), "domain", KEY)["signatures"] == {"domain": {"ed25519:1": signature}}
    assert signing.signature_over(hashes.canonical_bytes(value, V1), KEY) == signature


def verify(event: dict[str, Any], version: str, server: str = SERVER) -> None:
    rules = room_version(version)
    for signature in signing.signatures_by(event, server).values():
        signing.verify(hashes.essential_bytes(event, rules), signature, get_verify_key(KEY))


@pytest.mark.parametrize("version", ALL)
class TestBuiltEvents:
    def event(self, version: str) -> Event:
        return usual_room(version).make(BOB, "m.room.message", {"body": "x"})

    def test_are_valid(self, version: str) -> None:
        event = self.event(version)
        assert signing.signatures_by(event.raw, SERVER)
        verify(event.raw, version)
        assert hashes.has_valid_content_hash(event.raw, event.room_version)
        assert hashes.event_id_of(event.raw, event.room_version) == event.event_id

    def test_signature_and_id_survive_redaction_but_the_content_hash_does_not(self, version: str) -> None:
        event = self.event(version)
        redacted = event.redacted()
        verify(redacted.raw, version)
        assert hashes.event_id_of(redacted.raw, event.room_version) == event.event_id
        assert not hashes.has_valid_content_hash(redacted.raw, event.room_version)

    def test_unsigned_and_further_signatures_change_nothing(self, version: str) -> None:
        event = self.event(version)
        more = signing.add_signature({**event.raw, "unsigned": {"age": 1}}, event.room_version, "b.example", KEY)
        verify(more, version)
        verify(more, version, "b.example")
        assert hashes.has_valid_content_hash(more, event.room_version)
        assert hashes.event_id_of(more, event.room_version) == event.event_id
        assert event.raw["signatures"].keys() == {SERVER}

    def test_everything_else_does(self, version: str) -> None:
        event = self.event(version)
        for key, value in (("sender", ALICE), ("depth", 99), ("origin_server_ts", 1), ("state_key", "")):
            changed = {**event.raw, key: value}
            with pytest.raises(signing.SignatureError):
                verify(changed, version)
            assert not hashes.has_valid_content_hash(changed, event.room_version)
        body = {**event.raw, "content": {"body": "y"}}
        verify(body, version)
        assert not hashes.has_valid_content_hash(body, event.room_version)


def test_ids_by_version() -> None:
    assert usual_room("1").create.event_id.endswith(":" + SERVER)
    for version in ALL[2:]:
        event_id = usual_room(version).make(BOB, "m.room.message", {}).event_id
        assert len(event_id) == 44
    standard = "".join(usual_room("3").make(BOB, "x", {"n": n}).event_id[1:] for n in range(20))
    url_safe = "".join(usual_room("4").make(BOB, "x", {"n": n}).event_id[1:] for n in range(20))
    assert set("+/") & set(standard)
    assert not set("-_") & set(standard)
    assert set("-_") & set(url_safe)
    assert not set("+/") & set(url_safe)


@pytest.mark.parametrize("claimed", [None, 1, "", "x", "é", "A" * 43, []])
def test_wrong_content_hashes(claimed: Any) -> None:
    assert not hashes.has_valid_content_hash({**MINIMAL, "hashes": {"sha256": claimed}}, V1)
    assert not hashes.has_valid_content_hash({**MINIMAL, "hashes": claimed}, V1)


def test_padded_hashes_are_accepted() -> None:
    assert hashes.has_valid_content_hash({**MINIMAL, "hashes": {"sha256": EVENT_VECTORS[0][1] + "="}}, V1)


@pytest.mark.parametrize("signature", ["", "x", "A" * 86, "é", "A" * 10_000])
def test_malformed_signatures_are_wrong(signature: str) -> None:
    with pytest.raises(signing.SignatureError, match="ed25519:1"):
        signing.verify(b"x", signature, get_verify_key(KEY))


def test_signature_of_another_key_is_wrong() -> None:
    other = generate_signing_key("1")
    with pytest.raises(signing.SignatureError):
        signing.verify(b"x", signing.signature_over(b"x", other), get_verify_key(KEY))


def test_signatures_by_ignores_what_it_does_not_understand() -> None:
    keys = {"ed25519:1": "a", "rsa:1": "b", "ed25519:2": 3}
    assert signing.signatures_by({"signatures": {"a": keys}}, "a") == {"ed25519:1": "a"}
    cases: list[dict[str, Any]] = [{}, {"signatures": []}, {"signatures": {"a": []}}, {"signatures": {"b": {}}}]
    for broken in cases:
        assert signing.signatures_by(broken, "a") == {}


@pytest.mark.parametrize("version", ALL)
def test_required_signers(version: str) -> None:
    room = usual_room(version)
    rules = room.version
    by_eve = {**room.make(BOB, "m.room.message", {}).raw, "sender": "@eve:b.example"}
    assert signing.required_signers(by_eve, rules) == ({"b.example", SERVER} if int(version) < 3 else {"b.example"})
    restricted = room.make(DAVE, "m.room.member", {"membership": "join"}, DAVE).raw
    restricted = {**restricted, "content": {"membership": "join", "join_authorised_via_users_server": "@x:c.example"}}
    assert ("c.example" in signing.required_signers(restricted, rules)) is (int(version) >= 8)
    third_party = {**by_eve, "type": "m.room.member", "content": {"membership": "invite", "third_party_invite": {}}}
    assert "b.example" not in signing.required_signers(third_party, rules)


KEYS = ("membership", "join_rule", "users", "redacts", "third_party_invite", "creator", "x")
CONTENTS = st.dictionaries(st.sampled_from(KEYS), st.text(max_size=3) | st.just({"signed": {"a": 1}, "b": 2}))
TYPES = ("m.room.member", "m.room.join_rules", "m.room.power_levels", "m.room.redaction", "m.room.create", "m.room.x")


@given(st.sampled_from(ALL), st.sampled_from(TYPES), st.none() | st.just(BOB), CONTENTS)
def test_signature_and_id_survive_every_redaction(
    version: str, kind: str, state_key: str | None, content: dict[str, Any]
) -> None:
    event = usual_room(version).make(BOB, kind, content, state_key)
    redacted = event.redacted()
    verify(event.raw, version)
    verify(redacted.raw, version)
    assert hashes.event_id_of(redacted.raw, event.room_version) == event.event_id
    whole = {key: value for key, value in event.raw.items() if key in redacted.raw}
    assert hashes.has_valid_content_hash(redacted.raw, event.room_version) is (redacted.raw == event.raw)
    assert whole.keys() == redacted.raw.keys()


@given(st.dictionaries(st.text(), st.text() | st.integers(0, 100), max_size=5), st.sampled_from(ALL))
def test_ids_do_not_depend_on_the_order_of_keys(content: dict[str, Any], version: str) -> None:
    event = usual_room(version).make(BOB, "m.room.message", content)
    shuffled = {key: copy.deepcopy(event.raw[key]) for key in reversed(event.raw)}
    assert hashes.event_id_of(shuffled, event.room_version) == event.event_id
    again = Event.from_json(event.json, event.room_version)
    assert (again.event_id, again.content) == (event.event_id, content)
    assert redact(shuffled, event.room_version) == redact(event.raw, event.room_version)
