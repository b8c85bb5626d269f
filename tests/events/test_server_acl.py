"""Server access lists: the order of the rules, globs, address literals, and that damage lets nobody in."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.events.server_acl import ServerAcl
from tests.events.factory import ALICE, usual_room

TABLE: list[tuple[dict[str, Any], str, bool]] = [
    ({"allow": ["*"]}, "a.example", True),
    ({"allow": ["*"]}, "1.2.3.4", True),
    ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4", False),
    ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4:8448", False),
    ({"allow": ["*"], "allow_ip_literals": False}, "[::1]", False),
    ({"allow": ["*"], "allow_ip_literals": False}, "[::1]:8448", False),
    ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4.example", True),
    ({"allow": ["1.2.3.4"], "allow_ip_literals": False}, "1.2.3.4", False),
    ({"allow": ["1.2.3.4", "[::1]"]}, "[::1]:1", True),
    ({"allow": ["1.2.3.*"]}, "1.2.3.4", True),
    ({"allow": ["*"], "deny": ["evil.com"]}, "evil.com", False),
    ({"allow": ["*"], "deny": ["evil.com"]}, "evil.com:8448", False),
    ({"allow": ["*"], "deny": ["evil.com"]}, "evil.com:1234", False),
    ({"allow": ["*"], "deny": ["evil.com"]}, "EVIL.com", False),
    ({"allow": ["*"], "deny": ["EVIL.com"]}, "evil.com", False),
    ({"allow": ["*"], "deny": ["evil.com"]}, "more.evil.com", True),
    ({"allow": ["*"], "deny": ["*.evil.com"]}, "more.evil.com", False),
    ({"allow": ["*"], "deny": ["*.evil.com"]}, "evil.com", True),
    ({"allow": ["evil.com"], "deny": ["evil.com"]}, "evil.com", False),
    ({"allow": ["a?.example"]}, "ab.example", True),
    ({"allow": ["a?.example"]}, "a.example", False),
    ({"allow": ["a?.example"]}, "abc.example", False),
    ({"allow": ["a.example"]}, "b.example", False),
    ({"allow": ["a.example"]}, "aXexample", False),
    ({"allow": []}, "a.example", False),
    ({}, "a.example", False),
    ({"deny": []}, "a.example", False),
    ({"allow": ["*"]}, "not a server", False),
    ({"allow": ["*"]}, "", False),
]


@pytest.mark.parametrize(("content", "server", "ok"), TABLE)
def test_rules(content: dict[str, Any], server: str, ok: bool) -> None:
    assert ServerAcl(content).allows(server) is ok


MALFORMED: list[tuple[dict[str, Any], bool]] = [
    ({"allow": "*"}, False),
    ({"allow": None}, False),
    ({"allow": {"*": True}}, False),
    ({"allow": [["*"], 1, None]}, False),
    ({"allow": [1, "*"]}, True),
    ({"allow": ["*"], "deny": "evil.com"}, False),
    ({"allow": ["*"], "deny": None}, False),
    ({"allow": ["*"], "deny": [7, None]}, True),
]


@pytest.mark.parametrize(("content", "ok"), MALFORMED)
def test_damage_lets_nobody_in(content: dict[str, Any], ok: bool) -> None:
    assert ServerAcl(content).allows("a.example") is ok


@pytest.mark.parametrize("value", [None, "false", 0, [], {}])
def test_address_literals_are_allowed_unless_the_content_says_false(value: Any) -> None:
    assert ServerAcl({"allow": ["*"], "allow_ip_literals": value}).allows("1.2.3.4")


def test_rooms_without_a_list_keep_nobody_out() -> None:
    room = usual_room()
    assert ServerAcl.of_event(None).allows("1.2.3.4")
    elsewhere = room.make(ALICE, "m.room.server_acl", {"allow": []}, "x")
    assert ServerAcl.of_event(elsewhere).allows("a.example")
    event = room.make(ALICE, "m.room.server_acl", {"allow": ["b.example"]}, "")
    assert ServerAcl.of_event(event).allows("b.example")
    assert not ServerAcl.of_event(event).allows("a.example")


@given(st.lists(st.sampled_from(["a", "b", ".", "*", "?"]), max_size=8), st.text("ab.", min_size=1, max_size=8))
def test_globs_agree_with_regular_expressions(pattern: list[str], host: str) -> None:
    parts = {"*": ".*", "?": "."}
    expression = "".join(parts.get(part, re.escape(part)) for part in pattern)
    assert ServerAcl({"allow": ["".join(pattern)]}).allows(host) is (re.fullmatch(expression, host) is not None)


def test_hostile_globs_take_no_time() -> None:
    assert not ServerAcl({"allow": ["*a?" * 1000 + "b"] * 20}).allows("a" * 230)
