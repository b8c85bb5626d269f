"""Making events: put the fields together, hash, sign. A pure function of its arguments, clock and key included.

Whether the event is allowed is not asked here (`synapse.events.auth.check`); whether it is well-formed is: a builder's
event passes `synapse.events.validation`, or M_BAD_JSON or M_TOO_LARGE is raised.

Server-server API, "Adding hashes and signatures to outgoing events".
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from synapse.api.constants import EventTypes
from synapse.api.identifiers import new_event_id
from synapse.api.room_versions import EventFormat, EventIdScheme, RoomVersion
from synapse.events import canonical
from synapse.events.event import Event
from synapse.events.hashes import canonical_bytes, essential_bytes, event_id_of_bytes, unpadded_base64
from synapse.events.signing import key_id_of, signature_over
from synapse.events.validation import check_fields, check_size, max_depth

if TYPE_CHECKING:
    from signedjson.types import SigningKey


def build(
    room_version: RoomVersion,
    *,
    room_id: str | None,
    sender: str,
    type: str,
    content: dict[str, Any],
    prev_events: Sequence[str],
    auth_events: Sequence[str],
    depth: int,
    origin_server_ts: int,
    server_name: str,
    signing_key: SigningKey,
    state_key: str | None = None,
    redacts: str | None = None,
    origin: str | None = None,
    event_id: str | None = None,
    reference_hashes: Mapping[str, str] | None = None,
) -> Event:
    """A new event of ours, hashed and signed.

    `room_id` is None for the create event of a room version in which it names the room (12 and later). `redacts` goes
    where the room version wants it. `origin` is the server that an event says it is of: what another server is asked to
    sign has that. `event_id` and `reference_hashes` (of the prev and auth events, by id) concern room versions 1 and 2
    only; an id is invented if none is given.
    """
    event = draft(
        room_version,
        room_id=room_id,
        sender=sender,
        type=type,
        content=content,
        prev_events=prev_events,
        auth_events=auth_events,
        depth=depth,
        origin_server_ts=origin_server_ts,
        state_key=state_key,
        redacts=redacts,
        reference_hashes=reference_hashes,
    )
    if origin is not None:
        event["origin"] = origin
    if room_version.event_ids is EventIdScheme.ASSIGNED:
        event["event_id"] = event_id or new_event_id(server_name)
    return seal(event, room_version, server_name, signing_key)


def draft(
    room_version: RoomVersion,
    *,
    room_id: str | None,
    sender: str,
    type: str,
    content: dict[str, Any],
    prev_events: Sequence[str],
    auth_events: Sequence[str],
    depth: int,
    origin_server_ts: int,
    state_key: str | None = None,
    redacts: str | None = None,
    reference_hashes: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The event before it is hashed and signed, as make_join and its kin hand it to another server."""
    event: dict[str, Any] = {
        "type": type,
        "sender": sender,
        "content": content,
        "depth": min(depth, max_depth(room_version)),
        "origin_server_ts": origin_server_ts,
        "prev_events": _references(prev_events, room_version, reference_hashes),
        "auth_events": _references(auth_events, room_version, reference_hashes),
    }
    if room_id is not None and not (room_version.room_id_from_create and type == EventTypes.CREATE):
        event["room_id"] = room_id
    if state_key is not None:
        event["state_key"] = state_key
    if redacts is not None:
        if room_version.redacts_in_content:
            event["content"] = {**content, "redacts": redacts}
        else:
            event["redacts"] = redacts
    return event


def seal(event: dict[str, Any], room_version: RoomVersion, server_name: str, signing_key: SigningKey) -> Event:
    """Hash and sign a draft (of ours, or a template of another server) as `server_name`. The dict is taken over.

    Hashes, signatures and `unsigned` that it may hold already are dropped.
    """
    for key in ("hashes", "signatures", "unsigned"):
        event.pop(key, None)
    if room_version.strict_canonical_json:
        canonical.check(event)
    else:
        canonical.check_nesting(event)
    check_fields(event, room_version)
    digest = hashlib.sha256(canonical_bytes(event, room_version)).digest()
    event["hashes"] = {"sha256": unpadded_base64(digest)}
    # The bytes that are signed are the ones whose hash is the event's id: one redaction, one encoding for both.
    essential = essential_bytes(event, room_version)
    event["signatures"] = {server_name: {key_id_of(signing_key): signature_over(essential, signing_key)}}
    json = canonical_bytes(event, room_version)
    check_size(json)
    assigned = room_version.event_ids is EventIdScheme.ASSIGNED
    event_id = event["event_id"] if assigned else event_id_of_bytes(essential, room_version)
    return Event.from_parts(json, event, room_version, event_id)


def _references(
    event_ids: Sequence[str], room_version: RoomVersion, hashes: Mapping[str, str] | None
) -> list[str] | list[list[Any]]:
    if room_version.event_format is not EventFormat.V1:
        return list(event_ids)
    known = hashes or {}
    return [[event_id, {"sha256": known[event_id]} if event_id in known else {}] for event_id in event_ids]
