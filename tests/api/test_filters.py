"""Filters: what they let through, and which of them are refused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.api.errors import MatrixError
from synapse.api.filters import (
    MAX_ENTRIES,
    MAX_LIMIT,
    Filter,
    RoomEventFilter,
    TypePatterns,
    only_fields,
    parse_path,
    parse_room_event_filter,
)
from tests.events.factory import BOB, usual_room

EXAMPLE = {
    "event_fields": ["type", "content", "sender"],
    "event_format": "client",
    "presence": {"not_senders": ["@alice:example.com"], "types": ["m.presence"]},
    "room": {
        "ephemeral": {
            "not_rooms": ["!726s6s6q:example.com"],
            "not_senders": ["@spam:example.com"],
            "types": ["m.receipt", "m.typing"],
        },
        "state": {"not_rooms": ["!726s6s6q:example.com"], "types": ["m.room.*"]},
        "timeline": {
            "limit": 10,
            "not_rooms": ["!726s6s6q:example.com"],
            "not_senders": ["@spam:example.com"],
            "types": ["m.room.message"],
        },
    },
}


@dataclass
class Thing:
    type: str = "m.room.message"
    sender: str = "@a:b"
    room_id: str = "!r:b"
    contains_url: bool = False


def test_the_example_of_the_specification() -> None:
    parsed = Filter.parse(EXAMPLE)
    assert parsed.event_fields == (("type",), ("content",), ("sender",))
    assert not parsed.federation_format
    assert parsed.presence.wants("m.presence", "@bob:example.com")
    assert not parsed.presence.wants("m.presence", "@alice:example.com")
    assert not parsed.presence.wants("m.other", "@bob:example.com")
    assert parsed.room.timeline.limit == 10
    assert parsed.room.state.matches(Thing("m.room.name"))
    assert not parsed.room.state.matches(Thing("m.roomname"))
    assert not parsed.room.timeline.matches(Thing(room_id="!726s6s6q:example.com"))
    assert not parsed.room.timeline.matches(Thing(sender="@spam:example.com"))
    assert parsed.room.account_data.allows_all_events


def test_empty_filter_lets_everything_through() -> None:
    parsed = Filter.parse({})
    assert parsed == Filter()
    assert parsed.event_fields is None
    assert parsed.room.timeline.matches(Thing())
    assert parsed.room.timeline.allows_all_events
    assert parsed.room.room_matches("!x:y")


ROWS: list[tuple[dict[str, Any], Thing, bool]] = [
    ({"types": []}, Thing(), False),
    ({"types": ["*"]}, Thing(), True),
    ({"types": ["m.room.message"], "not_types": ["m.*"]}, Thing(), False),
    ({"senders": []}, Thing(), False),
    ({"senders": ["@a:b"]}, Thing(), True),
    ({"senders": ["@a:b"], "not_senders": ["@a:b"]}, Thing(), False),
    ({"rooms": ["!r:b"]}, Thing(), True),
    ({"rooms": ["!s:b"]}, Thing(), False),
    ({"rooms": ["!r:b"], "not_rooms": ["!r:b"]}, Thing(), False),
    ({"contains_url": True}, Thing(), False),
    ({"contains_url": True}, Thing(contains_url=True), True),
    ({"contains_url": False}, Thing(), True),
    ({"contains_url": False}, Thing(contains_url=True), False),
    ({"contains_url": None, "types": None, "limit": None}, Thing(), True),
]


@pytest.mark.parametrize(("definition", "thing", "ok"), ROWS)
def test_room_event_filters(definition: dict[str, Any], thing: Thing, ok: bool) -> None:
    parsed = parse_room_event_filter(definition)
    assert parsed.matches(thing) is ok
    if parsed.allows_all_events and parsed.room_matches(thing.room_id):
        assert ok


def test_limits() -> None:
    assert parse_room_event_filter({}).limit == 10
    assert parse_room_event_filter({"limit": 1}).limit == 1
    assert parse_room_event_filter({"limit": 10**6}).limit == MAX_LIMIT


def test_flags() -> None:
    names = ("lazy_load_members", "include_redundant_members", "unread_thread_notifications")
    parsed = parse_room_event_filter(dict.fromkeys(names, True))
    assert all(getattr(parsed, name) for name in names)
    assert not any(getattr(RoomEventFilter(), name) for name in names)
    assert Filter.parse({"room": {"include_leave": True}}).room.include_leave
    assert Filter.parse({"event_format": "federation"}).federation_format


def test_closed_filters() -> None:
    assert parse_room_event_filter({"types": []}).is_closed
    assert parse_room_event_filter({"senders": []}).is_closed
    assert not parse_room_event_filter({"not_types": ["*"]}).is_closed


@pytest.mark.parametrize(
    "bad",
    [
        [],
        "x",
        None,
        {"event_format": "other"},
        {"event_format": 1},
        {"event_fields": "type"},
        {"event_fields": [1]},
        {"presence": []},
        {"room": {"timeline": {"limit": -1}}},
        {"room": {"timeline": {"limit": True}}},
        {"room": {"timeline": {"limit": 1.5}}},
        {"room": {"timeline": {"types": "m.room.message"}}},
        {"room": {"timeline": {"types": [None]}}},
        {"room": {"timeline": {"senders": ["bob"]}}},
        {"room": {"timeline": {"not_rooms": ["bob"]}}},
        {"room": {"rooms": ["bob"]}},
        {"room": {"include_leave": "yes"}},
        {"room": {"state": {"lazy_load_members": 1}}},
        {"room": {"timeline": {"types": ["x"] * (MAX_ENTRIES + 1)}}},
    ],
)
def test_refused(bad: Any) -> None:
    with pytest.raises(MatrixError) as caught:
        Filter.parse(bad)
    assert (caught.value.code, caught.value.errcode) == (400, "M_INVALID_PARAM")


@given(st.lists(st.sampled_from(["a", "b", "*"]), max_size=8), st.text("ab", max_size=8))
def test_wildcards_agree_with_regular_expressions(pattern: list[str], text: str) -> None:
    expression = "".join(".*" if part == "*" else part for part in pattern)
    assert TypePatterns(["".join(pattern)]).match(text) is (re.fullmatch(expression, text) is not None)


def test_hostile_wildcards_take_no_time() -> None:
    assert not TypePatterns(["*a" * 120 + "*b"]).match("a" * 255)


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("content.body", ("content", "body")),
        (r"content.m\.relates_to", ("content", "m.relates_to")),
        (r"content.m\\foo", ("content", r"m\foo")),
        (r"a\x", (r"a\x",)),
        ("a\\", ("a\\",)),
        ("", ("",)),
        ("a..b", ("a", "", "b")),
    ],
)
def test_paths(path: str, keys: tuple[str, ...]) -> None:
    assert parse_path(path) == keys


def test_only_fields() -> None:
    event = {"type": "t", "content": {"body": "b", "m.x": {"y": 1, "z": 2}}, "sender": "s"}
    chosen = only_fields(event, (("type",), ("content", "m.x", "y"), ("content", "nothing"), ("sender", "x")))
    assert chosen == {"type": "t", "content": {"m.x": {"y": 1}}}
    both = only_fields(event, (("content",), ("content", "body")))
    assert both == {"content": event["content"]}
    assert event["content"] == {"body": "b", "m.x": {"y": 1, "z": 2}}


def test_events_are_event_like() -> None:
    room = usual_room()
    picture = room.make(BOB, "m.room.message", {"url": "mxc://a/b"})
    pictures = parse_room_event_filter({"contains_url": True, "senders": [BOB]})
    assert pictures.matches(picture)
    assert not pictures.matches(room.make(BOB, "m.room.message", {}))
