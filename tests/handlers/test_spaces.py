"""Which children of spaces are valid, and walking a tree of them that may be no tree at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.handlers.space_tree import Child, Tree, child_of, walk
from synapse.storage.rooms import KnownRoom, ListedRoom
from synapse.storage.timeline import TimelineRow

ROW = TimelineRow(1, "!r:x", "$e", 1, "m.space.child", "!c:x", "@u:x", 7, None, None, False, "")
ROOMS = [f"!{letter}:x" for letter in "abcdefg"]


def child(room_id: str) -> Child:
    found = child_of(ROW._replace(state_key=room_id), b'{"via":["x"]}', False)
    assert found is not None
    return found


def tree(known: set[str], edges: dict[str, list[str]]) -> Tree:
    listed = ListedRoom("", None, None, None, None, None, None, None, None, 0)
    rooms = {room_id: KnownRoom(listed._replace(room_id=room_id), "12", None, None) for room_id in known}
    return Tree(rooms, {room_id: [child(each) for each in children] for room_id, children in edges.items()})


@given(
    st.sets(st.sampled_from(ROOMS)),
    st.dictionaries(st.sampled_from(ROOMS), st.lists(st.sampled_from(ROOMS), unique=True)),
    st.integers(0, 5),
)
def test_every_room_within_reach_is_told_once(known: set[str], edges: dict[str, list[str]], depth: int) -> None:
    walked = list(walk(tree(known, edges), ROOMS[0], depth))
    reached = {ROOMS[0]} & known
    level = reached
    for _ in range(depth):
        level = {each for room in level for each in edges.get(room, ()) if each in known} - reached
        reached = reached | level
    assert len(walked) == len(set(walked))
    assert set(walked) == reached


def test_a_space_is_gone_into_before_what_stands_beside_it() -> None:
    a, b, c, d, e = ROOMS[:5]
    assert list(walk(tree(set(ROOMS), {a: [b, e], b: [c, d], d: [a, e]}), a, 9)) == [a, b, c, d, e]


@pytest.mark.parametrize(
    ("content", "is_valid"),
    [
        ('{"via":["a"]}', True),
        ('{"via":[]}', False),
        ('{"via":"a"}', False),
        ('{"via":["a",5]}', False),
        ('{"via":null}', False),
        ("{}", False),
    ],
)
def test_a_child_is_valid_with_servers_to_join_through(content: str, is_valid: bool) -> None:
    assert (child_of(ROW, content.encode(), False) is not None) is is_valid


def test_orders_that_are_not_valid_are_none() -> None:
    def order(json: str) -> Any:
        found = child_of(ROW, b'{"via":["a"],"order":%b}' % json.encode(), False)
        assert found is not None
        return found.order

    assert order('" ~"') == (False, " ~", 7, "!c:x")
    for invalid in ("5", "null", '""', f'"{"a" * 51}"', '"\\u0000"', '"é"', '"a\\n"'):
        assert order(invalid) == (True, "", 7, "!c:x"), invalid
    assert order(f'"{"a" * 50}"') < order("5")
