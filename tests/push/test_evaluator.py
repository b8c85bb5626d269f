"""Conditions and rules at work on events."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.events.event import Event
from synapse.events.power_levels import PowerLevels
from synapse.push import rules
from synapse.push.conditions import Condition, EventFacts, Never, compile_condition
from synapse.push.evaluator import Actions, Evaluation, evaluate_all, is_highlight, tweaks
from synapse.push.rules import DEFAULT_PROGRAM, NO_RULES, OwnRule
from tests.events.factory import ALICE, BOB, CAROL, Room, usual_room


def facts(room: Room, event: Event, members: int = 10) -> EventFacts:
    return EventFacts(event, members, PowerLevels.of_state(room.state, room.version))


def holds(condition: dict[str, Any], content: dict[str, Any], members: int = 10, sender: str = BOB) -> bool:
    room = usual_room()
    compiled = compile_condition(condition)
    assert isinstance(compiled, Condition)
    return compiled.holds(facts(room, room.make(sender, "m.room.message", content), members))


@pytest.mark.parametrize(
    ("key", "pattern", "content", "ok"),
    [
        ("content.topic", "lunc?*", {"topic": "Lunch"}, True),
        ("content.topic", "*", {"topic": None}, False),
        ("content.topic", "*", {}, False),
        ("content.n", "1", {"n": 1}, False),
        ("content.body", "cake", {"body": "I like cake."}, True),
        ("content.body", "cake", {"body": "I like cakes."}, False),
        (r"content.m\.relates_to.rel_type", "m.*", {"m.relates_to": {"rel_type": "m.thread"}}, True),
        ("content.m.relates_to.rel_type", "m.*", {"m.relates_to": {"rel_type": "m.thread"}}, False),
        ("type", "m.room.message", {}, True),
        ("sender", BOB, {}, True),
        ("content.body.x", "*", {"body": "x"}, False),
    ],
)
def test_event_match(key: str, pattern: str, content: dict[str, Any], ok: bool) -> None:
    assert holds({"kind": "event_match", "key": key, "pattern": pattern}, content) is ok


@pytest.mark.parametrize(
    ("value", "actual", "ok"),
    [
        (True, True, True),
        (True, "true", False),
        (True, 1, False),
        (1, True, False),
        (1, 1, True),
        (None, None, True),
        ("a", "a", True),
        ("a", "A", False),
        (0, False, False),
        ("a", ["a"], False),
    ],
)
def test_properties(value: Any, actual: Any, ok: bool) -> None:
    equals = {"kind": "event_property_is", "key": "content.x", "value": value}
    contains = {"kind": "event_property_contains", "key": "content.x", "value": value}
    assert holds(equals, {"x": actual}) is ok
    assert holds(contains, {"x": ["other", actual]}) is ok
    assert not holds(contains, {"x": "other"})
    assert not holds(equals, {})


def test_equal_looking_conditions_are_kept_apart() -> None:
    room = usual_room()
    one, true = (compile_condition({"kind": "event_property_is", "key": "content.x", "value": v}) for v in (1, True))
    assert isinstance(one, Condition)
    assert isinstance(true, Condition)
    known = facts(room, room.make(BOB, "x", {"x": True}))
    assert [known.holds(true), known.holds(one), known.holds(true)] == [True, False, True]


@pytest.mark.parametrize(
    ("text", "members", "ok"),
    [
        ("2", 2, True),
        ("2", 3, False),
        ("==2", 2, True),
        ("<3", 2, True),
        ("<2", 2, False),
        (">2", 3, True),
        (">=2", 2, True),
        ("<=2", 3, False),
        ("x", 2, False),
        ("=2", 2, False),
        ("-2", 2, False),
        ("", 0, False),
        (2, 2, False),
    ],
)
def test_member_count(text: Any, members: int, ok: bool) -> None:
    assert holds({"kind": "room_member_count", "is": text}, {}, members) is ok


def test_sender_notification_permission() -> None:
    condition = {"kind": "sender_notification_permission", "key": "room"}
    assert holds(condition, {}, sender=BOB)
    assert not holds(condition, {}, sender=CAROL)


@pytest.mark.parametrize(
    "condition",
    [
        {},
        None,
        "x",
        {"kind": "other"},
        {"kind": "event_match", "key": "type"},
        {"kind": "event_match", "pattern": "x"},
        {"kind": "event_match", "key": 1, "pattern": "x"},
        {"kind": "event_property_is", "key": "content.x"},
        {"kind": "event_property_is", "key": "content.x", "value": [1]},
        {"kind": "event_property_is", "key": "content.x", "value": 1.5},
        {"kind": "sender_notification_permission"},
    ],
)
def test_what_is_not_understood_never_matches(condition: Any) -> None:
    assert compile_condition(condition) == Never()


def default_actions(room: Room, event: Event, user: str = ALICE, members: int = 10) -> Actions:
    return Evaluation(facts(room, event, members)).actions(DEFAULT_PROGRAM, user)


SOUND = {"set_tweak": "sound", "value": "default"}
HIGHLIGHT = {"set_tweak": "highlight"}


@pytest.mark.parametrize(
    ("sender", "type", "content", "state_key", "members", "actions"),
    [
        (BOB, "m.room.message", {"body": "x"}, None, 10, ("notify",)),
        (BOB, "m.room.message", {"body": "x"}, None, 2, ("notify", SOUND)),
        (BOB, "m.room.encrypted", {}, None, 2, ("notify", SOUND)),
        (BOB, "m.room.encrypted", {}, None, 3, ("notify",)),
        (BOB, "m.call.invite", {}, None, 3, ("notify", {"set_tweak": "sound", "value": "ring"})),
        (BOB, "m.room.message", {"msgtype": "m.notice"}, None, 2, ()),
        (BOB, "m.room.member", {"membership": "invite"}, ALICE, 2, ("notify", SOUND)),
        (BOB, "m.room.member", {"membership": "invite"}, CAROL, 2, ()),
        (BOB, "m.room.member", {"membership": "join"}, ALICE, 2, ()),
        (BOB, "m.room.message", {"m.mentions": {"user_ids": [ALICE]}}, None, 9, ("notify", SOUND, HIGHLIGHT)),
        (BOB, "m.room.message", {"m.mentions": {"user_ids": [CAROL]}}, None, 9, ("notify",)),
        (BOB, "m.room.message", {"m.mentions": {"room": True}}, None, 9, ("notify", HIGHLIGHT)),
        (CAROL, "m.room.message", {"m.mentions": {"room": True}}, None, 9, ("notify",)),
        (BOB, "m.room.message", {"m.mentions": "x"}, None, 9, ("notify",)),
        (BOB, "m.room.tombstone", {}, "", 9, ("notify", HIGHLIGHT)),
        (BOB, "m.room.tombstone", {}, None, 9, ()),
        (BOB, "m.reaction", {}, None, 2, ()),
        (BOB, "m.room.server_acl", {}, "", 2, ()),
        (BOB, "m.room.message", {"m.relates_to": {"rel_type": "m.replace"}}, None, 2, ()),
        (BOB, "m.room.topic", {}, "", 2, ()),
        (ALICE, "m.room.message", {"body": "x"}, None, 2, ()),
    ],
)
def test_default_rules(
    sender: str, type: str, content: dict[str, Any], state_key: str | None, members: int, actions: Actions
) -> None:
    room = usual_room()
    assert default_actions(room, room.make(sender, type, content, state_key), members=members) == actions


def test_own_rules_come_first_but_for_master() -> None:
    room = usual_room()
    event = room.make(BOB, "m.room.message", {"body": "cake", "msgtype": "m.notice"})
    mine = rules.put(NO_RULES, "override", OwnRule("all", ["notify", HIGHLIGHT], []))
    assert Evaluation(facts(room, event)).actions(rules.program(mine), ALICE) == ("notify", HIGHLIGHT)
    silent = rules.set_enabled(mine, "override", ".m.rule.master", True)
    assert Evaluation(facts(room, event)).actions(rules.program(silent), ALICE) == ()


def test_kinds_are_checked_in_order() -> None:
    room = usual_room()
    event = room.make(BOB, "m.room.message", {"body": "cake"})
    mine = NO_RULES
    expected: Actions = ("notify",)
    for kind, rule_id in (
        ("underride", "u"),
        ("sender", BOB),
        ("room", room.room_id or ""),
        ("content", "c"),
        ("override", "o"),
    ):
        expected = ("notify", {"set_tweak": "sound", "value": kind})
        pattern = "cake" if kind == "content" else None
        mine = rules.put(mine, kind, OwnRule(rule_id, list(expected), None, pattern))
        mine = rules.put(mine, kind, OwnRule("@other:x", ["notify"], [{"kind": "x"}], "pie" if pattern else None))
        assert Evaluation(facts(room, event)).actions(rules.program(mine), ALICE) == expected


def test_disabled_rules_do_not_match() -> None:
    room = usual_room()
    event = room.make(BOB, "m.room.message", {"body": "x"})
    mine = rules.set_enabled(NO_RULES, "underride", ".m.rule.message", False)
    assert Evaluation(facts(room, event)).actions(rules.program(mine), ALICE) == ()


def test_changed_actions_of_default_rules() -> None:
    room = usual_room()
    event = room.make(BOB, "m.room.message", {"body": "x"})
    mine = rules.set_actions(NO_RULES, "underride", ".m.rule.message", ["dont_notify", SOUND])
    assert Evaluation(facts(room, event)).actions(rules.program(mine), ALICE) == (SOUND,)


@pytest.mark.parametrize(
    ("name", "body", "ok"),
    [("Al", "hi AL!", True), ("Al", "hi Alice", False), ("A.", "xA. A.", True), (None, "x", False), ("", "x", False)],
)
def test_display_names(name: str | None, body: str, ok: bool) -> None:
    room = usual_room()
    event = room.make(BOB, "x", {"body": body})
    mine = rules.put(NO_RULES, "override", OwnRule("n", ["notify"], [{"kind": "contains_display_name"}]))
    assert bool(Evaluation(facts(room, event)).actions(rules.program(mine), ALICE, name)) is ok


def test_own_rules_cannot_speak_of_the_placeholder() -> None:
    room = usual_room()
    event = room.make(BOB, "x", {"body": ALICE})
    match = {"kind": "event_match", "key": "content.body", "pattern": "[the user's Matrix ID]"}
    mine = rules.put(NO_RULES, "override", OwnRule("n", ["notify"], [match]))
    assert Evaluation(facts(room, event)).actions(rules.program(mine), ALICE) == ()


def test_many_users_cost_little_each() -> None:
    """One event for many users: conditions that do not ask about the user are evaluated once."""
    room = usual_room()
    event = room.make(BOB, "m.room.message", {"body": "cake", "m.mentions": {"user_ids": [CAROL]}})
    calls = 0

    class Counting(EventFacts):
        def value(self, path: tuple[str, ...]) -> Any:
            nonlocal calls
            calls += 1
            return super().value(path)

    cake = rules.program(rules.put(NO_RULES, "content", OwnRule("c", ["notify", SOUND], None, "cake")))
    others = [rules.program(rules.put(NO_RULES, "content", OwnRule("c", ["notify"], None, "cake"))) for _ in range(50)]
    levels = PowerLevels.of_state(room.state, room.version)
    users = [(f"@u{n}:x", None, DEFAULT_PROGRAM) for n in range(1000)]
    users += [(f"@v{n}:x", None, program) for n, program in enumerate(others)]
    result = evaluate_all(Counting(event, 2000, levels), [*users, (BOB, None, DEFAULT_PROGRAM), (ALICE, "Alice", cake)])
    assert len(result) == 1051
    assert BOB not in result
    assert result[ALICE] == ("notify", SOUND)
    assert result["@u1:x"] == ("notify",)
    assert calls < 1051 + 200  # one look per user into the mentions, and some for each set of rules


def test_tweaks() -> None:
    assert tweaks(("notify", SOUND, HIGHLIGHT)) == {"sound": "default", "highlight": True}
    assert is_highlight(("notify", HIGHLIGHT))
    assert not is_highlight(("notify", {"set_tweak": "highlight", "value": False}))
    assert not is_highlight(("notify",))
