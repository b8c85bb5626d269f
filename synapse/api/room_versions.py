"""The table of room versions: what is the same in all rooms of a version and differs between versions.

Each feature is one field with the version that introduced it, so that code asks `version.knocking` and never compares
version numbers: versions are opaque strings without an order (room versions, "Room version grammar"). Which version new
rooms get is a setting, not a fact of this table.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

from synapse.api.errors import unsupported_room_version


class EventFormat(enum.Enum):
    """How an event looks between servers."""

    V1 = 1  # event_id in the event; prev_events and auth_events are pairs of id and hashes
    V3 = 3  # no event_id; prev_events and auth_events are lists of ids


class EventIdScheme(enum.Enum):
    """Where an event's id comes from."""

    ASSIGNED = 1  # $opaque:domain, chosen by the sender's server
    HASH = 3  # $ and the reference hash, in standard unpadded base64
    URL_SAFE_HASH = 4  # the same, in URL-safe unpadded base64


class StateResolution(enum.Enum):
    V1 = 1
    V2 = 2
    V2_1 = 21


class RedactionRules(enum.Enum):
    """Which keys survive a redaction; `synapse.events.redaction` holds the rules themselves."""

    V1 = 1  # keeps `aliases` of m.room.aliases
    V6 = 6
    V8 = 8  # keeps `allow` of m.room.join_rules
    V9 = 9  # keeps `join_authorised_via_users_server` of m.room.member
    V11 = 11  # keeps all of m.room.create, `invite` of power levels, `redacts`; drops three legacy keys


class PowerLevelValues(enum.Enum):
    """What counts as a number in m.room.power_levels."""

    LENIENT = 1  # integers, strings of integers, floats (truncated)
    STRINGS = 6  # integers and strings of integers: canonical JSON has no floats
    INTEGERS = 10


@dataclass(frozen=True, slots=True)
class RoomVersion:
    """One room version. Two values are equal if and only if they are the same version."""

    identifier: str
    event_format: EventFormat
    event_ids: EventIdScheme
    state_resolution: StateResolution
    redaction_rules: RedactionRules
    power_level_values: PowerLevelValues
    stable: bool = True
    strict_canonical_json: bool = False  # v6: integers of 54 bits, no floats
    enforce_key_validity: bool = False  # v5: valid_until_ts counts when checking signatures
    aliases_auth_rule: bool = True  # until v5: m.room.aliases needs a state_key of the sender's domain
    redaction_auth_rule: bool = True  # until v2: the redact level is part of the authorisation rules
    notifications_auth_rule: bool = False  # v6: `notifications` is protected like `events`
    knocking: bool = False  # v7
    restricted_joins: bool = False  # v8
    knock_restricted: bool = False  # v10
    implicit_creator: bool = False  # v11: the creator is the sender, there is no content.creator
    redacts_in_content: bool = False  # v11: `redacts` is in the content of m.room.redaction
    room_id_from_create: bool = False  # v12: room id = id of the create event; it is never in auth_events
    privileged_creators: bool = False  # v12: creators, additional ones included, have infinite power

    def __str__(self) -> str:
        return self.identifier

    def __hash__(self) -> int:
        return hash(self.identifier)


_V1 = RoomVersion(
    identifier="1",
    event_format=EventFormat.V1,
    event_ids=EventIdScheme.ASSIGNED,
    state_resolution=StateResolution.V1,
    redaction_rules=RedactionRules.V1,
    power_level_values=PowerLevelValues.LENIENT,
)
_V2 = replace(_V1, identifier="2", state_resolution=StateResolution.V2)
_V3 = replace(_V2, identifier="3", event_format=EventFormat.V3, event_ids=EventIdScheme.HASH, redaction_auth_rule=False)
_V4 = replace(_V3, identifier="4", event_ids=EventIdScheme.URL_SAFE_HASH)
_V5 = replace(_V4, identifier="5", enforce_key_validity=True)
_V6 = replace(
    _V5,
    identifier="6",
    redaction_rules=RedactionRules.V6,
    power_level_values=PowerLevelValues.STRINGS,
    strict_canonical_json=True,
    aliases_auth_rule=False,
    notifications_auth_rule=True,
)
_V7 = replace(_V6, identifier="7", knocking=True)
_V8 = replace(_V7, identifier="8", redaction_rules=RedactionRules.V8, restricted_joins=True)
_V9 = replace(_V8, identifier="9", redaction_rules=RedactionRules.V9)
_V10 = replace(_V9, identifier="10", power_level_values=PowerLevelValues.INTEGERS, knock_restricted=True)
_V11 = replace(
    _V10,
    identifier="11",
    redaction_rules=RedactionRules.V11,
    implicit_creator=True,
    redacts_in_content=True,
)
_V12 = replace(
    _V11,
    identifier="12",
    state_resolution=StateResolution.V2_1,
    room_id_from_create=True,
    privileged_creators=True,
)

ROOM_VERSIONS: Final[dict[str, RoomVersion]] = {
    version.identifier: version for version in (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8, _V9, _V10, _V11, _V12)
}
"""All room versions that this server supports, by identifier."""


def room_version(identifier: str) -> RoomVersion:
    """The room version of this name; raises M_UNSUPPORTED_ROOM_VERSION if there is none here."""
    version = ROOM_VERSIONS.get(identifier)
    if version is None:
        raise unsupported_room_version(identifier)
    return version


def supported_by(identifiers: list[str]) -> list[str]:
    """Those of `identifiers` (a remote server's `ver` parameters) which we support too, in their order."""
    return [identifier for identifier in identifiers if identifier in ROOM_VERSIONS]


def capabilities() -> dict[str, str]:
    """The `available` map of the capability `m.room_versions`."""
    return {name: "stable" if version.stable else "unstable" for name, version in ROOM_VERSIONS.items()}
