"""Users' push rules: their own rules, and what they changed about the default ones, which are code (`synapse.push`).

An edit reads the rules, applies an operation of `synapse.push.rules`, and writes the rows that differ, all in one
transaction. The higher a rule's `position`, the more important it is, so that a new rule in front is one new row.
Stream positions come from the caller, which is the main process.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from synapse.api.constants import AccountDataTypes
from synapse.push.rules import NO_RULES, Change, OwnRule, UserRules
from synapse.storage.account_data import ignored_users

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse.storage.database import Database, Row, Transaction


class _Row(NamedTuple):
    """A row of `push_rules` without its user; JSON as text. `conditions` of a content rule is its pattern."""

    kind: str
    rule_id: str
    position: int
    conditions: str | None
    actions: str | None
    enabled: bool | None
    is_default: bool


class PushRuleStore:
    """Reads rules anywhere; edits them in the main process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_user(self, user_id: str) -> UserRules:
        return (await self.of_users([user_id])).get(user_id, NO_RULES)

    async def of_users(self, user_ids: Sequence[str]) -> dict[str, UserRules]:
        """The rules of many users in one statement; those who never touched theirs, and ignore nobody, are missing."""
        return await self._db.read("push_rules.of_users", _of_users, user_ids) if user_ids else {}

    async def edit(self, user_id: str, operation: Callable[[UserRules], UserRules], stream_id: int) -> UserRules:
        """Applies a pure operation; what it raises is raised here, and nothing is written then."""
        return await self._db.write("push_rules.edit", _edit, user_id, operation, stream_id)


def _of_users(txn: Transaction, user_ids: Sequence[str]) -> dict[str, UserRules]:
    txn.planned(
        """
        SELECT user_id, kind, rule_id, position, conditions::text, actions::text, enabled, is_default FROM push_rules
        WHERE user_id = ANY(%(users)s)
        UNION ALL SELECT user_id, %(ignored)s, '', 0, content, NULL, NULL, false FROM account_data
        WHERE user_id = ANY(%(users)s) AND room_id = '' AND type = %(ignored)s
        ORDER BY position DESC, rule_id
        """,
        {"users": list(user_ids), "ignored": AccountDataTypes.IGNORED_USER_LIST},
    )
    found: dict[str, list[Row]] = defaultdict(list)
    ignored: dict[str, frozenset[str]] = {}
    for user_id, *row in txn.rows():
        if row[0] == AccountDataTypes.IGNORED_USER_LIST:
            ignored[user_id] = ignored_users(row[3], user_id)
        else:
            found[user_id].append(tuple(row))
    nobody: frozenset[str] = frozenset()
    return {u: replace(_rules(found.get(u, [])), ignored=ignored.get(u, nobody)) for u in {*found, *ignored}}


def _rules(rows: list[Row]) -> UserRules:
    own: dict[str, list[OwnRule]] = {}
    changes = {}
    for row in map(_Row._make, rows):
        actions = None if row.actions is None else orjson.loads(row.actions)
        if row.is_default:
            changes[row.rule_id] = Change(row.enabled, actions)
        else:
            own.setdefault(row.kind, []).append(_own_rule(row, actions or []))
    return UserRules({kind: tuple(rules) for kind, rules in own.items()}, changes)


def _own_rule(row: _Row, actions: list[Any]) -> OwnRule:
    matches = None if row.conditions is None else orjson.loads(row.conditions)
    pattern = matches if isinstance(matches, str) else None
    conditions = matches if isinstance(matches, list) else None
    return OwnRule(row.rule_id, actions, conditions, pattern, row.enabled is not False)


def _rows(rules: UserRules) -> dict[tuple[str, str], _Row]:
    """By kind and rule id; changes of default rules have the kind "", since their ids are unique among all."""
    rows = [
        _Row(kind, rule.rule_id, len(own) - place, _matches(rule), _json(rule.actions), rule.enabled, False)
        for kind, own in rules.own.items()
        for place, rule in enumerate(own)
    ]
    rows += [
        _Row("", rule_id, 0, None, None if change.actions is None else _json(change.actions), change.enabled, True)
        for rule_id, change in rules.changes.items()
    ]
    return {(row.kind, row.rule_id): row for row in rows}


def _matches(rule: OwnRule) -> str | None:
    if rule.pattern is not None:
        return _json(rule.pattern)
    return None if rule.conditions is None else _json(rule.conditions)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _edit(txn: Transaction, user_id: str, operation: Callable[[UserRules], UserRules], stream_id: int) -> UserRules:
    before = _of_users(txn, [user_id]).get(user_id, NO_RULES)
    after = operation(before)
    old, new = _rows(before), _rows(after)
    gone = [key for key in old if key not in new]
    if gone:
        txn.execute("DELETE FROM push_rules WHERE user_id = %s AND (kind, rule_id) IN %s", (user_id, tuple(gone)))
    txn.values(
        """
        INSERT INTO push_rules (user_id, kind, rule_id, position, conditions, actions, enabled, is_default) VALUES %s
        ON CONFLICT (user_id, kind, rule_id) DO UPDATE SET position = EXCLUDED.position,
            conditions = EXCLUDED.conditions, actions = EXCLUDED.actions, enabled = EXCLUDED.enabled
        """,
        [(user_id, *row) for key, row in new.items() if old.get(key) != row],
    )
    txn.later("INSERT INTO push_rules_stream (stream_id, user_id) VALUES (%s, %s)", (stream_id, user_id))
    return after
