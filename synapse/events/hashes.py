"""Content hashes, reference hashes, and the event ids made of them.

Server-server API, "Calculating the content hash for an event" and "Calculating the reference hash for an event"; room
versions, "Event IDs".
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from synapse.api.errors import bad_json
from synapse.api.room_versions import EventIdScheme, RoomVersion
from synapse.events import canonical
from synapse.events.redaction import redact

_NOT_HASHED = ("unsigned", "signatures", "hashes")


def canonical_bytes(value: Mapping[str, Any], room_version: RoomVersion) -> bytes:
    """Canonical JSON by the rules of the room version; raises M_BAD_JSON if the value has none."""
    if not room_version.strict_canonical_json:
        return canonical.encode_lenient(value)
    try:
        return canonical.encode(value)
    except TypeError as error:  # lone surrogates, integers of more than 64 bits
        raise bad_json("The event holds a value that has no canonical JSON form.") from error


def essential_bytes(event: Mapping[str, Any], room_version: RoomVersion) -> bytes:
    """What signatures and the reference hash cover: the redacted event without signatures, in canonical JSON."""
    essential = redact(event, room_version)
    essential.pop("signatures", None)
    return canonical_bytes(essential, room_version)


def content_hash(event: Mapping[str, Any], room_version: RoomVersion) -> str:
    """SHA-256 over the whole event, in unpadded base64: the value of `hashes.sha256`."""
    hashed = {key: value for key, value in event.items() if key not in _NOT_HASHED}
    return unpadded_base64(hashlib.sha256(canonical_bytes(hashed, room_version)).digest())


def has_valid_content_hash(event: Mapping[str, Any], room_version: RoomVersion) -> bool:
    """Whether `hashes.sha256` is right; if not, the event counts as its redacted copy."""
    hashes = event.get("hashes")
    claimed = hashes.get("sha256") if isinstance(hashes, dict) else None
    if not isinstance(claimed, str):
        return False
    try:
        expected = binascii.a2b_base64(content_hash(event, room_version) + "=")
        return hmac.compare_digest(binascii.a2b_base64(claimed + "=" * (-len(claimed) % 4)), expected)
    except ValueError:  # not base64, or not ASCII
        return False


def reference_hash(event: Mapping[str, Any], room_version: RoomVersion) -> str:
    """The reference hash in unpadded (standard) base64."""
    return unpadded_base64(hashlib.sha256(essential_bytes(event, room_version)).digest())


def event_id_of(event: Mapping[str, Any], room_version: RoomVersion) -> str:
    """The id of an event in federation form: its own `event_id` in room versions 1 and 2, else made of its hash."""
    if room_version.event_ids is EventIdScheme.ASSIGNED:
        event_id: str = event["event_id"]
        return event_id
    return event_id_of_bytes(essential_bytes(event, room_version), room_version)


def event_id_of_bytes(essential: bytes, room_version: RoomVersion) -> str:
    """The same from `essential_bytes`, for room versions 3 and later."""
    encoded = unpadded_base64(hashlib.sha256(essential).digest())
    if room_version.event_ids is EventIdScheme.URL_SAFE_HASH:
        encoded = encoded.replace("+", "-").replace("/", "_")
    return "$" + encoded


def unpadded_base64(data: bytes) -> str:
    """Appendices, "Unpadded Base64"."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").decode("ascii")
