"""Is this a well-formed event of its room version? Format, types and sizes, before anything else looks at it.

Not here: signatures, hashes, and whether the event is allowed in its room. All failures are `MatrixError`
400 M_BAD_JSON (413 M_TOO_LARGE for sizes), which federation turns into dropping the event.

Two things are refused that the specification's grammar would let through, because no database of text can hold them
or no encoder write them: NUL in types, state keys and ids, and nesting deeper than `canonical.MAX_NESTING`.

Room versions, "Event format"; server-server API, "Checks performed on receipt of a PDU", step 1; client-server API,
"Size limits".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from synapse.api.constants import (
    MAX_AUTH_EVENTS,
    MAX_EVENT_BYTES,
    MAX_ID_BYTES,
    MAX_INT,
    MAX_PREV_EVENTS,
    EventTypes,
)
from synapse.api.errors import bad_json, too_large
from synapse.api.identifiers import fits, is_event_id, is_room_id, is_room_id_without_domain, is_user_id
from synapse.api.room_versions import EventFormat, RoomVersion
from synapse.events import canonical
from synapse.events.hashes import canonical_bytes

_MAX_DEPTH_BEFORE_V6: Final = 2**63 - 1


def max_depth(room_version: RoomVersion) -> int:
    """The deepest that an event may be: what comes after such an event is as deep."""
    return MAX_INT if room_version.strict_canonical_json else _MAX_DEPTH_BEFORE_V6


def check_pdu(value: Any, room_version: RoomVersion, *, is_history: bool = False) -> dict[str, Any]:
    """The event itself, without its `unsigned` (which anybody may have written), if it is well-formed.

    `value` is what came over federation, parsed; it is not changed. Events of the past (`is_history`) may refer to more
    others than new ones: server-server API, `GET /backfill/{roomId}`.
    """
    if not isinstance(value, dict):
        raise bad_json("An event must be a JSON object.")
    event = {key: item for key, item in value.items() if key != "unsigned"}
    if room_version.strict_canonical_json:
        canonical.check(event)
    else:
        canonical.check_nesting(event)
    check_fields(event, room_version)
    _check_references(event, room_version, is_history)
    _check_hashes(event)
    check_size(canonical_bytes(event, room_version))
    return event


def check_size(json: bytes) -> None:
    """Raise M_TOO_LARGE if an event (canonical JSON, signed, without `unsigned`) has more than 65,536 bytes."""
    if len(json) > MAX_EVENT_BYTES:
        raise too_large(f"An event may have {MAX_EVENT_BYTES} bytes at most; this one has {len(json)}.")


def check_fields(event: Mapping[str, Any], room_version: RoomVersion) -> None:
    """Types and sizes of the fields that every event has, signed or not yet."""
    event_type = event.get("type")
    _check_text("type", event_type)
    sender = event.get("sender")
    if not isinstance(sender, str) or not is_user_id(sender):
        raise bad_json("The 'sender' of an event must be a user ID.")
    if "state_key" in event:
        _check_text("state_key", event["state_key"])
    if not isinstance(event.get("content"), dict):
        raise bad_json("The 'content' of an event must be an object.")
    if "redacts" in event and not room_version.redacts_in_content:
        _check_text("redacts", event["redacts"])
    _check_integer("origin_server_ts", event.get("origin_server_ts"), None)
    _check_integer("depth", event.get("depth"), max_depth(room_version))
    _check_room_id(event, room_version)
    if room_version.event_format is EventFormat.V1:
        event_id = event.get("event_id")
        if not isinstance(event_id, str) or not is_event_id(event_id) or ":" not in event_id:
            raise bad_json("The 'event_id' of an event must look like $name:server in this room version.")


def _check_room_id(event: Mapping[str, Any], room_version: RoomVersion) -> None:
    room_id = event.get("room_id")
    if not room_version.room_id_from_create:
        if not isinstance(room_id, str) or not is_room_id(room_id):
            raise bad_json("The 'room_id' of an event must be a room ID.")
    elif event["type"] == EventTypes.CREATE:
        if "room_id" in event:
            raise bad_json("In this room version the m.room.create event must not have a 'room_id'.")
    elif not isinstance(room_id, str) or not is_room_id_without_domain(room_id):
        raise bad_json("The 'room_id' of an event must be the ID of the create event with '!' for '$'.")


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise bad_json(f"The '{name}' of an event must be a string.")
    if not fits(value):
        raise too_large(f"The '{name}' of an event may have {MAX_ID_BYTES} bytes at most.")
    if "\x00" in value:
        raise bad_json(f"The '{name}' of an event must not contain NUL.")


def _check_integer(name: str, value: Any, maximum: int | None) -> None:
    if type(value) is not int:
        raise bad_json(f"The '{name}' of an event must be an integer.")
    if maximum is not None and not 0 <= value <= maximum:
        raise bad_json(f"The '{name}' of an event must lie between 0 and {maximum}.")
    if not -(2**63) <= value < 2**63:
        raise bad_json(f"The '{name}' of an event must fit into 64 bits.")


def _check_references(event: Mapping[str, Any], room_version: RoomVersion, is_history: bool) -> None:
    for name, limit in (("prev_events", MAX_PREV_EVENTS), ("auth_events", MAX_AUTH_EVENTS)):
        references = event.get(name)
        if not isinstance(references, list):
            raise bad_json(f"The '{name}' of an event must be an array.")
        if len(references) > limit and not is_history:
            raise bad_json(f"The '{name}' of an event may name {limit} events at most.")
        pairs = room_version.event_format is EventFormat.V1
        if not all(_is_pair(item) if pairs else _is_id(item) for item in references):
            form = "pairs of an event ID and hashes" if pairs else "event IDs"
            raise bad_json(f"The '{name}' of an event must be an array of {form}.")


def _is_id(item: Any) -> bool:
    return isinstance(item, str) and is_event_id(item)


def _is_pair(item: Any) -> bool:
    return isinstance(item, list) and len(item) == 2 and _is_id(item[0]) and isinstance(item[1], dict)


def _check_hashes(event: Mapping[str, Any]) -> None:
    hashes = event.get("hashes")
    if not isinstance(hashes, dict) or not isinstance(hashes.get("sha256"), str):
        raise bad_json("An event must have 'hashes' with a 'sha256'.")
    signatures = event.get("signatures")
    if not isinstance(signatures, dict) or not all(_is_signature_map(keys) for keys in signatures.values()):
        raise bad_json("The 'signatures' of an event must map servers to keys to signatures.")


def _is_signature_map(keys: Any) -> bool:
    return isinstance(keys, dict) and all(isinstance(signature, str) for signature in keys.values())
