"""The conditions of push rules, compiled: each is asked about an event, and some of them about a user as well.

Theory of operation. An event is evaluated for all local members of its room, most of whom have the same rules.
Conditions are therefore values: equal ones are evaluated once per event (`EventFacts.holds`), however many users have
them. What depends on the user is asked per user, after `possible` has told that it can be true of anybody at all.

Client-server API, "Push notifications", "Conditions".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from synapse.api.constants import Membership
from synapse.api.filters import Path, parse_path
from synapse.events.event import Event
from synapse.events.power_levels import PowerLevels
from synapse.push import globs
from synapse.push.default_rules import USER_ID

_ABSENT: Final = object()
_BODY: Final = ("content", "body")
_COUNT: Final = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,18})", re.ASCII)


class EventFacts:
    """An event and what else conditions ask about it: the room's joined members, and its power levels."""

    __slots__ = ("_answers", "_event", "event", "levels", "member_count")

    def __init__(self, event: Event, member_count: int, levels: PowerLevels) -> None:
        self.event = event
        self.member_count = member_count
        self.levels = levels
        self._event: dict[str, Any] = {**event.raw, "room_id": event.room_id, "event_id": event.event_id}
        self._answers: dict[Condition, bool] = {}

    def value(self, path: Path) -> Any:
        """The property at a path, `_ABSENT` if there is none."""
        value: Any = self._event
        for key in path:
            if not isinstance(value, dict) or key not in value:
                return _ABSENT
            value = value[key]
        return value

    def holds(self, condition: Condition) -> bool:
        """Whether a condition that asks nothing about a user is true of the event."""
        answer = self._answers.get(condition)
        if answer is None:
            answer = self._answers[condition] = condition.holds(self)
        return answer


@dataclass(frozen=True, slots=True)
class EventMatch:
    """`event_match`, and the condition of rules of kind `content`."""

    path: Path
    pattern: str
    _matches: globs.Matcher = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        matcher = globs.words(self.pattern) if self.path == _BODY else globs.whole(self.pattern)
        object.__setattr__(self, "_matches", matcher)

    def holds(self, facts: EventFacts) -> bool:
        value = facts.value(self.path)
        return isinstance(value, str) and self._matches(value)


@dataclass(frozen=True, slots=True)
class Is:
    """`event_property_is`; also the conditions of rules of kind `room` and `sender`."""

    path: Path
    value: str | int | bool | None

    def holds(self, facts: EventFacts) -> bool:
        return _same(facts.value(self.path), self.value)

    def __eq__(self, other: object) -> bool:
        # 1 and True are equal in Python, but not in JSON.
        return isinstance(other, Is) and self.path == other.path and _same(self.value, other.value)

    def __hash__(self) -> int:
        return hash((self.path, self.value))


@dataclass(frozen=True, slots=True)
class Contains:
    """`event_property_contains`."""

    path: Path
    value: str | int | bool | None

    def holds(self, facts: EventFacts) -> bool:
        values = facts.value(self.path)
        return isinstance(values, list) and any(_same(value, self.value) for value in values)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Contains) and self.path == other.path and _same(self.value, other.value)

    def __hash__(self) -> int:
        return hash((self.path, self.value, "contains"))


@dataclass(frozen=True, slots=True)
class MemberCount:
    """`room_member_count`."""

    comparison: str
    number: int

    def holds(self, facts: EventFacts) -> bool:
        count = facts.member_count
        match self.comparison:
            case "<":
                return count < self.number
            case ">":
                return count > self.number
            case "<=":
                return count <= self.number
            case ">=":
                return count >= self.number
            case _:
                return count == self.number


@dataclass(frozen=True, slots=True)
class SenderMayNotify:
    """`sender_notification_permission`."""

    key: str

    def holds(self, facts: EventFacts) -> bool:
        return facts.levels.user(facts.event.sender) >= facts.levels.notification(self.key)


@dataclass(frozen=True, slots=True)
class Never:
    """A condition that is not recognised, or malformed: it matches nothing."""

    def holds(self, facts: EventFacts) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class IsUser:
    """The property is the user's id (`.m.rule.invite_for_me`)."""

    path: Path

    def possible(self, facts: EventFacts) -> bool:
        return isinstance(facts.value(self.path), str)

    def holds_for(self, facts: EventFacts, user_id: str, display_name: str | None) -> bool:
        return bool(facts.value(self.path) == user_id)


@dataclass(frozen=True, slots=True)
class ContainsUser:
    """The array property contains the user's id (`.m.rule.is_user_mention`)."""

    path: Path

    def possible(self, facts: EventFacts) -> bool:
        values = facts.value(self.path)
        return isinstance(values, list) and len(values) > 0

    def holds_for(self, facts: EventFacts, user_id: str, display_name: str | None) -> bool:
        return user_id in facts.value(self.path)


@dataclass(frozen=True, slots=True)
class ContainsDisplayName:
    """`contains_display_name`: deprecated, but users may still have rules with it."""

    def possible(self, facts: EventFacts) -> bool:
        return isinstance(facts.value(_BODY), str)

    def holds_for(self, facts: EventFacts, user_id: str, display_name: str | None) -> bool:
        return bool(display_name) and _has_words(facts.value(_BODY).lower(), str(display_name).lower())


@dataclass(frozen=True, slots=True)
class IsIgnored:
    """The event is of somebody whom the user ignores, and hidden from them: no state, unless it invites somebody."""

    users: frozenset[str]

    def holds(self, facts: EventFacts) -> bool:
        event = facts.event
        return event.sender in self.users and (event.state_key is None or event.membership == Membership.INVITE)


Condition = EventMatch | Is | Contains | MemberCount | SenderMayNotify | IsIgnored | Never
"""A condition on the event alone: `holds(facts)`. Hashable, and equal to others that mean the same."""

UserCondition = IsUser | ContainsUser | ContainsDisplayName
"""A condition on event and user: `possible(facts)` says whether it can hold for any user; only then `holds_for` is
asked about one user, whose display name in the room is given."""


def compile_condition(condition: Any, is_default: bool = False) -> Condition | UserCondition:
    """A condition of its JSON. Only in default rules does `USER_ID` stand for the user."""
    if not isinstance(condition, Mapping):
        return Never()
    kind, key = condition.get("kind"), condition.get("key")
    if kind == "contains_display_name":
        return ContainsDisplayName()
    if kind == "room_member_count":
        return _compile_count(condition.get("is"))
    if not isinstance(key, str):
        return Never()
    if kind == "event_match":
        return _compile_match(parse_path(key), condition.get("pattern"), is_default)
    if kind == "sender_notification_permission":
        return SenderMayNotify(key)
    value = condition.get("value", _ABSENT)
    if value is not None and type(value) not in (str, int, bool):
        return Never()
    if kind == "event_property_is":
        return Is(parse_path(key), value)
    if kind == "event_property_contains":
        for_user = is_default and value == USER_ID
        return ContainsUser(parse_path(key)) if for_user else Contains(parse_path(key), value)
    return Never()


def _compile_match(path: Path, pattern: Any, is_default: bool) -> Condition | UserCondition:
    if not isinstance(pattern, str):
        return Never()
    return IsUser(path) if is_default and pattern == USER_ID else EventMatch(path, pattern)


def _compile_count(value: Any) -> Condition:
    match = _COUNT.fullmatch(value) if isinstance(value, str) else None
    return Never() if match is None else MemberCount(match[1] or "==", int(match[2]))


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and bool(one == other)


def _has_words(text: str, wanted: str) -> bool:
    """Whether `wanted` stands in the text with a word boundary on either side."""
    start = text.find(wanted)
    while start >= 0:
        end = start + len(wanted)
        if (start == 0 or not _is_word(text[start - 1])) and (end == len(text) or not _is_word(text[end])):
            return True
        start = text.find(wanted, start + 1)
    return False


def _is_word(char: str) -> bool:
    return char == "_" or (char.isascii() and char.isalnum())
