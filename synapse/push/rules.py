"""A user's push rules: their own, and their changes to the default ones; the operations that clients ask for.

Values: every operation returns new `UserRules`. Storage keeps them, `program` compiles them for the evaluator, and
`ruleset` is what clients see.

Client-server API, "Push rules API".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from synapse.api.errors import bad_json, invalid_param, missing_param, not_found
from synapse.push.conditions import IsIgnored
from synapse.push.default_rules import DEFAULT_RULES, KINDS, MASTER, for_user
from synapse.push.evaluator import CompiledRule, Program, compile_rule

MAX_RULES: Final = 2_000
"""Own rules of one user: each may be looked at for every event in all their rooms."""

_MAX_ID: Final = 255
_WITH_CONDITIONS: Final = ("override", "underride")


@dataclass(frozen=True, slots=True)
class OwnRule:
    """A rule that the user made. `conditions` are of override and underride rules, `pattern` is of content rules."""

    rule_id: str
    actions: list[Any]
    conditions: list[dict[str, Any]] | None = None
    pattern: str | None = None
    enabled: bool = True

    def to_json(self) -> dict[str, Any]:
        """The rule as clients see it."""
        rule: dict[str, Any] = {
            "rule_id": self.rule_id,
            "default": False,
            "enabled": self.enabled,
            "actions": self.actions,
        }
        if self.conditions is not None:
            rule["conditions"] = self.conditions
        if self.pattern is not None:
            rule["pattern"] = self.pattern
        return rule


@dataclass(frozen=True, slots=True)
class Change:
    """What a user changed about a default rule; None: as it was."""

    enabled: bool | None = None
    actions: list[Any] | None = None


@dataclass(frozen=True, slots=True)
class UserRules:
    """Own rules by kind, the most important first, and changes by the id of the default rule.

    `ignored` are no rules: what these users say notifies of nothing, whatever the rules say.
    """

    own: Mapping[str, tuple[OwnRule, ...]] = field(default_factory=dict)
    changes: Mapping[str, Change] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()

    def of_kind(self, kind: str) -> tuple[OwnRule, ...]:
        return self.own.get(kind, ())


NO_RULES: Final = UserRules()
"""The rules of a user who never touched them."""


def check_kind(kind: str) -> str:
    """The kind itself; raises M_INVALID_PARAM if it is none."""
    if kind not in KINDS:
        raise invalid_param(f"The kind of a push rule must be one of {', '.join(KINDS)}.")
    return kind


def parse_rule(kind: str, rule_id: str, body: Mapping[str, Any]) -> OwnRule:
    """A rule as a client puts it, checked; raises M_INVALID_PARAM, M_BAD_JSON or M_MISSING_PARAM."""
    check_kind(kind)
    if not rule_id or len(rule_id) > _MAX_ID:
        raise invalid_param(f"The ID of a push rule must have 1 to {_MAX_ID} characters.")
    if rule_id.startswith("."):
        raise invalid_param("Push rules whose ID begins with a dot are the server's own.")
    if "/" in rule_id or "\\" in rule_id:
        raise invalid_param("The ID of a push rule must not contain slashes or backslashes.")
    if "actions" not in body:
        raise missing_param("actions")
    actions = parse_actions(body["actions"])
    conditions = _parse_conditions(body.get("conditions")) if kind in _WITH_CONDITIONS else None
    pattern = None
    if kind == "content":
        pattern = body.get("pattern")
        if pattern is None:
            raise missing_param("pattern")
        if not isinstance(pattern, str) or not pattern:
            raise bad_json("The 'pattern' of a push rule must be a string that is not empty.")
    return OwnRule(rule_id, actions, conditions, pattern)


def parse_actions(actions: Any) -> list[Any]:
    """A list of actions, checked; raises M_BAD_JSON."""
    if not isinstance(actions, list):
        raise bad_json("The 'actions' of a push rule must be an array.")
    for action in actions:
        is_tweak = isinstance(action, dict) and isinstance(action.get("set_tweak"), str)
        if action not in ("notify", "dont_notify", "coalesce") and not is_tweak:
            raise bad_json("Each action of a push rule must be 'notify' or an object with 'set_tweak'.")
    return actions


def _parse_conditions(conditions: Any) -> list[dict[str, Any]]:
    if conditions is None:
        return []
    if not isinstance(conditions, list) or not all(isinstance(condition, dict) for condition in conditions):
        raise bad_json("The 'conditions' of a push rule must be an array of objects.")
    if not all(isinstance(condition.get("kind"), str) for condition in conditions):
        raise bad_json("Each condition of a push rule must have a 'kind'.")
    return conditions


def put(
    rules: UserRules, kind: str, rule: OwnRule, *, before: str | None = None, after: str | None = None
) -> UserRules:
    """The rules with a new rule, or with new contents of one that exists (which keeps whether it is enabled).

    `before` and `after` are ids of own rules of the same kind; without them a new rule becomes the most important one
    and an existing one stays where it is. Raises M_NOT_FOUND if there is no such rule.
    """
    current = rules.of_kind(kind)
    index = _index(current, rule.rule_id)
    if index is not None:
        rule = replace(rule, enabled=current[index].enabled)
    elif sum(map(len, rules.own.values())) >= MAX_RULES:
        raise invalid_param(f"A user may have {MAX_RULES} push rules at most.")
    others = [other for other in current if other.rule_id != rule.rule_id]
    if before is not None:
        position = _position(others, before)
    elif after is not None:
        position = _position(others, after) + 1
    else:
        position = index or 0
    others.insert(position, rule)
    return replace(rules, own={**rules.own, kind: tuple(others)})


def delete(rules: UserRules, kind: str, rule_id: str) -> UserRules:
    """The rules without one of the user's own; raises M_NOT_FOUND, also for default rules, which stay."""
    current = rules.of_kind(check_kind(kind))
    if _index(current, rule_id) is None:
        raise _no_such_rule()
    return replace(rules, own={**rules.own, kind: tuple(rule for rule in current if rule.rule_id != rule_id)})


def set_enabled(rules: UserRules, kind: str, rule_id: str, enabled: bool) -> UserRules:
    """The rules with one of them switched on or off; raises M_NOT_FOUND."""
    if _default_rule(kind, rule_id) is not None:
        change = replace(rules.changes.get(rule_id, Change()), enabled=enabled)
        return replace(rules, changes={**rules.changes, rule_id: change})
    return _update(rules, kind, rule_id, enabled=enabled)


def set_actions(rules: UserRules, kind: str, rule_id: str, actions: list[Any]) -> UserRules:
    """The rules with other actions of one of them; raises M_NOT_FOUND."""
    if _default_rule(kind, rule_id) is not None:
        change = replace(rules.changes.get(rule_id, Change()), actions=actions)
        return replace(rules, changes={**rules.changes, rule_id: change})
    return _update(rules, kind, rule_id, actions=actions)


def _update(rules: UserRules, kind: str, rule_id: str, **fields: Any) -> UserRules:
    current = list(rules.of_kind(check_kind(kind)))
    index = _index(current, rule_id)
    if index is None:
        raise _no_such_rule()
    current[index] = replace(current[index], **fields)
    return replace(rules, own={**rules.own, kind: tuple(current)})


def get(rules: UserRules, kind: str, rule_id: str, user_id: str) -> dict[str, Any]:
    """One rule as clients see it; raises M_NOT_FOUND."""
    default = _default_rule(kind, rule_id)
    if default is not None:
        return _for_client(_changed(default, rules), user_id)
    current = rules.of_kind(check_kind(kind))
    index = _index(current, rule_id)
    if index is None:
        raise _no_such_rule()
    return current[index].to_json()


def ruleset(rules: UserRules, user_id: str) -> dict[str, list[dict[str, Any]]]:
    """All rules as clients see them (the `global` set), each kind in the order in which it is checked."""
    shown: dict[str, list[dict[str, Any]]] = {}
    for kind, (first, rest) in _defaults(rules).items():
        own = [rule.to_json() for rule in rules.of_kind(kind)]
        shown[kind] = [
            *(_for_client(rule, user_id) for rule in first),
            *own,
            *(_for_client(rule, user_id) for rule in rest),
        ]
    return shown


def program(rules: UserRules) -> Program:
    """The enabled rules, compiled. Users without rules of their own share `DEFAULT_PROGRAM`."""
    if rules.ignored:
        silence = CompiledRule("", (IsIgnored(rules.ignored),), (), ())
        return (silence, *program(replace(rules, ignored=frozenset())))
    if not rules.changes and not any(rules.own.values()):
        return DEFAULT_PROGRAM
    return _compile(rules)


def _compile(rules: UserRules) -> Program:
    compiled: list[CompiledRule] = []
    for kind, (first, rest) in _defaults(rules).items():
        own = [rule.to_json() for rule in rules.of_kind(kind)]
        for rule in (*first, *own, *rest):
            if rule["enabled"]:
                compiled.append(_compiled_default(kind, rule) if rule["default"] else compile_rule(kind, rule))
    return tuple(compiled)


def _compiled_default(kind: str, rule: Mapping[str, Any]) -> CompiledRule:
    """Default rules are compiled once; changed actions do not change what they match."""
    compiled = _COMPILED_DEFAULTS[rule["rule_id"]]
    return replace(compiled, actions=compile_rule(kind, {**rule, "conditions": []}).actions)


def _defaults(rules: UserRules) -> dict[str, tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]]:
    """By kind: the default rules before the user's own, and those after them, as the user changed them."""
    result = {}
    for kind, defaults in DEFAULT_RULES.items():
        changed = [_changed(rule, rules) for rule in defaults]
        master = [rule for rule in changed if rule["rule_id"] == MASTER]
        result[kind] = (master, [rule for rule in changed if rule["rule_id"] != MASTER])
    return result


def _changed(rule: Mapping[str, Any], rules: UserRules) -> Mapping[str, Any]:
    change = rules.changes.get(rule["rule_id"])
    if change is None:
        return rule
    changed = dict(rule)
    if change.enabled is not None:
        changed["enabled"] = change.enabled
    if change.actions is not None:
        changed["actions"] = change.actions
    return changed


def _for_client(rule: Mapping[str, Any], user_id: str) -> dict[str, Any]:
    return {**rule, "conditions": for_user(rule["conditions"], user_id)}


def _default_rule(kind: str, rule_id: str) -> Mapping[str, Any] | None:
    return next((rule for rule in DEFAULT_RULES[check_kind(kind)] if rule["rule_id"] == rule_id), None)


def _index(rules: list[OwnRule] | tuple[OwnRule, ...], rule_id: str) -> int | None:
    return next((index for index, rule in enumerate(rules) if rule.rule_id == rule_id), None)


def _position(rules: list[OwnRule], rule_id: str) -> int:
    index = _index(rules, rule_id)
    if index is None:
        raise not_found("There is no push rule of yours of that kind to put this one before or after.")
    return index


def _no_such_rule() -> Exception:
    return not_found("There is no such push rule.")


_COMPILED_DEFAULTS: Final = {
    rule["rule_id"]: compile_rule(kind, rule) for kind, rules in DEFAULT_RULES.items() for rule in rules
}
DEFAULT_PROGRAM: Final = _compile(NO_RULES)
"""What `program` gives for users who have changed nothing."""
