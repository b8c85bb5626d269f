"""History visibility: the five rules, and the two kinds of event that count before and after."""

from __future__ import annotations

import pytest

from synapse.events.visibility import allows, may_see, visibility_of
from tests.events.factory import ALICE, BOB, usual_room

TABLE = [
    # visibility, membership, joined after -> visible
    ("world_readable", None, False, True),
    ("world_readable", "ban", False, True),
    ("shared", "join", False, True),
    ("shared", None, True, True),
    ("shared", None, False, False),
    ("shared", "invite", False, False),
    ("shared", "leave", True, True),
    ("invited", "invite", False, True),
    ("invited", "join", False, True),
    ("invited", None, True, False),
    ("invited", "knock", True, False),
    ("joined", "join", False, True),
    ("joined", "invite", True, False),
    ("joined", "leave", True, False),
]


@pytest.mark.parametrize(("visibility", "membership", "joined_after", "visible"), TABLE)
def test_rules(visibility: str, membership: str | None, joined_after: bool, visible: bool) -> None:
    assert allows(visibility, membership, joined_after) is visible
    event = usual_room().make(ALICE, "m.room.message", {})
    given = may_see(event, BOB, visibility=visibility, membership=membership, joined_after=joined_after)
    assert given is visible


def test_what_is_not_understood_is_shared() -> None:
    assert visibility_of(None) == "shared"
    assert visibility_of({"history_visibility": "x"}) == "shared"
    assert visibility_of({"history_visibility": ["joined"]}) == "shared"
    assert visibility_of({"history_visibility": "joined"}) == "joined"


@pytest.mark.parametrize(("before", "after"), [("world_readable", "joined"), ("joined", "world_readable")])
def test_changes_of_visibility_are_seen_from_either_side(before: str, after: str) -> None:
    event = usual_room().make(ALICE, "m.room.history_visibility", {"history_visibility": after}, "")
    assert may_see(event, BOB, visibility=before, membership=None, joined_after=False)


@pytest.mark.parametrize(
    ("before", "after", "visible"), [(None, "join", True), ("join", "leave", True), (None, "invite", False)]
)
def test_own_membership_is_seen_from_either_side(before: str | None, after: str, visible: bool) -> None:
    event = usual_room().make(BOB, "m.room.member", {"membership": after}, BOB)
    assert may_see(event, BOB, visibility="joined", membership=before, joined_after=False) is visible
    assert may_see(event, ALICE, visibility="joined", membership=None, joined_after=False) is False
