"""Whatever power levels an old room has, its successor can be founded with them: by properties."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse.api.constants import MAX_INT
from synapse.api.errors import MatrixError
from synapse.api.room_versions import ROOM_VERSIONS, RoomVersion
from synapse.events.power_levels import PowerLevels
from synapse.handlers.event_content import check_content
from synapse.handlers.new_rooms import RoomBuilder
from synapse.handlers.upgrade_levels import TRANSFERRED, carried_over, closed, for_founding
from tests.support.rooms import ALICE, SIGNER

FOUNDER, OTHERS = ALICE.user_id, ["@bob:test", "@carol:elsewhere.example", "@dave:test"]
VERSIONS = list(ROOM_VERSIONS.values())
CONTENTS: dict[str, dict[str, Any]] = {
    "m.room.join_rules": {"join_rule": "public"},
    "m.room.history_visibility": {"history_visibility": "shared"},
    "m.room.guest_access": {"guest_access": "forbidden"},
    "m.room.encryption": {"algorithm": "x"},
}

TYPES = ["m.room.power_levels", "m.room.tombstone", *TRANSFERRED]

levels = st.one_of(
    st.integers(-MAX_INT, MAX_INT),
    st.sampled_from([0, 50, 99, 100, 101]),
    st.integers(0, 200).map(str),
    st.floats(0, 200),
)
nonsense = st.sampled_from([None, [], {}, "lots", True, 10**30, "-"])
tables = {
    "users": st.dictionaries(st.sampled_from([FOUNDER, *OTHERS, "nobody"]), st.one_of(levels, nonsense), max_size=4),
    "events": st.dictionaries(
        st.sampled_from(["m.room.power_levels", "m.room.tombstone", *TRANSFERRED]), levels, max_size=4
    ),
    "notifications": st.dictionaries(st.just("room"), st.one_of(levels, nonsense)),
}
single = ("users_default", "events_default", "state_default", "ban", "kick", "redact", "invite")
custom = {"custom": st.sampled_from([{"a": 1}, {"a": 0.5}, [10**30]])}
plain = {name: st.one_of(levels, nonsense) for name in single}
contents = st.fixed_dictionaries({}, optional={**tables, **plain, **custom})


@settings(max_examples=150, deadline=None)
@given(contents, st.sampled_from(VERSIONS), st.sampled_from(VERSIONS), st.lists(st.sampled_from(OTHERS), unique=True))
def test_a_room_can_be_founded_with_them(
    content: dict[str, Any], old: RoomVersion, new: RoomVersion, banned: list[str]
) -> None:
    builder = RoomBuilder(SIGNER, 1_700_000_000_000, new, FOUNDER)
    builder.add("m.room.create", "", {"room_version": new.identifier, "creator": FOUNDER})
    builder.add("m.room.member", FOUNDER, {"membership": "join"})
    carried = carried_over(content, old, new, [FOUNDER], [FOUNDER])
    assert carried_over(carried, new, new, [FOUNDER], [FOUNDER]) == carried, "once is enough"
    default = carried.get("users_default", 0)
    banned = [user for user in banned if carried["users"].get(user, default) < MAX_INT]  # nobody is above that
    founding = for_founding(carried, new, FOUNDER, banned)
    builder.add("m.room.power_levels", "", founding)
    for event_type in TRANSFERRED:
        builder.add(event_type, "", CONTENTS.get(event_type, {}))
    for user_id in banned:
        builder.add("m.room.member", user_id, {"membership": "ban"})
    if founding != carried:
        builder.add("m.room.power_levels", "", carried)
    in_force = PowerLevels.of_state(builder.state, new)
    assert in_force.user(FOUNDER) >= in_force.required("m.room.tombstone", True) or not new.privileged_creators
    if new.privileged_creators:
        assert in_force.required("m.room.tombstone", True) > in_force.required("any other state", True) or old is new


@settings(max_examples=150, deadline=None)
@given(contents, st.sampled_from(VERSIONS))
def test_the_ordinary_neither_speak_nor_invite_in_a_closed_room(content: dict[str, Any], old: RoomVersion) -> None:
    try:
        check_content("m.room.power_levels", "", content, old)
    except MatrixError:
        return  # no room of ours has it
    restricted = closed(content, old)
    assert {key: value for key, value in restricted.items() if key not in ("events_default", "invite")} == {
        key: value for key, value in content.items() if key not in ("events_default", "invite")
    }
    default = min(content.get("users_default", 0), MAX_INT)
    for name in ("events_default", "invite"):
        assert restricted[name] >= 50
        assert restricted[name] > default or default >= MAX_INT
    assert closed(restricted, old) == restricted


@pytest.mark.parametrize(("version", "level"), [("1", 50.7), ("5", " 050 "), ("9", "50")])
def test_levels_that_old_rooms_have_as_strings_become_numbers(version: str, level: Any) -> None:
    old = ROOM_VERSIONS[version]
    content = {"ban": level, "users": {FOUNDER: level}, "events": {"x": level}, "notifications": {}, "more": level}
    restricted = closed(content, old)
    assert restricted == {
        "ban": 50,
        "users": {FOUNDER: 50},
        "events": {"x": 50},
        "notifications": {},
        "more": level,
        "events_default": 50,
        "invite": 50,
    }
    check_content("m.room.power_levels", "", restricted, old)
