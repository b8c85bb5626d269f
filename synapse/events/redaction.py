"""The redaction algorithm: what is left of an event when everything not essential to the protocol is removed.

The same algorithm decides what signatures and event ids cover. Whether a redaction event may redact another is a
question of power levels, asked elsewhere (`synapse.events.auth.may_redact`).

Room versions, "Redactions" of each version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from synapse.api.constants import EventTypes
from synapse.api.room_versions import RedactionRules, RoomVersion

_KEPT_UNTIL_V10: Final = (
    "event_id",
    "type",
    "room_id",
    "sender",
    "state_key",
    "content",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "prev_state",
    "auth_events",
    "origin",
    "origin_server_ts",
    "membership",
)
_DROPPED_BY_V11: Final = {"prev_state", "origin", "membership"}
_KEPT_SINCE_V11: Final = tuple(key for key in _KEPT_UNTIL_V10 if key not in _DROPPED_BY_V11)

_POWER_LEVELS: Final = (
    "ban",
    "events",
    "events_default",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
)

ContentKeys = Mapping[str, tuple[str, ...]]

_V6: Final[ContentKeys] = {
    EventTypes.MEMBER: ("membership",),
    EventTypes.CREATE: ("creator",),
    EventTypes.JOIN_RULES: ("join_rule",),
    EventTypes.POWER_LEVELS: _POWER_LEVELS,
    EventTypes.HISTORY_VISIBILITY: ("history_visibility",),
}
_V1: Final[ContentKeys] = {**_V6, EventTypes.ALIASES: ("aliases",)}
_V8: Final[ContentKeys] = {**_V6, EventTypes.JOIN_RULES: ("join_rule", "allow")}
_V9: Final[ContentKeys] = {**_V8, EventTypes.MEMBER: ("membership", "join_authorised_via_users_server")}
_V11: Final[ContentKeys] = {
    **_V9,
    EventTypes.POWER_LEVELS: (*_POWER_LEVELS, "invite"),
    EventTypes.REDACTION: ("redacts",),
}

_CONTENT_KEYS: Final[Mapping[RedactionRules, ContentKeys]] = {
    RedactionRules.V1: _V1,
    RedactionRules.V6: _V6,
    RedactionRules.V8: _V8,
    RedactionRules.V9: _V9,
    RedactionRules.V11: _V11,
}


def redact(event: Mapping[str, Any], room_version: RoomVersion) -> dict[str, Any]:
    """A new dict with what remains of the event (federation form). `unsigned` does not; nested values are shared."""
    rules = room_version.redaction_rules
    keys = _KEPT_SINCE_V11 if rules is RedactionRules.V11 else _KEPT_UNTIL_V10
    redacted = {key: event[key] for key in keys if key in event}
    content = event.get("content")
    redacted["content"] = _redact_content(event.get("type"), content, rules) if isinstance(content, dict) else {}
    return redacted


def _redact_content(event_type: Any, content: dict[str, Any], rules: RedactionRules) -> dict[str, Any]:
    if rules is RedactionRules.V11 and event_type == EventTypes.CREATE:
        return content
    allowed = _CONTENT_KEYS[rules].get(event_type) if isinstance(event_type, str) else None
    if allowed is None:
        return {}
    kept = {key: content[key] for key in allowed if key in content}
    if rules is RedactionRules.V11 and event_type == EventTypes.MEMBER:
        _keep_signed_invite(content, kept)
    return kept


def _keep_signed_invite(content: dict[str, Any], kept: dict[str, Any]) -> None:
    # The invite itself stays, "but will only contain the signed key": an object without one is left empty.
    invite = content.get("third_party_invite")
    if isinstance(invite, dict):
        kept["third_party_invite"] = {key: invite[key] for key in ("signed",) if key in invite}
