"""What the content of an event must look like where this server's own users send it. Pure.

Other servers' events are not held to this: their contents may be anything, and whoever reads them checks. Here the
mistake is told to the one who made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from synapse.api.constants import EventTypes, HistoryVisibility, Membership
from synapse.api.errors import bad_json, invalid_param
from synapse.api.identifiers import is_room_alias, is_room_id, is_user_id
from synapse.api.room_versions import RoomVersion
from synapse.events.power_levels import LEVEL_DEFAULTS, parse_level

_TEXTS: Final[Mapping[str, tuple[str, ...]]] = {
    EventTypes.NAME: ("name",),
    EventTypes.TOPIC: ("topic",),
    EventTypes.JOIN_RULES: ("join_rule",),
    EventTypes.HISTORY_VISIBILITY: ("history_visibility",),
    EventTypes.GUEST_ACCESS: ("guest_access",),
    EventTypes.ENCRYPTION: ("algorithm",),
    EventTypes.MEMBER: ("membership",),
}
"""Properties that must be strings, and there; a room's name and topic may be taken away by leaving everything out."""

# Of m.room.join_rules, `allow` may be anything: conditions that nobody understands are fulfilled by nobody, and a later
# version of the specification may have other ones.
_MAY_BE_EMPTY: Final = frozenset({EventTypes.NAME, EventTypes.TOPIC})


def check_content(event_type: str, state_key: str | None, content: Mapping[str, Any], version: RoomVersion) -> None:
    """Raise 400 M_BAD_JSON or M_INVALID_PARAM for content that means nothing in a room of that version."""
    if event_type == EventTypes.POWER_LEVELS:
        _check_power_levels(content, version)
    if state_key is None:
        return
    for name in _TEXTS.get(event_type, ()):
        if not isinstance(content.get(name), str) and not (event_type in _MAY_BE_EMPTY and name not in content):
            raise bad_json(f"The content of {event_type} must have the string '{name}'.")
    check = _CHECKS.get(event_type)
    if check is not None:
        check(state_key, content)


def _check_member(state_key: str, content: Mapping[str, Any]) -> None:
    if content["membership"] not in Membership.ALL:
        raise bad_json(f"A membership is one of {', '.join(sorted(Membership.ALL))}.")
    if not is_user_id(state_key):
        raise invalid_param("The state key of m.room.member must be a user ID.")
    for name in ("displayname", "avatar_url", "reason"):
        if content.get(name) is not None and not isinstance(content[name], str):
            raise bad_json(f"The '{name}' of m.room.member must be a string.")
    if not isinstance(content.get("is_direct", False), bool):
        raise bad_json("The 'is_direct' of m.room.member must be true or false.")
    if not isinstance(content.get("third_party_invite", {}), dict):
        raise bad_json("The 'third_party_invite' of m.room.member must be an object.")


def _check_power_levels(content: Mapping[str, Any], version: RoomVersion) -> None:
    """The numbers are numbers. The authorisation rules ask this of some only, and take strings in old rooms, which
    nobody is to send any more (server-server API, "Authorisation rules")."""
    for name in LEVEL_DEFAULTS:
        if name in content and not _is_level(content[name], version):
            raise bad_json(f"The power level '{name}' must be an integer.")
    for table in ("events", "notifications", "users"):
        entries = content.get(table, {})
        if not isinstance(entries, dict) or not all(_is_level(level, version) for level in entries.values()):
            raise bad_json(f"'{table}' of the power levels must be an object with integers.")
    for user_id in content.get("users", {}):
        if not is_user_id(user_id):
            raise bad_json(f"The keys in 'users' of the power levels must be user IDs, which '{user_id:.80}' is not.")


def _is_level(value: Any, version: RoomVersion) -> bool:
    return type(value) is int and parse_level(value, version) is not None


def _check_create(_state_key: str, content: Mapping[str, Any]) -> None:
    if not isinstance(content.get("m.federate", True), bool):
        raise bad_json("The 'm.federate' of m.room.create must be true or false.")
    if not isinstance(content.get("type", ""), str):
        raise bad_json("The 'type' of m.room.create must be a string.")
    additional = content.get("additional_creators", [])
    if not isinstance(additional, list) or not all(isinstance(u, str) and is_user_id(u) for u in additional):
        raise bad_json("The 'additional_creators' of m.room.create must be an array of user IDs.")
    predecessor = content.get("predecessor", {"room_id": "!x:x"})
    room_id = predecessor.get("room_id") if isinstance(predecessor, dict) else None
    if not isinstance(room_id, str) or not is_room_id(room_id):
        raise bad_json("The 'predecessor' of m.room.create must be an object with a room ID as 'room_id'.")


def _check_server_acl(_state_key: str, content: Mapping[str, Any]) -> None:
    for name in ("allow", "deny"):
        servers = content.get(name, [])
        if not isinstance(servers, list) or not all(isinstance(server, str) for server in servers):
            raise bad_json(f"The '{name}' of m.room.server_acl must be an array of strings.")
    # What `allow_ip_literals` is otherwise than true or false, it is true (its schema): nothing is wrong about it.


def _check_visibility(_state_key: str, content: Mapping[str, Any]) -> None:
    if content["history_visibility"] not in HistoryVisibility.ALL:
        raise bad_json(f"A history visibility is one of {', '.join(sorted(HistoryVisibility.ALL))}.")


def _check_canonical_alias(_state_key: str, content: Mapping[str, Any]) -> None:
    for alias in aliases_in(content):
        if not is_room_alias(alias):
            raise invalid_param(f"'{alias}' is not a room alias; it should look like #name:server.")


_CHECKS: Final = {
    EventTypes.CREATE: _check_create,
    EventTypes.MEMBER: _check_member,
    EventTypes.SERVER_ACL: _check_server_acl,
    EventTypes.HISTORY_VISIBILITY: _check_visibility,
    EventTypes.CANONICAL_ALIAS: _check_canonical_alias,
}


def aliases_in(content: Mapping[str, Any]) -> list[str]:
    """The aliases that an m.room.canonical_alias names, each once. Raises M_BAD_JSON where they are no strings."""
    alias = content.get("alias")
    others = content.get("alt_aliases", [])
    if alias is not None and not isinstance(alias, str):
        raise bad_json("The 'alias' of m.room.canonical_alias must be a string.")
    if not isinstance(others, list) or not all(isinstance(other, str) for other in others):
        raise bad_json("The 'alt_aliases' of m.room.canonical_alias must be an array of strings.")
    return list(dict.fromkeys([*([alias] if alias else []), *others]))
