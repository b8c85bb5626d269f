"""A user's push rules: what clients see, and the operations on them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from synapse.api.errors import MatrixError
from synapse.push import rules
from synapse.push.default_rules import DEFAULT_RULES, USER_ID
from synapse.push.rules import DEFAULT_PROGRAM, NO_RULES, OwnRule, UserRules
from tests.events.factory import ALICE

OVERRIDES = [
    ".m.rule.master",
    ".m.rule.suppress_notices",
    ".m.rule.invite_for_me",
    ".m.rule.member_event",
    ".m.rule.is_user_mention",
    ".m.rule.is_room_mention",
    ".m.rule.tombstone",
    ".m.rule.reaction",
    ".m.rule.room.server_acl",
    ".m.rule.suppress_edits",
]
UNDERRIDES = [
    ".m.rule.call",
    ".m.rule.encrypted_room_one_to_one",
    ".m.rule.room_one_to_one",
    ".m.rule.message",
    ".m.rule.encrypted",
]


def ids(user_rules: UserRules, kind: str) -> list[str]:
    return [rule["rule_id"] for rule in rules.ruleset(user_rules, ALICE)[kind]]


def with_rules(*names: str, kind: str = "override") -> UserRules:
    result = NO_RULES
    for name in reversed(names):
        result = rules.put(result, kind, OwnRule(name, ["notify"], []))
    return result


def test_what_everybody_has() -> None:
    shown = rules.ruleset(NO_RULES, ALICE)
    assert list(shown) == ["override", "content", "room", "sender", "underride"]
    assert ids(NO_RULES, "override") == OVERRIDES
    assert ids(NO_RULES, "underride") == UNDERRIDES
    assert shown["content"] == shown["room"] == shown["sender"] == []
    assert USER_ID not in json.dumps(shown)
    assert shown["override"][2]["conditions"][2] == {"kind": "event_match", "key": "state_key", "pattern": ALICE}
    assert [rule["rule_id"] for rule in shown["override"] if not rule["enabled"]] == [".m.rule.master"]
    assert all(rule["default"] for kind in shown.values() for rule in kind)


def test_defaults_are_not_changed_by_showing_them() -> None:
    rules.ruleset(NO_RULES, ALICE)["override"][2]["conditions"][2]["pattern"] = "x"
    assert DEFAULT_RULES["override"][2]["conditions"][2]["pattern"] == USER_ID


def test_own_rules_stand_between_master_and_the_defaults() -> None:
    assert ids(with_rules("a", "b"), "override") == [OVERRIDES[0], "a", "b", *OVERRIDES[1:]]
    assert ids(with_rules("a", kind="underride"), "underride") == ["a", *UNDERRIDES]


def test_new_rules_are_the_most_important() -> None:
    more = rules.put(with_rules("a", "b"), "override", OwnRule("c", []))
    assert ids(more, "override")[1:4] == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("name", "how", "order"),
    [
        ("x", {"before": "b"}, ["a", "x", "b", "c"]),
        ("x", {"after": "b"}, ["a", "b", "x", "c"]),
        ("x", {"after": "a", "before": "c"}, ["a", "b", "x", "c"]),
        ("a", {"after": "c"}, ["b", "c", "a"]),
        ("c", {"before": "a"}, ["c", "a", "b"]),
        ("b", {}, ["a", "b", "c"]),
    ],
)
def test_positions(name: str, how: dict[str, str], order: list[str]) -> None:
    moved = rules.put(with_rules("a", "b", "c"), "override", OwnRule(name, [], []), **how)
    assert ids(moved, "override")[1 : len(order) + 1] == order


def test_positions_are_relative_to_own_rules_only() -> None:
    for reference in ("nothing", ".m.rule.suppress_notices", "x"):
        with pytest.raises(MatrixError) as caught:
            rules.put(with_rules("a"), "override", OwnRule("x", []), before=reference)
        assert caught.value.errcode == "M_NOT_FOUND"


def test_updating_keeps_a_rule_disabled() -> None:
    off = rules.set_enabled(with_rules("a"), "override", "a", False)
    updated = rules.put(off, "override", OwnRule("a", ["notify"], [{"kind": "x"}]))
    assert rules.get(updated, "override", "a", ALICE) == {
        "rule_id": "a",
        "default": False,
        "enabled": False,
        "actions": ["notify"],
        "conditions": [{"kind": "x"}],
    }


def test_changes_of_default_rules() -> None:
    changed = rules.set_enabled(NO_RULES, "override", ".m.rule.master", True)
    changed = rules.set_actions(changed, "override", ".m.rule.master", ["notify"])
    rule = rules.get(changed, "override", ".m.rule.master", ALICE)
    assert (rule["enabled"], rule["actions"], rule["default"]) == (True, ["notify"], True)
    assert rules.get(NO_RULES, "override", ".m.rule.master", ALICE)["enabled"] is False


def test_changes_of_own_rules() -> None:
    mine = rules.set_actions(with_rules("a"), "override", "a", [])
    assert rules.get(mine, "override", "a", ALICE)["actions"] == []
    assert ids(rules.delete(mine, "override", "a"), "override") == OVERRIDES


def test_what_does_not_exist() -> None:
    for attempt in (
        lambda: rules.get(NO_RULES, "override", "x", ALICE),
        lambda: rules.get(NO_RULES, "underride", ".m.rule.master", ALICE),
        lambda: rules.delete(NO_RULES, "override", "x"),
        lambda: rules.delete(NO_RULES, "override", ".m.rule.master"),
        lambda: rules.set_enabled(NO_RULES, "room", "x", True),
        lambda: rules.set_actions(NO_RULES, "room", "x", []),
    ):
        with pytest.raises(MatrixError) as caught:
            attempt()
        assert (caught.value.code, caught.value.errcode) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("kind", "rule_id", "body", "errcode"),
    [
        ("nonsense", "x", {"actions": []}, "M_INVALID_PARAM"),
        ("override", ".x", {"actions": []}, "M_INVALID_PARAM"),
        ("override", "a/b", {"actions": []}, "M_INVALID_PARAM"),
        ("override", "a\\b", {"actions": []}, "M_INVALID_PARAM"),
        ("override", "", {"actions": []}, "M_INVALID_PARAM"),
        ("override", "x", {}, "M_MISSING_PARAM"),
        ("override", "x", {"actions": "notify"}, "M_BAD_JSON"),
        ("override", "x", {"actions": ["explode"]}, "M_BAD_JSON"),
        ("override", "x", {"actions": [{"set_tweak": 1}]}, "M_BAD_JSON"),
        ("override", "x", {"actions": [], "conditions": {}}, "M_BAD_JSON"),
        ("override", "x", {"actions": [], "conditions": ["x"]}, "M_BAD_JSON"),
        ("override", "x", {"actions": [], "conditions": [{}]}, "M_BAD_JSON"),
        ("content", "x", {"actions": []}, "M_MISSING_PARAM"),
        ("content", "x", {"actions": [], "pattern": 1}, "M_BAD_JSON"),
        ("content", "x", {"actions": [], "pattern": ""}, "M_BAD_JSON"),
    ],
)
def test_refused(kind: str, rule_id: str, body: dict[str, Any], errcode: str) -> None:
    with pytest.raises(MatrixError) as caught:
        rules.parse_rule(kind, rule_id, body)
    assert (caught.value.code, caught.value.errcode) == (400, errcode)


def test_the_examples_of_the_specification() -> None:
    cake = rules.parse_rule(
        "content",
        "SSByZWFsbHkgbGlrZSBjYWtl",
        {"pattern": "cake", "actions": ["notify", {"set_tweak": "sound", "value": "cakealarm.wav"}]},
    )
    lie = rules.parse_rule("content", "U3BvbmdlIGNha2UgaXMgYmVzdA", {"pattern": "cake*lie", "actions": ["notify"]})
    mine = rules.put(rules.put(NO_RULES, "content", cake), "content", lie, before=cake.rule_id)
    assert ids(mine, "content") == [lie.rule_id, cake.rule_id]
    assert "conditions" not in rules.get(mine, "content", lie.rule_id, ALICE)
    beer = rules.parse_rule(
        "override",
        "U2VlIHlvdSBpbiBUaGUgRHVrZQ",
        {
            "conditions": [
                {"kind": "event_match", "key": "content.body", "pattern": "beer"},
                {"kind": "room_member_count", "is": "<=10"},
            ],
            "actions": ["notify", {"set_tweak": "sound", "value": "beeroclock.wav"}],
        },
    )
    assert rules.put(mine, "override", beer).of_kind("override") == (beer,)


def test_too_many_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_RULES", 2)
    with pytest.raises(MatrixError, match=re.escape("2 push rules at most")):
        rules.put(with_rules("a", "b"), "override", OwnRule("c", []))
    rules.put(with_rules("a", "b"), "override", OwnRule("a", []))


def test_users_without_rules_share_a_program() -> None:
    assert rules.program(NO_RULES) is DEFAULT_PROGRAM
    assert rules.program(rules.delete(with_rules("a"), "override", "a")) is DEFAULT_PROGRAM
