"""What a push gateway is told: the bodies of `POST /_matrix/push/v1/notify`, and what it answers.

Push Gateway API, "Homeserver behaviour".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import orjson

from synapse.api.constants import EventTypes, Membership

if TYPE_CHECKING:
    from synapse.events.event import Event
    from synapse.http.client import ClientAnswer
    from synapse.storage.pushers import Action, Due, Key

MAX_CONTENT: Final = 16 * 1024
"""Bytes of content; a larger one is left out, since no phone's maker would carry it."""
MAX_NAME: Final = 255
"""Characters of names, which people can make very long."""


def of_event(key: Key, due: Due, action: Action, event: Event, unread: int, *, include_content: bool) -> dict[str, Any]:
    """Tells of an event. Which of its fields depends on the pusher's `format`."""
    data = orjson.loads(due.data)
    told: dict[str, Any] = {
        "event_id": event.event_id,
        "room_id": event.room_id,
        "counts": {"unread": unread} if unread else {},
        "prio": "high",
    }
    tweaks = _tweaks(action.actions)
    if not (action.highlight or "sound" in tweaks or event.type == EventTypes.ENCRYPTED):
        told["prio"] = "low"  # nobody is alerted, so it may wait; what is encrypted has to be looked at to know
    if data.get("format") != "event_id_only":
        told.update(_described(key, action, event, include_content))
    told["devices"] = [_device(key, due, data, tweaks)]
    return {"notification": told}


def of_count(key: Key, due: Due, unread: int) -> dict[str, Any]:
    """Tells how much is unread, and nothing else: also 0, which the specification would have left out elsewhere."""
    device = _device(key, due, orjson.loads(due.data), {})
    return {"notification": {"counts": {"unread": unread}, "prio": "low", "devices": [device]}}


def rejects(answer: ClientAnswer, pushkey: str) -> bool:
    """Whether the gateway says that there is no such pushkey, so that it is not to be told anything more."""
    rejected = answer.json_object().get("rejected")
    return isinstance(rejected, list) and pushkey in rejected


def _described(key: Key, action: Action, event: Event, include_content: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": event.event_id,  # the name that `event_id` had once, for gateways of then
        "type": event.type,
        "sender": event.sender,
    }
    names = {
        "sender_display_name": action.sender_name,
        "room_name": action.room_name or action.room_alias,  # as clients name it
        "room_alias": action.room_alias,
    }
    told.update((name, value[:MAX_NAME]) for name, value in names.items() if value)
    if event.type == EventTypes.MEMBER and event.state_key is not None:
        told["user_is_target"] = event.state_key == key.user_id
        if event.membership in (Membership.INVITE, Membership.JOIN, Membership.LEAVE, Membership.BAN):
            told["membership"] = event.membership  # of gateways of then, likewise
    if include_content and len(orjson.dumps(event.content)) <= MAX_CONTENT:
        told["content"] = event.content
    return told


def _device(key: Key, due: Due, data: dict[str, Any], tweaks: dict[str, Any]) -> dict[str, Any]:
    return {
        "app_id": key.app_id,
        "pushkey": key.pushkey,
        "pushkey_ts": due.set_ts // 1000,
        "data": {name: value for name, value in data.items() if name != "url"},
        "tweaks": tweaks,
    }


def _tweaks(actions: str) -> dict[str, Any]:
    """Of a rule's actions; a `highlight` without a value is true (client-server API, "Actions")."""
    found: dict[str, Any] = {}
    for action in orjson.loads(actions):
        if isinstance(action, dict) and isinstance(action.get("set_tweak"), str):
            tweak = action["set_tweak"]
            if "value" in action:
                found[tweak] = action["value"]
            elif tweak == "highlight":
                found[tweak] = True
    return found
