"""Power levels as numbers: what each room version takes for one, and what holds where nothing is said."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events.power_levels import CREATOR, PowerLevels, parse_level
from tests.events.factory import ALICE, BOB, CAROL, Room

TOP = 2**53 - 1
# value, level, last version that takes it
VALUES: list[tuple[Any, int, int]] = [
    (50, 50, 12),
    (-1, -1, 12),
    (0, 0, 12),
    (TOP, TOP, 12),
    ("100", 100, 9),
    ("000100", 100, 9),
    ("0" * 5000 + "7", 7, 9),
    ("000", 0, 9),
    ("+100", 100, 9),
    ("-100", -100, 9),
    (" 100 ", 100, 9),
    ("\t +100\n", 100, 9),
    (50.57, 50, 5),
    (-50.57, -50, 5),
    (5.114698e4, 51146, 5),
    (2**70, 2**70, 12),  # which strict canonical JSON has refused before
]


@pytest.mark.parametrize(("value", "level", "last"), VALUES)
def test_numbers(value: Any, level: int, last: int) -> None:
    for name, version in ROOM_VERSIONS.items():
        assert parse_level(value, version) == (level if int(name) <= last else None), name


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, [], {}, "", " ", "x", "1.5", "1e3", "++1", "+ 1", "--1", "1_000", "0x10", "\u0661"),
        *(10**400, "9" * 400, float("inf"), float("-inf"), float("nan"), "Infinity", "NaN"),
    ],
)
def test_what_is_no_number_in_any_version(value: Any) -> None:
    for version in ROOM_VERSIONS.values():
        assert parse_level(value, version) is None


def test_hostile_text_takes_no_time() -> None:
    for text in ("0" * 60_000 + "x", "9" * 60_000, " " * 60_000 + "x", "0" * 30_000 + " " * 30_000 + "x"):
        assert parse_level(text, ROOM_VERSIONS["1"]) is None


@pytest.mark.parametrize("version", list(ROOM_VERSIONS))
def test_without_an_event_the_creator_has_all_power(version: str) -> None:
    room = Room(version)
    levels = PowerLevels.of_state(room.state, room.version)
    assert levels.user(ALICE) == (CREATOR if version == "12" else 100)
    assert levels.user(BOB) == 0
    assert (levels.invite, levels.kick, levels.ban, levels.redact) == (0, 50, 50, 50)
    assert levels.required("x", True) == 50
    assert levels.required("x", False) == 0
    assert levels.notification("room") == 50


@pytest.mark.parametrize("version", list(ROOM_VERSIONS))
def test_the_creator_of_old_versions_is_whom_the_content_names(version: str) -> None:
    room = Room(version, create={"creator": BOB})
    levels = PowerLevels.of_state(room.state, room.version)
    assert (levels.user(BOB) >= 100) is (int(version) < 11)
    assert (levels.user(ALICE) >= 100) is (int(version) >= 11)


@pytest.mark.parametrize("version", list(ROOM_VERSIONS))
def test_an_event_takes_the_power_of_creators_until_v11(version: str) -> None:
    room = Room(version, create={"additional_creators": [BOB, 5]})
    room.power(users={CAROL: 1}, users_default=7, events={"x": 3}, state_default=9, events_default=8)
    levels = PowerLevels.of_state(room.state, room.version)
    privileged = version == "12"
    assert levels.user(ALICE) == (CREATOR if privileged else 7)
    assert levels.user(BOB) == (CREATOR if privileged else 7)
    assert (levels.user(CAROL), levels.user("@x:y"), levels.users_default) == (1, 7, 7)
    assert (levels.required("x", True), levels.required("y", True), levels.required("y", False)) == (3, 9, 8)


@pytest.mark.parametrize("content", [{}, {"users": []}, {"users": {BOB: []}}, {"users_default": {}}, {"events": "x"}])
def test_what_is_malformed_counts_as_not_given(content: dict[str, Any]) -> None:
    room = Room("5")
    room.power(**content)
    levels = PowerLevels.of_state(room.state, room.version)
    assert levels.user(BOB) == 0
    assert levels.required("x", True) == 50


def test_no_event_can_reach_creators() -> None:
    assert TOP < CREATOR
