"""Push rules at work: rules compiled once per user (or once for all with the default rules), asked about each event.

Pure: which users are in the room, what they are called and which rules they have is handed in. Users' own events are
never for notifying them, and nobody is asked twice about what concerns all (see `synapse.push.conditions`).

Client-server API, "Push notifications", "Actions".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from synapse.push.conditions import (
    Condition,
    EventFacts,
    EventMatch,
    Is,
    UserCondition,
    compile_condition,
)

Action = str | Mapping[str, Any]
Actions = tuple[Action, ...]

_HISTORICAL = ("dont_notify", "coalesce")


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """A rule: its conditions on the event, those on event and user, and what to do if all hold."""

    rule_id: str
    conditions: tuple[Condition, ...]
    user_conditions: tuple[UserCondition, ...]
    actions: Actions


Program = tuple[CompiledRule, ...]
"""Enabled rules in the order in which they are checked."""


def compile_rule(kind: str, rule: Mapping[str, Any]) -> CompiledRule:
    """A rule (in the form that clients get) of a kind, compiled."""
    is_default = bool(rule.get("default"))
    conditions = [compile_condition(condition, is_default) for condition in rule.get("conditions") or ()]
    if kind == "room":
        conditions = [Is(("room_id",), rule["rule_id"])]
    elif kind == "sender":
        conditions = [Is(("sender",), rule["rule_id"])]
    elif kind == "content":
        conditions = [EventMatch(("content", "body"), rule["pattern"])]
    return CompiledRule(rule["rule_id"], *_split(conditions), effective_actions(rule["actions"]))


def _split(conditions: Sequence[Condition | UserCondition]) -> tuple[tuple[Condition, ...], tuple[UserCondition, ...]]:
    about_users = tuple(c for c in conditions if isinstance(c, UserCondition))
    return tuple(c for c in conditions if not isinstance(c, UserCondition)), about_users


def effective_actions(actions: Sequence[Action]) -> Actions:
    """The actions without the historical ones, which are to be ignored."""
    return tuple(action for action in actions if action not in _HISTORICAL)


class Evaluation:
    """One event, evaluated for one user after the other."""

    def __init__(self, facts: EventFacts) -> None:
        self._facts = facts
        # By identity: programs are shared among users with the same rules, and outlive an evaluation.
        self._applicable: dict[int, tuple[Program, Program]] = {}

    def actions(self, program: Program, user_id: str, display_name: str | None = None) -> Actions:
        """What the user's rules say to do about the event; nothing for its sender."""
        facts = self._facts
        if user_id == facts.event.sender:
            return ()
        for rule in self._candidates(program):
            if all(condition.holds_for(facts, user_id, display_name) for condition in rule.user_conditions):
                return rule.actions
        return ()

    def _candidates(self, program: Program) -> Program:
        """The rules that match as far as that does not depend on the user, up to the first that is certain."""
        known = self._applicable.get(id(program))
        if known is not None:
            return known[1]
        candidates: list[CompiledRule] = []
        for rule in program:
            if not all(map(self._facts.holds, rule.conditions)):
                continue
            if all(condition.possible(self._facts) for condition in rule.user_conditions):
                candidates.append(rule)
                if not rule.user_conditions:
                    break
        result = tuple(candidates)
        self._applicable[id(program)] = (program, result)
        return result


def evaluate_all(facts: EventFacts, users: Iterable[tuple[str, str | None, Program]]) -> dict[str, Actions]:
    """Who of the users (id, display name in the room, compiled rules) is to be notified, and how.

    Users whose rules say nothing, or not to notify, are left out.
    """
    evaluation = Evaluation(facts)
    notified: dict[str, Actions] = {}
    for user_id, display_name, program in users:
        actions = evaluation.actions(program, user_id, display_name)
        if "notify" in actions:
            notified[user_id] = actions
    return notified


def tweaks(actions: Sequence[Action]) -> dict[str, Any]:
    """The tweaks that actions set, for the push gateway. `highlight` without a value means true."""
    result: dict[str, Any] = {}
    for action in actions:
        name = action.get("set_tweak") if isinstance(action, Mapping) else None
        if isinstance(name, str) and isinstance(action, Mapping):
            if "value" in action:
                result[name] = action["value"]
            elif name == "highlight":
                result[name] = True
    return result


def is_highlight(actions: Sequence[Action]) -> bool:
    """Whether the event is to be highlighted, which is counted apart."""
    return bool(tweaks(actions).get("highlight", False))
