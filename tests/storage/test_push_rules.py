"""The store of push rules: what is edited is what is read back."""

from __future__ import annotations

from functools import partial

import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.push import rules
from synapse.push.rules import NO_RULES, OwnRule, UserRules
from synapse.storage.database import Database
from synapse.storage.push_rules import PushRuleStore

ALICE, BOB = "@alice:test", "@bob:test"
CONDITIONS = [{"kind": "event_match", "key": "type", "pattern": "m.*"}]


def put(kind: str, rule: OwnRule, before: str | None = None) -> partial[UserRules]:
    return partial(rules.put, kind=kind, rule=rule, before=before)


@pytest_twisted.ensureDeferred
async def test_rules_of_each_kind_are_read_back_in_order(database: Database) -> None:
    store = PushRuleStore(database)
    edits = [
        put("override", OwnRule("a", ["notify"], CONDITIONS)),
        put("override", OwnRule("b", [], [])),
        put("override", OwnRule("c", [], []), before="a"),
        put("content", OwnRule("word", [{"set_tweak": "highlight"}], pattern="cake*")),
        put("room", OwnRule("!r:test", [])),
        partial(rules.set_enabled, kind="override", rule_id="a", enabled=False),
        partial(rules.set_enabled, kind="override", rule_id=".m.rule.master", enabled=True),
        partial(rules.set_actions, kind="underride", rule_id=".m.rule.call", actions=[]),
        partial(rules.delete, kind="override", rule_id="b"),
    ]
    expected = NO_RULES
    for position, edit in enumerate(edits, 1):
        expected = edit(expected)
        assert await store.edit(ALICE, edit, position) == expected
    found = await store.of_user(ALICE)
    assert rules.ruleset(found, ALICE) == rules.ruleset(expected, ALICE)
    assert [rule.rule_id for rule in found.of_kind("override")] == ["c", "a"]
    assert await store.of_user(BOB) == NO_RULES
    assert await store.of_users([ALICE, BOB]) == {ALICE: found}


@pytest_twisted.ensureDeferred
async def test_a_new_rule_in_front_writes_one_rule(database: Database) -> None:
    store = PushRuleStore(database)
    for number in range(5):
        with database.counted() as counts:
            await store.edit(ALICE, put("room", OwnRule(f"!{number}:test", [])), number)
        assert counts.statements_written == 2
        assert sum("push_rules " in sql and sql.count("(%s") == 1 for _, sql in counts.sql) == 1


@pytest_twisted.ensureDeferred
async def test_a_refused_edit_changes_nothing(database: Database) -> None:
    store = PushRuleStore(database)
    with pytest.raises(MatrixError, match="no such push rule"):
        await store.edit(ALICE, partial(rules.delete, kind="room", rule_id="x"), 1)
    await store.edit(ALICE, put("room", OwnRule("x", [])), 1)
