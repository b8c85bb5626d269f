"""Whose turn it is, and the bytes of a transaction."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st

from synapse.federation.sending.fairness import RoundRobin
from synapse.federation.sending.transaction import body, that_fit

CAUSES = st.sampled_from(["!a", "!b", "!c"])
NAMES = st.sampled_from(["1", "2", "3", "4"])


def all_of(turns: RoundRobin) -> list[str]:
    found = []
    while (name := turns.take()) is not None:
        found.append(name)
    return found


def test_causes_take_turns() -> None:
    turns = RoundRobin()
    for number in range(5):
        turns.add(f"big {number}", "!big")
    turns.add("small 0", "!small")
    turns.add("small 1", "!small")
    assert all_of(turns) == ["big 0", "small 0", "big 1", "small 1", "big 2", "big 3", "big 4"]


def test_who_waits_for_several_causes_has_one_turn() -> None:
    turns = RoundRobin()
    for cause in ("!a", "!b"):
        turns.add("1", cause)
        turns.add("2", cause)
    assert all_of(turns) == ["1", "2"]
    turns.add("1", "!b")
    assert (len(turns), all_of(turns)) == (1, ["1"])


@given(st.lists(st.one_of(st.tuples(NAMES, CAUSES), st.just("take"))))
def test_everybody_who_waits_has_a_turn_and_nobody_else(steps: list[tuple[str, str] | str]) -> None:
    turns, waiting = RoundRobin(), set[str]()
    for step in steps:
        if isinstance(step, tuple):
            turns.add(*step)
            waiting.add(step[0])
        else:
            name = turns.take()
            assert (name is None) == (not waiting)
            waiting.discard(name or "")
        assert len(turns) == len(waiting)
    rest = all_of(turns)
    assert sorted(rest) == sorted(waiting)


def test_a_transaction_is_canonical_json() -> None:
    made = body('us"x', 5, [b'{"type":"a"}', b'{"type":"b"}'], [b'{"edu_type":"m.x"}'])
    decoded = orjson.loads(made)
    expected = {
        "origin": 'us"x',
        "origin_server_ts": 5,
        "pdus": [{"type": "a"}, {"type": "b"}],
        "edus": [{"edu_type": "m.x"}],
    }
    assert decoded == expected
    assert orjson.dumps(decoded, option=orjson.OPT_SORT_KEYS) == made


def test_what_fits() -> None:
    pieces = [b"123", b"123", b"123"]
    assert [that_fit(pieces, room) for room in (0, 3, 4, 7, 8, 12, 100)] == [0, 0, 1, 1, 2, 3, 3]
