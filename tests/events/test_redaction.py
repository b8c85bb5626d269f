"""Redaction: what each room version keeps, and that there is nothing more to take away the second time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.api.room_versions import ROOM_VERSIONS, room_version
from synapse.events.redaction import redact

ALL = list(ROOM_VERSIONS)
TOP = {
    "event_id": "$x",
    "type": "m.room.message",
    "room_id": "!x",
    "sender": "@x",
    "state_key": "",
    "content": {"body": "x"},
    "hashes": {"sha256": "x"},
    "signatures": {"a": {}},
    "depth": 1,
    "prev_events": [],
    "prev_state": [],
    "auth_events": [],
    "origin": "a",
    "origin_server_ts": 1,
    "membership": "join",
    "redacts": "$y",
    "unsigned": {},
    "extra": 1,
}


@pytest.mark.parametrize("version", ALL)
def test_top_level_keys(version: str) -> None:
    gone = {"redacts", "unsigned", "extra"}
    if int(version) >= 11:
        gone |= {"prev_state", "origin", "membership"}
    redacted = redact(TOP, room_version(version))
    assert redacted.keys() == TOP.keys() - gone
    assert redacted["content"] == {}
    assert TOP["content"] == {"body": "x"}


LEVELS = ("ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default")
# type, key, first version that keeps it, last one that does
KEPT = [
    ("m.room.member", "membership", 1, 12),
    ("m.room.member", "join_authorised_via_users_server", 9, 12),
    ("m.room.member", "displayname", 99, 0),
    ("m.room.create", "creator", 1, 12),
    ("m.room.create", "anything", 11, 12),
    ("m.room.join_rules", "join_rule", 1, 12),
    ("m.room.join_rules", "allow", 8, 12),
    ("m.room.power_levels", "invite", 11, 12),
    ("m.room.power_levels", "notifications", 99, 0),
    *(("m.room.power_levels", key, 1, 12) for key in LEVELS),
    ("m.room.aliases", "aliases", 1, 5),
    ("m.room.history_visibility", "history_visibility", 1, 12),
    ("m.room.redaction", "redacts", 11, 12),
    ("m.room.message", "body", 99, 0),
    ("m.room.topic", "topic", 99, 0),
    ("m.room.third_party_invite", "public_key", 99, 0),
]


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize(("type", "key", "first", "last"), KEPT)
def test_content(version: str, type: str, key: str, first: int, last: int) -> None:
    event = {"type": type, "content": {key: "value", "more": 1}}
    kept = redact(event, room_version(version))["content"]
    assert (key in kept) is (first <= int(version) <= last)
    assert ("more" in kept) is (type == "m.room.create" and int(version) >= 11)


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("invite", [{"signed": {"token": "t"}, "display_name": "x"}, {"display_name": "x"}, "x", None])
def test_signed_part_of_third_party_invites(version: str, invite: Any) -> None:
    event = {"type": "m.room.member", "content": {"membership": "invite", "third_party_invite": invite}}
    kept = redact(event, room_version(version))["content"]
    if int(version) >= 11 and isinstance(invite, dict):
        signed = {"signed": {"token": "t"}} if "signed" in invite else {}
        assert kept == {"membership": "invite", "third_party_invite": signed}
    else:
        assert kept == {"membership": "invite"}


@pytest.mark.parametrize("event", [{}, {"type": ["x"], "content": {"a": 1}}, {"type": "x", "content": "y"}])
def test_malformed_events(event: dict[str, Any]) -> None:
    for version in ALL:
        assert redact(event, room_version(version))["content"] == {}


values = st.none() | st.integers() | st.text(max_size=3) | st.dictionaries(st.sampled_from(["signed", "a"]), st.none())
contents = st.dictionaries(
    st.sampled_from(["membership", "creator", "redacts", "invite", "allow", "third_party_invite", "x", *LEVELS]), values
)
types = st.sampled_from(sorted({kept[0] for kept in KEPT}))


@given(st.sampled_from(ALL), types, contents, st.sets(st.sampled_from(sorted(TOP))))
def test_redacting_twice_is_redacting_once(version: str, type: str, content: dict[str, Any], keys: set[str]) -> None:
    event = {**{key: TOP[key] for key in keys}, "type": type, "content": content}
    once = redact(event, room_version(version))
    assert redact(once, room_version(version)) == once
    assert once.keys() - {"content"} <= event.keys()
