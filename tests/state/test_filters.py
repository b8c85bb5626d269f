"""State filters: the same answer in Python and in SQL."""

from __future__ import annotations

import pytest
import pytest_twisted

from synapse.state.filters import ALL, StateFilter, StateKey
from synapse.storage.database import Database, Transaction

STATE: list[StateKey] = [
    ("m.room.member", "@a:test"),
    ("m.room.member", "@b:test"),
    ("m.room.name", ""),
    ("m.room.topic", ""),
    ("custom", "x"),
]
CASES = [
    (ALL, {0, 1, 2, 3, 4}),
    (StateFilter(), set()),
    (StateFilter.of("m.room.member"), {0, 1}),
    (StateFilter.keys([STATE[0], STATE[2]]), {0, 2}),
    (StateFilter.keys([("m.room.name", "other")]), set()),
    (StateFilter.members(["@b:test"]), {1, 2, 3, 4}),
    (StateFilter.members([]), {2, 3, 4}),
    (StateFilter({"m.room.name": None, "m.room.member": frozenset({"@a:test"})}), {0, 2}),
    (StateFilter({"m.room.name": None}, others=True), {0, 1, 2, 3, 4}),
]


@pytest.mark.parametrize(("wanted", "expected"), CASES)
def test_wants(wanted: StateFilter, expected: set[int]) -> None:
    assert {index for index, key in enumerate(STATE) if wanted.wants(key)} == expected


@pytest_twisted.ensureDeferred
async def test_sql_says_the_same(database: Database) -> None:
    def select(txn: Transaction, wanted: StateFilter) -> set[int]:
        condition, params = wanted.sql("s")
        txn.execute(
            "SELECT number FROM unnest(%s::text[], %s::text[], %s::int[]) AS s (type, state_key, number) "
            f"WHERE {condition}",
            [[t for t, _ in STATE], [k for _, k in STATE], list(range(len(STATE))), *params],
        )
        return {number for (number,) in txn.rows()}

    for wanted, expected in CASES:
        assert await database.read("select", select, wanted) == expected


def test_exact_names_every_entry_or_nothing() -> None:
    assert StateFilter.keys([STATE[0], STATE[2]]).exact() == [STATE[0], STATE[2]]
    assert StateFilter.of("m.room.name").exact() is None
    assert ALL.exact() is None
    assert StateFilter().exact() == []
