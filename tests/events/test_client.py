"""The client format of events."""

from __future__ import annotations

import pytest

from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events import client
from tests.events.factory import ALICE, BOB, Room, usual_room


def test_a_message() -> None:
    room = usual_room()
    event = room.make(BOB, "m.room.message", {"body": "x"}, ts=1000)
    assert client.format(event, now=1500, transaction_id="t") == {
        "type": "m.room.message",
        "sender": BOB,
        "content": {"body": "x"},
        "event_id": event.event_id,
        "room_id": room.room_id,
        "origin_server_ts": 1000,
        "unsigned": {"age": 500, "transaction_id": "t"},
    }


def test_sync_form_has_no_room_and_no_empty_unsigned() -> None:
    event = usual_room().make(BOB, "m.room.topic", {"topic": "x"}, "")
    formatted = client.format(event, room_id=False)
    assert "room_id" not in formatted
    assert "unsigned" not in formatted
    assert formatted["state_key"] == ""


def test_everything_in_unsigned() -> None:
    event = usual_room().make(BOB, "m.room.topic", {}, "")
    given = {"prev_content": {"topic": "y"}, "replaces_state": "$x", "redacted_because": {"a": 1}, "membership": "join"}
    unsigned = client.format(event, **given, relations={"m.thread": {}}, unsigned={"k": 1})["unsigned"]  # type: ignore[arg-type]  # one dict for arguments of several types
    assert unsigned == {**given, "m.relations": {"m.thread": {}}, "k": 1}


@pytest.mark.parametrize("version", list(ROOM_VERSIONS))
def test_redacts_is_found_in_both_places(version: str) -> None:
    room = usual_room(version)
    event = room.make(ALICE, "m.room.redaction", {"reason": "r"}, redacts="$x:y")
    formatted = client.format(event)
    assert formatted["redacts"] == "$x:y"
    assert formatted["content"] == {"reason": "r", "redacts": "$x:y"}
    assert ("redacts" in event.raw) is (int(version) < 11)


def test_create_event_of_v12_shows_the_room() -> None:
    room = Room("12")
    assert client.format(room.create)["room_id"] == room.room_id


def test_stripped_state() -> None:
    room = Room("12")
    assert client.stripped(room.create) == {
        "type": "m.room.create",
        "state_key": "",
        "sender": ALICE,
        "content": {"room_version": "12"},
    }
