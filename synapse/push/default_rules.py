"""The push rules that every user has: data, in the order in which they are checked.

Where a rule speaks of the user whose rule it is, `USER_ID` stands for the user's id; `for_user` puts it in.

Client-server API, "Push notifications", "Predefined Rules".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

USER_ID: Final = "[the user's Matrix ID]"
"""Replaced by the user's id. Users' own rules are never looked through for it."""

MASTER: Final = ".m.rule.master"
"""The one default rule that comes before the users' own."""

JsonObject = Mapping[str, Any]

_SOUND: Final = {"set_tweak": "sound", "value": "default"}
_HIGHLIGHT: Final = {"set_tweak": "highlight"}


def _match(key: str, pattern: str) -> JsonObject:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _rule(rule_id: str, conditions: list[JsonObject], actions: list[Any], enabled: bool = True) -> JsonObject:
    return {"rule_id": rule_id, "default": True, "enabled": enabled, "conditions": conditions, "actions": actions}


_TWO_MEMBERS: Final = {"kind": "room_member_count", "is": "2"}

DEFAULT_RULES: Final[Mapping[str, tuple[JsonObject, ...]]] = {
    "override": (
        _rule(MASTER, [], [], enabled=False),
        _rule(".m.rule.suppress_notices", [_match("content.msgtype", "m.notice")], []),
        _rule(
            ".m.rule.invite_for_me",
            [_match("type", "m.room.member"), _match("content.membership", "invite"), _match("state_key", USER_ID)],
            ["notify", _SOUND],
        ),
        _rule(".m.rule.member_event", [_match("type", "m.room.member")], []),
        _rule(
            ".m.rule.is_user_mention",
            [{"kind": "event_property_contains", "key": r"content.m\.mentions.user_ids", "value": USER_ID}],
            ["notify", _SOUND, _HIGHLIGHT],
        ),
        _rule(
            ".m.rule.is_room_mention",
            [
                {"kind": "event_property_is", "key": r"content.m\.mentions.room", "value": True},
                {"kind": "sender_notification_permission", "key": "room"},
            ],
            ["notify", _HIGHLIGHT],
        ),
        _rule(
            ".m.rule.tombstone", [_match("type", "m.room.tombstone"), _match("state_key", "")], ["notify", _HIGHLIGHT]
        ),
        _rule(".m.rule.reaction", [_match("type", "m.reaction")], []),
        _rule(".m.rule.room.server_acl", [_match("type", "m.room.server_acl"), _match("state_key", "")], []),
        _rule(
            ".m.rule.suppress_edits",
            [{"kind": "event_property_is", "key": r"content.m\.relates_to.rel_type", "value": "m.replace"}],
            [],
        ),
    ),
    "content": (),
    "room": (),
    "sender": (),
    "underride": (
        _rule(".m.rule.call", [_match("type", "m.call.invite")], ["notify", {"set_tweak": "sound", "value": "ring"}]),
        _rule(
            ".m.rule.encrypted_room_one_to_one",
            [_TWO_MEMBERS, _match("type", "m.room.encrypted")],
            ["notify", _SOUND],
        ),
        _rule(".m.rule.room_one_to_one", [_TWO_MEMBERS, _match("type", "m.room.message")], ["notify", _SOUND]),
        _rule(".m.rule.message", [_match("type", "m.room.message")], ["notify"]),
        _rule(".m.rule.encrypted", [_match("type", "m.room.encrypted")], ["notify"]),
    ),
}
"""Kind to rules; the kinds are in the order in which they are checked."""

KINDS: Final = tuple(DEFAULT_RULES)


def for_user(conditions: list[JsonObject], user_id: str) -> list[dict[str, Any]]:
    """The conditions of a default rule as the user gets to see them."""
    return [{k: user_id if v == USER_ID else v for k, v in condition.items()} for condition in conditions]
