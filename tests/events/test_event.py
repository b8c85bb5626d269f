"""The event value: its fields in every room version, and that it costs nothing until it is looked at."""

from __future__ import annotations

import copy
import pickle

import orjson
import pytest

from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events import builder
from synapse.events.event import Event
from synapse.events.validation import check_fields
from tests.events.factory import ALICE, BOB, KEY, SERVER, Room, usual_room

ALL = list(ROOM_VERSIONS)


@pytest.mark.parametrize("version", ALL)
def test_fields(version: str) -> None:
    room = usual_room(version)
    event = room.make(BOB, "m.room.member", {"membership": "join"}, BOB, ts=5)
    for same in (
        event,
        Event.from_json(event.json, room.version),
        Event.from_json(event.json.decode(), room.version, event_id=event.event_id),
        Event.from_json(orjson.loads(event.json), room.version),
        copy.copy(event),
        pickle.loads(pickle.dumps(event)),
    ):
        assert same.event_id == event.event_id
        assert same.room_id == room.room_id
        assert (same.type, same.state_key, same.sender) == ("m.room.member", BOB, BOB)
        assert same.key == ("m.room.member", BOB)
        assert same.membership == "join"
        assert same.origin_server_ts == 5
        assert same.prev_event_ids == (room.heads[0],)
        assert set(same.auth_event_ids) <= room.events.keys()
        assert same.json == event.json
        assert same == event
        assert hash(same) == hash(event)
        assert same.is_state()
        assert same.redacts is None


@pytest.mark.parametrize("version", ALL)
def test_messages(version: str) -> None:
    room = usual_room(version)
    event = room.make(BOB, "m.room.message", {"url": "x"})
    assert not event.is_state()
    assert event.state_key is None
    assert event.membership is None
    assert event.contains_url
    assert event != event.redacted()
    assert event.redacted().event_id == event.event_id
    assert event.redacted().content == {}
    assert not event.redacted().contains_url
    assert "m.room.message" in repr(event)
    assert event != 1


def test_nothing_is_parsed_before_it_is_asked_for() -> None:
    version = ROOM_VERSIONS["12"]
    event = Event.from_json(b"this is not JSON at all", version, event_id="$x")
    assert event.event_id == "$x"
    assert event.json == b"this is not JSON at all"
    with pytest.raises(AttributeError):
        _ = event.nothing_of_that_name  # type: ignore[attr-defined]  # that is the point


@pytest.mark.parametrize("version", ALL)
def test_room_id_of_create_events(version: str) -> None:
    room = Room(version)
    assert room.create.room_id == room.room_id
    if version == "12":
        assert room.create.room_id == "!" + room.create.event_id[1:]
        assert "room_id" not in room.create.raw
        stored = Event.from_json(room.create.json, room.version, event_id=room.create.event_id)
        assert stored.room_id == room.room_id


@pytest.mark.parametrize("version", ALL)
def test_redacts(version: str) -> None:
    room = usual_room(version)
    assert room.make(ALICE, "m.room.redaction", {}, redacts="$x:y").redacts == "$x:y"
    assert room.make(ALICE, "m.room.redaction", {}).redacts is None
    content = {"redacts": "$x:y"}
    found = room.make(ALICE, "m.room.redaction", content).redacts
    assert found == ("$x:y" if int(version) >= 11 else None)


def test_old_rooms_keep_large_numbers() -> None:
    room = usual_room("5")
    event = room.make(ALICE, "x", {"n": 2**70, "f": 1.5})
    again = Event.from_json(event.json, room.version, event_id=event.event_id)
    assert again.content == {"n": 2**70, "f": 1.5}


@pytest.mark.parametrize("version", ["1", "2"])
def test_reference_hashes_of_old_rooms(version: str) -> None:
    rules = ROOM_VERSIONS[version]
    draft = builder.draft(
        rules,
        room_id="!x:y",
        sender=ALICE,
        type="x",
        content={},
        prev_events=["$a:b", "$c:d"],
        auth_events=[],
        depth=3,
        origin_server_ts=1,
        reference_hashes={"$a:b": "hash"},
    )
    assert draft["prev_events"] == [["$a:b", {"sha256": "hash"}], ["$c:d", {}]]


@pytest.mark.parametrize("version", ALL)
def test_nothing_is_deeper_than_a_number_may_be(version: str) -> None:
    rules = ROOM_VERSIONS[version]
    deepest = 2**53 - 1 if rules.strict_canonical_json else 2**63 - 1
    for depth in (1, deepest, deepest + 1):
        draft = builder.draft(
            rules,
            room_id="!x:y" if not rules.room_id_from_create else "!" + "x" * 43,
            sender=ALICE,
            type="x",
            content={},
            prev_events=[],
            auth_events=[],
            depth=depth,
            origin_server_ts=1,
        )
        assert draft["depth"] == min(depth, deepest)
        check_fields({**draft, "event_id": "$e:y"}, rules)


@pytest.mark.parametrize("version", ALL)
def test_sealing_a_template_drops_what_somebody_put_into_it(version: str) -> None:
    room = usual_room(version)
    event = room.make(BOB, "m.room.member", {"membership": "join"}, BOB)
    template = {**event.raw, "unsigned": {"x": 1}, "hashes": {"md5": "x"}, "signatures": {"evil": {}}}
    sealed = builder.seal(template, room.version, SERVER, KEY)
    assert sealed == event
