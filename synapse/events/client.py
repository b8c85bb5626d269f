"""Events as clients see them: the client format of the client-server API, and stripped state.

Only the shape. Whether the client may see the event is `synapse.events.visibility`'s matter, and what is aggregated
under it (`relations`) the caller's.

Client-server API, "Room event format", "Stripped state"; room version 11 for `redacts`; definitions `client_event` and
`stripped_state`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synapse.api.constants import EventTypes
from synapse.events.event import Event


def format(
    event: Event,
    *,
    now: int | None = None,
    room_id: bool = True,
    transaction_id: str | None = None,
    prev_content: Mapping[str, Any] | None = None,
    replaces_state: str | None = None,
    redacted_because: Mapping[str, Any] | None = None,
    membership: str | None = None,
    relations: Mapping[str, Any] | None = None,
    unsigned: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The event as a JSON object for a client; a new dict whose `content` belongs to the event.

    `now` (milliseconds) gives `age`. `room_id` is False where the response implies it, as in /sync. `transaction_id`
    is for the device that sent the event only. `redacted_because` is the redaction in this same format, and
    `relations` the bundled aggregations. `unsigned` are further keys there (`invite_room_state`…).
    """
    result: dict[str, Any] = {
        "type": event.type,
        "sender": event.sender,
        "content": event.content,
        "event_id": event.event_id,
        "origin_server_ts": event.origin_server_ts,
    }
    if event.state_key is not None:
        result["state_key"] = event.state_key
    if room_id:
        result["room_id"] = event.room_id
    if event.redacts is not None:
        _place_redacts(result, event.redacts)
    data: dict[str, Any] = {} if unsigned is None else dict(unsigned)
    if now is not None:
        data["age"] = now - event.origin_server_ts
    for key, value in (
        ("transaction_id", transaction_id),
        ("prev_content", prev_content),
        ("replaces_state", replaces_state),
        ("redacted_because", redacted_because),
        ("membership", membership),
        ("m.relations", relations),
    ):
        if value is not None:
            data[key] = value
    if data:
        result["unsigned"] = data
    return result


def _place_redacts(result: dict[str, Any], redacts: str) -> None:
    """Old clients look for `redacts` at the top, newer ones in the content: they find it in both, in all versions."""
    result["redacts"] = redacts
    if result["content"].get("redacts") != redacts:
        result["content"] = {**result["content"], "redacts": redacts}


def stripped(event: Event) -> dict[str, Any]:
    """A state event as stripped state: type, state key, sender and content."""
    return {"type": event.type, "state_key": event.state_key, "sender": event.sender, "content": event.content}


STRIPPED_STATE_TYPES = (
    EventTypes.CREATE,
    EventTypes.NAME,
    EventTypes.AVATAR,
    EventTypes.TOPIC,
    EventTypes.JOIN_RULES,
    EventTypes.CANONICAL_ALIAS,
    EventTypes.ENCRYPTION,
)
"""What stripped state should contain, all with the empty state key; the create event is a must."""
