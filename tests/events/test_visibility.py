"""History visibility: every visibility with every membership, and the events that count on both of their sides."""

from __future__ import annotations

from itertools import product

import pytest

from synapse.events.visibility import allows, is_own_membership, is_turn, may_see, visibility_of

VISIBILITIES = ["world_readable", "shared", "invited", "joined"]
MEMBERSHIPS = [None, "leave", "ban", "knock", "invite", "join"]

# By visibility: who sees an event of that time who did not join afterwards, and who sees it having joined since.
SEEN_BY: dict[str, tuple[set[str | None], set[str | None]]] = {
    "world_readable": (set(MEMBERSHIPS), set(MEMBERSHIPS)),
    "shared": ({"join"}, set(MEMBERSHIPS)),
    "invited": ({"join", "invite"}, {"join", "invite"}),
    "joined": ({"join"}, {"join"}),
}
SIDES = list(product(VISIBILITIES, MEMBERSHIPS))


@pytest.mark.parametrize(("visibility", "membership"), SIDES)
@pytest.mark.parametrize("joined_after", [False, True])
def test_rules(visibility: str, membership: str | None, joined_after: bool) -> None:
    visible = membership in SEEN_BY[visibility][joined_after]
    assert allows(visibility, membership, joined_after) is visible
    assert may_see([(visibility, membership)], joined_after) is visible


@pytest.mark.parametrize("joined_after", [False, True])
@pytest.mark.parametrize("after", SIDES)
@pytest.mark.parametrize("before", SIDES)
def test_one_side_is_enough(before: tuple[str, str | None], after: tuple[str, str | None], joined_after: bool) -> None:
    either = may_see([before], joined_after) or may_see([after], joined_after)
    assert may_see([before, after], joined_after) is either


def test_nothing_is_visible_of_which_nothing_is_known() -> None:
    assert not may_see([], joined_after=True)


def test_the_examples_of_the_specification() -> None:
    for before, after in (("world_readable", "joined"), ("joined", "world_readable")):
        assert may_see([(before, None), (after, None)], joined_after=False)
    assert may_see([("joined", "leave"), ("joined", "join")], joined_after=False)
    assert may_see([("joined", "join"), ("joined", "ban")], joined_after=False)


def test_what_is_not_understood_is_shared() -> None:
    assert visibility_of(None) == "shared"
    assert visibility_of({}) == "shared"
    assert visibility_of({"history_visibility": "x"}) == "shared"
    assert visibility_of({"history_visibility": ["joined"]}) == "shared"
    assert visibility_of({"history_visibility": "joined"}) == "joined"


def test_which_events_count_on_both_sides() -> None:
    assert is_turn("m.room.history_visibility", "")
    assert not is_turn("m.room.history_visibility", "x")
    assert not is_turn("m.room.history_visibility", None)
    assert not is_turn("m.room.member", "")
    assert is_own_membership("m.room.member", "@a:b", "@a:b")
    assert not is_own_membership("m.room.member", "@c:b", "@a:b")
    assert not is_own_membership("m.room.member", None, "@a:b")
    assert not is_own_membership("m.room.topic", "@a:b", "@a:b")
