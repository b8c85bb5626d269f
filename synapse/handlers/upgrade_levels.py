"""Power levels when a room is upgraded: what of them the new room gets, and what remains in the old one. Pure.

Client-server API, "Room Upgrades", server behaviour; room version 10 (levels are integers), 12 (creators).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from synapse.api.constants import MAX_INT, MIN_INT, EventTypes
from synapse.api.errors import MatrixError
from synapse.api.identifiers import is_user_id
from synapse.api.room_versions import RoomVersion
from synapse.events import canonical
from synapse.events.power_levels import LEVEL_DEFAULTS, parse_level
from synapse.handlers.room_plan import with_tombstone_level

_TABLES: Final = ("users", "events", "notifications")
_CREATOR: Final = 100
_CLOSED: Final = 50


def carried_over(
    content: dict[str, Any],
    old: RoomVersion,
    new: RoomVersion,
    old_creators: Collection[str],
    new_creators: Collection[str],
) -> dict[str, Any]:
    """The levels of the old room as the new one may have them: numbers that are integers, and users who are users.

    Creators whose power is infinite stand in no list; where it is not, they get as much as anybody has.
    """
    result = {
        key: value
        for key, value in content.items()
        if key not in LEVEL_DEFAULTS and key not in _TABLES and _can_be(value, new)
    }
    for name in LEVEL_DEFAULTS.keys() & content.keys():
        if (level := _level(content[name], old)) is not None:
            result[name] = level
    for table in _TABLES:
        entries = content.get(table)
        if isinstance(entries, dict):
            levels = {name: level for name, value in entries.items() if (level := _level(value, old)) is not None}
            result[table] = levels
    users = {user_id: level for user_id, level in result.get("users", {}).items() if is_user_id(user_id)}
    if old.privileged_creators and not new.privileged_creators:
        highest = max([_CREATOR, *users.values(), *result.get("events", {}).values()])
        users.update((user_id, highest) for user_id in old_creators)
    if new.privileged_creators:
        users = {user_id: level for user_id, level in users.items() if user_id not in new_creators}
    result["users"] = users
    if new.privileged_creators and not old.privileged_creators:
        named = result.setdefault("events", {}).get(EventTypes.TOMBSTONE, 0)
        result = with_tombstone_level(result, {}, new)
        result["events"][EventTypes.TOMBSTONE] = max(named, result["events"][EventTypes.TOMBSTONE])
    return result


def for_founding(content: dict[str, Any], version: RoomVersion, founder: str, others: Iterable[str]) -> dict[str, Any]:
    """The same with enough power for whoever makes the new room to set all its state and to ban `others`.

    `content` is what `carried_over` returned. Nothing changes for a creator with infinite power.
    """
    if version.privileged_creators:
        return content
    users = content["users"]
    default = content.get("users_default", LEVEL_DEFAULTS["users_default"])
    needed = max(
        content.get("state_default", LEVEL_DEFAULTS["state_default"]),
        content.get("ban", LEVEL_DEFAULTS["ban"]),
        *content.get("events", {}).values(),
        *(min(users.get(user_id, default) + 1, MAX_INT) for user_id in others),
        users.get(founder, default),
    )
    return content if users.get(founder, default) == needed else {**content, "users": {**users, founder: needed}}


def closed(content: dict[str, Any], version: RoomVersion) -> dict[str, Any]:
    """The old room's levels, with which ordinary users can neither speak nor invite any more. Old versions may have
    them as strings; this server writes numbers."""
    content = _as_numbers(content, version)
    users_default = _level(content.get("users_default"), version)
    level = max(_CLOSED, (LEVEL_DEFAULTS["users_default"] if users_default is None else users_default) + 1)
    raised: dict[str, int] = {}
    for name in ("events_default", "invite"):
        present = _level(content.get(name), version)
        raised[name] = level if present is None else max(present, level)
    return {**content, **raised}


def _as_numbers(content: dict[str, Any], version: RoomVersion) -> dict[str, Any]:
    """The same levels; None for what is no level."""
    levels = {name: parse_level(content[name], version) for name in LEVEL_DEFAULTS.keys() & content.keys()}
    tables = {
        table: {name: parse_level(value, version) for name, value in entries.items()}
        for table in _TABLES
        if isinstance(entries := content.get(table), dict)
    }
    return {**content, **levels, **tables}


def supported_join_rules(content: dict[str, Any], version: RoomVersion) -> dict[str, Any]:
    """Join rules that the version knows; rooms would be closed to everybody under others, so `invite` stands in."""
    rule = content.get("join_rule")
    missing = (
        (rule == "knock" and not version.knocking)
        or (rule == "restricted" and not version.restricted_joins)
        or (rule == "knock_restricted" and not version.knock_restricted)
    )
    return {"join_rule": "invite"} if missing else content


def tombstone_of(room_id: str) -> dict[str, Any]:
    """The content of the old room's m.room.tombstone."""
    return {"body": "This room has been replaced", "replacement_room": room_id}


TRANSFERRED: Final = (
    EventTypes.JOIN_RULES,
    EventTypes.HISTORY_VISIBILITY,
    EventTypes.GUEST_ACCESS,
    EventTypes.NAME,
    EventTypes.TOPIC,
    EventTypes.AVATAR,
    EventTypes.ENCRYPTION,
    EventTypes.SERVER_ACL,
)
"""State that the new room begins with as the old one has it, besides power levels, in this order."""


def _can_be(value: Any, version: RoomVersion) -> bool:
    """Whether events of that version may hold the value."""
    try:
        if version.strict_canonical_json:
            canonical.check(value)
    except MatrixError:
        return False
    return True


def _level(value: Any, version: RoomVersion) -> int | None:
    level = parse_level(value, version)
    return None if level is None else max(MIN_INT, min(level, MAX_INT))
