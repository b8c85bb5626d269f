"""Well-formedness of events, and the builder's promise to make only such events."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.api.errors import MatrixError
from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events.validation import check_pdu
from tests.events.factory import ALICE, BOB, Room, usual_room

ALL = list(ROOM_VERSIONS)


def pdu(version: str) -> dict[str, Any]:
    return dict(usual_room(version).make(BOB, "m.room.topic", {"topic": "x"}, "").raw)


def refused(event: Any, version: str) -> str | None:
    try:
        check_pdu(event, ROOM_VERSIONS[version])
    except MatrixError as error:
        return error.errcode
    return None


@pytest.mark.parametrize("version", ALL)
def test_built_events_are_well_formed_and_lose_unsigned(version: str) -> None:
    event = pdu(version)
    checked = check_pdu({**event, "unsigned": {"age": 1.5}}, ROOM_VERSIONS[version])
    assert checked == event
    room = Room(version)
    assert check_pdu(room.create.raw, room.version) == room.create.raw


BROKEN: list[tuple[str, Any]] = [
    ("type", None),
    ("type", 1),
    ("type", "x\x00"),
    ("sender", "bob"),
    ("sender", "@a\x00:b"),
    ("sender", None),
    ("room_id", None),
    ("room_id", "room"),
    ("room_id", 1),
    ("state_key", None),
    ("state_key", 1),
    ("state_key", "\x00"),
    ("content", None),
    ("content", []),
    ("depth", None),
    ("depth", "1"),
    ("depth", -1),
    ("depth", True),
    ("depth", 2**63),
    ("origin_server_ts", None),
    ("origin_server_ts", 1.5),
    ("origin_server_ts", 2**70),
    ("prev_events", None),
    ("prev_events", {}),
    ("prev_events", [1]),
    ("prev_events", ["x"]),
    ("prev_events", [["$x:y"]]),
    ("auth_events", [None]),
    ("auth_events", ["$" + "x" * 300]),
    ("hashes", None),
    ("hashes", {}),
    ("hashes", {"sha256": 1}),
    ("signatures", None),
    ("signatures", {"a": 1}),
    ("signatures", {"a": {"k": 1}}),
]


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize(("key", "value"), BROKEN)
def test_broken_fields(version: str, key: str, value: Any) -> None:
    assert refused({**pdu(version), key: value}, version) == "M_BAD_JSON"


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("value", [None, [], "x", 1])
def test_not_even_an_object(version: str, value: Any) -> None:
    assert refused(value, version) == "M_BAD_JSON"


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("key", ["type", "state_key"])
def test_sizes_of_keys_are_in_bytes(version: str, key: str) -> None:
    assert refused({**pdu(version), key: "é" * 127}, version) is None
    assert refused({**pdu(version), key: "é" * 128}, version) == "M_TOO_LARGE"


@pytest.mark.parametrize("version", ALL)
def test_numbers_of_references(version: str) -> None:
    def refs(count: int) -> list[Any]:
        return [[f"$x{n}:y", {}] if int(version) < 3 else f"$x{n}" for n in range(count)]

    assert refused({**pdu(version), "prev_events": refs(20), "auth_events": refs(10)}, version) is None
    assert refused({**pdu(version), "prev_events": refs(21)}, version) == "M_BAD_JSON"
    assert refused({**pdu(version), "auth_events": refs(11)}, version) == "M_BAD_JSON"
    wrong = ["$x"] if int(version) < 3 else [["$x:y", {}]]
    assert refused({**pdu(version), "prev_events": wrong}, version) == "M_BAD_JSON"


@pytest.mark.parametrize("version", ALL)
def test_numbers_in_content(version: str) -> None:
    lenient = int(version) < 6
    for value in (1.5, 2**53, {"a": [2**60]}):
        assert (refused({**pdu(version), "content": {"x": value}}, version) is None) is lenient
    assert (refused({**pdu(version), "depth": 2**60}, version) is None) is lenient


@pytest.mark.parametrize("version", ALL)
def test_size_of_the_whole(version: str) -> None:
    room = usual_room(version)
    with pytest.raises(MatrixError) as caught:
        room.make(BOB, "m.room.message", {"body": "x" * 65_536})
    assert (caught.value.code, caught.value.errcode) == (413, "M_TOO_LARGE")
    small = len(room.make(BOB, "m.room.message", {"body": ""}).json)
    event = room.make(BOB, "m.room.message", {"body": "x" * (65_000 - small)})
    grown = {**event.raw, "content": {"body": "x" * 65_536}}
    assert refused(event.raw, version) is None
    assert refused(grown, version) == "M_TOO_LARGE"
    assert refused({**event.raw, "unsigned": {"x": "y" * 65_536}}, version) is None


def test_room_ids_by_version() -> None:
    hashed = "!" + "x" * 43
    assert refused({**pdu("12"), "room_id": "!x:y"}, "12") == "M_BAD_JSON"
    assert refused({**pdu("12"), "room_id": hashed}, "12") is None
    create = Room("12").create.raw
    assert "room_id" not in create
    assert refused({**create, "room_id": hashed}, "12") == "M_BAD_JSON"
    assert refused({k: v for k, v in Room("11").create.raw.items() if k != "room_id"}, "11") == "M_BAD_JSON"


@pytest.mark.parametrize("event_id", [None, "x", "$x", "$" + "x" * 300 + ":y"])
def test_ids_in_versions_1_and_2(event_id: Any) -> None:
    assert refused({**pdu("1"), "event_id": event_id}, "1") == "M_BAD_JSON"


@pytest.mark.parametrize("redacts", [None, 1, "x" * 256])
def test_redacts_at_the_top(redacts: Any) -> None:
    assert refused({**pdu("10"), "redacts": redacts}, "10") in ("M_BAD_JSON", "M_TOO_LARGE")
    assert refused({**pdu("11"), "redacts": redacts}, "11") is None


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("content", [{"x": 1.5}, {"x": 2**53}])
def test_the_builder_refuses_numbers_since_v6(version: str, content: dict[str, Any]) -> None:
    room = usual_room(version)
    if int(version) < 6:
        assert room.make(BOB, "x", content).content == content
        return
    with pytest.raises(MatrixError, match="M_BAD_JSON"):
        room.make(BOB, "x", content)


@pytest.mark.parametrize("version", ALL)
def test_the_builder_refuses_other_nonsense(version: str) -> None:
    room = usual_room(version)
    for sender, type, key in (("bob", "x", None), (ALICE, "x" * 256, None), (ALICE, "x", "\x00")):
        with pytest.raises(MatrixError):
            room.make(sender, type, {}, key, server="a.example")
    deep: Any = {}
    for _ in range(300):
        deep = {"a": deep}
    with pytest.raises(MatrixError, match="M_BAD_JSON"):
        room.make(ALICE, "x", deep)
