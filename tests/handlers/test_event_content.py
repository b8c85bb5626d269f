"""What own users may put into events: each rule with content that it takes and content that it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.api.errors import MatrixError
from synapse.api.room_versions import ROOM_VERSIONS
from synapse.handlers.event_content import check_content

USER = "@a:test"
POWER = "m.room.power_levels"


def refused(event_type: str, content: dict[str, Any], version: str = "12", state_key: str | None = "") -> str | None:
    try:
        check_content(event_type, state_key, content, ROOM_VERSIONS[version])
    except MatrixError as error:
        return f"{error.code} {error.errcode}"
    return None


GOOD: list[tuple[str, dict[str, Any]]] = [
    ("m.room.create", {"m.federate": False, "type": "m.space", "additional_creators": [USER]}),
    ("m.room.create", {"predecessor": {"room_id": "!x:test"}, "anything": [1]}),
    ("m.room.join_rules", {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": "!x:y"}]}),
    ("m.room.join_rules", {"join_rule": "restricted", "allow": "nobody understands this"}),
    ("m.room.server_acl", {"allow": ["*"], "deny": [], "allow_ip_literals": False}),
    ("m.room.server_acl", {"allow": ["*"], "allow_ip_literals": "false"}),
    ("m.room.server_acl", {}),
    (POWER, {}),
    (POWER, {"ban": -1, "users": {USER: 100}, "events": {"x": 0}, "notifications": {"room": 50}}),
    ("anything", {"ban": "x"}),
]
BAD: list[tuple[str, dict[str, Any]]] = [
    ("m.room.create", {"m.federate": "no"}),
    ("m.room.create", {"type": None}),
    ("m.room.create", {"additional_creators": "@a:test"}),
    ("m.room.create", {"additional_creators": ["a"]}),
    ("m.room.create", {"predecessor": "!x:test"}),
    ("m.room.create", {"predecessor": {}}),
    ("m.room.create", {"predecessor": {"room_id": "x"}}),
    ("m.room.join_rules", {"join_rule": None}),
    ("m.room.server_acl", {"allow": "*"}),
    ("m.room.server_acl", {"deny": [1]}),
    (POWER, {"ban": None}),
    (POWER, {"ban": True}),
    (POWER, {"kick": [50]}),
    (POWER, {"users": [USER]}),
    (POWER, {"users": None}),
    (POWER, {"users": {"a": 1}}),
    (POWER, {"users": {USER: {}}}),
    (POWER, {"events": {"x": None}}),
    (POWER, {"notifications": 5}),
]


@pytest.mark.parametrize(("event_type", "content"), GOOD)
def test_good(event_type: str, content: dict[str, Any]) -> None:
    assert refused(event_type, content) is None


@pytest.mark.parametrize(("event_type", "content"), BAD)
def test_bad(event_type: str, content: dict[str, Any]) -> None:
    assert refused(event_type, content) == "400 M_BAD_JSON"


@pytest.mark.parametrize("version", list(ROOM_VERSIONS))
@pytest.mark.parametrize("table", [None, "users", "events", "notifications"])
def test_power_levels_are_numbers_whatever_the_room_version_would_take_for_some(
    version: str, table: str | None
) -> None:
    def content(level: Any) -> dict[str, Any]:
        return {"invite": level} if table is None else {table: {USER: level}}

    assert refused(POWER, content(50), version) is None
    for value in ("50", " +050 ", "fifty", 50.5, True, None):
        assert refused(POWER, content(value), version) == "400 M_BAD_JSON"


def test_power_levels_are_looked_at_without_a_state_key_too() -> None:
    assert refused(POWER, {"ban": "x"}, state_key=None) == "400 M_BAD_JSON"
    assert refused("m.room.join_rules", {}, state_key=None) is None


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        ({"displayname": None, "reason": "because", "is_direct": True}, None),
        ({"third_party_invite": {"signed": {}}}, None),
        ({"displayname": 5}, "400 M_BAD_JSON"),
        ({"avatar_url": []}, "400 M_BAD_JSON"),
        ({"reason": {}}, "400 M_BAD_JSON"),
        ({"is_direct": "yes"}, "400 M_BAD_JSON"),
        ({"third_party_invite": "x"}, "400 M_BAD_JSON"),
        ({"membership": "maybe"}, "400 M_BAD_JSON"),
        ({"membership": None}, "400 M_BAD_JSON"),
    ],
)
def test_memberships(extra: dict[str, Any], code: str | None) -> None:
    assert refused("m.room.member", {"membership": "join", **extra}, state_key=USER) == code


def test_memberships_are_of_users() -> None:
    assert refused("m.room.member", {"membership": "join"}, state_key="bob") == "400 M_INVALID_PARAM"
