"""The authorisation rules of m.room.power_levels: nobody gives or takes away more power than they have.

Called by `synapse.events.auth.check`, after the rules that hold for every event. Room versions, "Authorization rules",
rule 10 (9 in some versions) "If type is m.room.power_levels".

Before room version 10 the rules ask only of `users` that its values be levels. Other values that are none would have no
order in which to compare them, so a change that brings one in is refused here as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from synapse.api.constants import EventTypes
from synapse.api.errors import AuthError, ImpossibleError
from synapse.api.identifiers import is_user_id
from synapse.api.room_versions import PowerLevelValues, RoomVersion
from synapse.events.event import Event, StateKey
from synapse.events.power_levels import LEVEL_DEFAULTS, PowerLevels, creators_of, parse_level


def check_power_levels(event: Event, state: Mapping[StateKey, Event], create: Event, levels: PowerLevels) -> None:
    """Raise AuthError unless the state, whose levels are `levels`, allows this m.room.power_levels event."""
    version = event.room_version
    new = event.content
    _check_format(new, version)
    if version.privileged_creators:
        _check_creators_absent(new, create)
    current_event = state.get((EventTypes.POWER_LEVELS, ""))
    if current_event is None:
        return
    current = current_event.content
    own = levels.user(event.sender)
    _check_changes("", _plain(current), _plain(new), own, version)
    tables = ("events", "notifications") if version.notifications_auth_rule else ("events",)
    for table in tables:
        _check_changes(f"{table} ", _table(current, table), _table(new, table), own, version)
    _check_users(_table(current, "users"), _table(new, "users"), event.sender, own, version)


def _check_format(content: Mapping[str, Any], version: RoomVersion) -> None:
    if version.power_level_values is PowerLevelValues.INTEGERS:
        for name in LEVEL_DEFAULTS:
            if name in content and parse_level(content[name], version) is None:
                raise AuthError(f"The power level '{name}' must be an integer.")
        _check_table(content, "events", version)
        _check_table(content, "notifications", version)
    _check_table(content, "users", version)
    if not all(is_user_id(user_id) for user_id in content.get("users", ())):
        raise AuthError("The keys in 'users' of the power levels must be user IDs.")


def _check_table(content: Mapping[str, Any], name: str, version: RoomVersion) -> None:
    if name not in content:
        return
    entries = content[name]
    if not isinstance(entries, dict):
        raise AuthError(f"'{name}' of the power levels must be an object.")
    if not all(parse_level(level, version) is not None for level in entries.values()):
        raise AuthError(f"The power levels in '{name}' must be integers.")


def _check_creators_absent(content: Mapping[str, Any], create: Event) -> None:
    named = creators_of(create).intersection(content.get("users", ()))
    if named:
        raise ImpossibleError(f"{min(named)} is a creator of the room; the power of creators cannot be set.")


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in LEVEL_DEFAULTS if name in content}


def _table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    entries = content.get(name)
    return entries if isinstance(entries, dict) else {}


def _changes(
    current: Mapping[str, Any], new: Mapping[str, Any], version: RoomVersion
) -> Iterator[tuple[str, int | None, int | None]]:
    """Name, level before and level after of each entry that was added, changed or removed (None: not there)."""
    for name in current.keys() | new.keys():
        if name in current and name in new and _is_same(current[name], new[name]):
            continue
        before = parse_level(current[name], version) if name in current else None
        after = parse_level(new[name], version) if name in new else None
        if name in new and after is None:
            raise AuthError(f"The power level of '{name}' must be an integer.")
        if before != after:
            yield name, before, after


def _is_same(before: Any, after: Any) -> bool:
    """Whether nothing was changed, be it a level or not. To Python, 1 and true are equal."""
    return type(before) is type(after) and before == after


def _check_changes(
    label: str, current: Mapping[str, Any], new: Mapping[str, Any], own: int, version: RoomVersion
) -> None:
    for name, before, after in _changes(current, new, version):
        if before is not None and before > own:
            raise AuthError(f"The power level {label}'{name}' is above your own, {own}; you cannot change it.")
        if after is not None and after > own:
            raise AuthError(f"You cannot raise the power level {label}'{name}' above your own, {own}.")


def _check_users(
    current: Mapping[str, Any], new: Mapping[str, Any], sender: str, own: int, version: RoomVersion
) -> None:
    for user_id, before, after in _changes(current, new, version):
        if before is not None and before >= own and user_id != sender:
            raise AuthError(f"The power of {user_id} is not below your own, {own}; you cannot change it.")
        if after is not None and after > own:
            raise AuthError(f"You cannot give {user_id} more power than you have yourself, {own}.")
