"""The names in what push gateways are told."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events.event import Event
from synapse.push.notification import of_event
from synapse.storage.pushers import Action, Due, Key

ALICE, FAR = "@alice:test", "@far:far"
KEY = Key(ALICE, "app", "key")


def told(state: Any, *, membership: str = "invite", name: str | None = None) -> dict[str, Any]:
    """What is told of the invite that came with this stripped state; `name` is the room's, as far as it is known."""
    raw = {
        "type": "m.room.member",
        "room_id": "!r:far",
        "sender": FAR,
        "state_key": ALICE,
        "content": {"membership": membership},
        "prev_events": [],
        "auth_events": [],
        "depth": 1,
        "origin_server_ts": 1,
        "unsigned": {"invite_room_state": state},
    }
    event = Event.from_json(raw, ROOM_VERSIONS["10"], event_id="$e")
    action = Action(1, "$e", '["notify"]', False, None, name, None)
    due = Due("{}", 0, None, 0, 1, 1, action)
    notification: dict[str, Any] = of_event(KEY, due, action, event, 1, include_content=False)["notification"]
    return {key: value for key, value in notification.items() if "name" in key or "alias" in key}


def entry(event_type: str, content: Any, state_key: Any = "") -> dict[str, Any]:
    return {"type": event_type, "state_key": state_key, "sender": FAR, "content": content}


def test_an_invite_from_another_server_says_what_the_room_and_the_sender_are_called() -> None:
    state = [
        entry("m.room.name", {"name": "Far away"}),
        entry("m.room.canonical_alias", {"alias": "#away:far"}),
        entry("m.room.member", {"membership": "join", "displayname": "Far"}, FAR),
    ]
    assert told(state) == {"sender_display_name": "Far", "room_name": "Far away", "room_alias": "#away:far"}
    assert told(state[1:2]) == {"room_name": "#away:far", "room_alias": "#away:far"}
    assert told(state, membership="leave", name="Known") == {"room_name": "Known"}
    assert told([], name="Known") == {"room_name": "Known"}


@pytest.mark.parametrize(
    "state",
    [
        "x",
        {"m.room.name": 1},
        [1, None, {}, {"type": ["x"], "state_key": "", "content": {}}],
        [entry("m.room.name", "x"), entry("m.room.name", {"name": "x"}, None)],
        [entry("m.room.name", {"name": ["x"]}), entry("m.room.canonical_alias", {"alias": {}})],
    ],
)
def test_a_stripped_state_of_another_form_names_nothing(state: Any) -> None:
    assert told(state) == {}


def test_long_names_are_cut() -> None:
    assert len(told([entry("m.room.name", {"name": "x" * 1000})])["room_name"]) == 255
