"""Power levels: who may do what, read from m.room.power_levels and, where that is silent, from the defaults.

A reading, not a check: whether a power levels event may be sent is `synapse.events.auth_power_levels`.

Client-server API, `m.room.power_levels`; room versions 1 (strings and floats as levels), 10 (integers only) and 12
(creators).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from synapse.api.constants import EventTypes
from synapse.api.room_versions import PowerLevelValues, RoomVersion
from synapse.events.event import Event, StateKey

CREATOR: Final = 2**53
"""The infinite power of creators since room version 12, as a number: one more than any level that an event can give."""

LEVEL_DEFAULTS: Final[Mapping[str, int]] = {
    "users_default": 0,
    "events_default": 0,
    "state_default": 50,
    "ban": 50,
    "redact": 50,
    "kick": 50,
    "invite": 0,
}
"""The properties of m.room.power_levels that are a single level, with their defaults."""

NOTIFICATION_DEFAULT: Final = 50

_CREATOR_WITHOUT_EVENT: Final = 100
_INTEGER_TEXT: Final = re.compile(r"\s*([+-]?)([0-9]+)\s*", re.ASCII)
_MAX_DOUBLE: Final = int(1.7976931348623157e308)
_MAX_DIGITS: Final = 309  # of the largest double


def parse_level(value: Any, room_version: RoomVersion) -> int | None:
    """The level that a JSON value stands for in this room version, None if it stands for none."""
    if type(value) is int:
        return value if abs(value) <= _MAX_DOUBLE else None
    accepted = room_version.power_level_values
    if accepted is PowerLevelValues.INTEGERS:
        return None
    if isinstance(value, str):
        return _parse_text(value)
    if isinstance(value, float) and accepted is PowerLevelValues.LENIENT and abs(value) <= _MAX_DOUBLE:
        return int(value)
    return None


def _parse_text(text: str) -> int | None:
    """An integer with any number of leading zeros, and space around it; no larger than a double may be."""
    match = _INTEGER_TEXT.fullmatch(text)
    digits = match[2].lstrip("0") if match is not None else ""
    if match is None or len(digits) > _MAX_DIGITS:
        return None
    level = int(match[1] + (digits or "0"))
    return level if abs(level) <= _MAX_DOUBLE else None


def creators_of(create: Event) -> frozenset[str]:
    """The creators of a room, from its m.room.create event: one until version 11, any number since version 12."""
    version = create.room_version
    if not version.implicit_creator:
        creator = create.content.get("creator")
        return frozenset({creator}) if isinstance(creator, str) else frozenset()
    if not version.privileged_creators:
        return frozenset({create.sender})
    additional = create.content.get("additional_creators")
    others = additional if isinstance(additional, list) else []
    return frozenset({create.sender, *(user_id for user_id in others if isinstance(user_id, str))})


class PowerLevels:
    """The levels in force where `power_levels` (or None) and `create` are the room's state.

    Cheap to make: each question reads the one value that it needs. A value that is no level counts as not given.
    """

    __slots__ = ("_content", "_creators", "_version")

    def __init__(self, power_levels: Event | None, create: Event | None, room_version: RoomVersion) -> None:
        self._content: Mapping[str, Any] | None = None if power_levels is None else power_levels.content
        self._version = room_version
        # Before version 12 it matters who the creator is only as long as no event gives levels.
        wanted = create is not None and (room_version.privileged_creators or power_levels is None)
        self._creators = creators_of(create) if wanted and create is not None else frozenset()

    @classmethod
    def of_state(cls, state: Mapping[StateKey, Event], room_version: RoomVersion) -> PowerLevels:
        """The levels of a room whose state holds the create and power levels events, as far as they exist."""
        return cls(state.get((EventTypes.POWER_LEVELS, "")), state.get((EventTypes.CREATE, "")), room_version)

    def user(self, user_id: str) -> int:
        """The user's own level; `CREATOR` for privileged creators."""
        if user_id in self._creators:
            return CREATOR if self._version.privileged_creators else _CREATOR_WITHOUT_EVENT
        level = self._entry("users", user_id)
        return self._level("users_default") if level is None else level

    def required(self, event_type: str, is_state: bool) -> int:
        """The level needed to send events of that type."""
        level = self._entry("events", event_type)
        if level is not None:
            return level
        return self._level("state_default" if is_state else "events_default")

    def notification(self, key: str) -> int:
        """The level needed to notify, for instance, the whole `room`."""
        level = self._entry("notifications", key)
        return NOTIFICATION_DEFAULT if level is None else level

    @property
    def invite(self) -> int:
        return self._level("invite")

    @property
    def kick(self) -> int:
        return self._level("kick")

    @property
    def ban(self) -> int:
        return self._level("ban")

    @property
    def redact(self) -> int:
        """The level needed to redact events of others."""
        return self._level("redact")

    @property
    def users_default(self) -> int:
        return self._level("users_default")

    def _level(self, name: str) -> int:
        if self._content is not None and name in self._content:
            level = parse_level(self._content[name], self._version)
            if level is not None:
                return level
        return LEVEL_DEFAULTS[name]

    def _entry(self, table: str, key: str) -> int | None:
        entries = self._content.get(table) if self._content is not None else None
        if not isinstance(entries, dict) or key not in entries:
            return None
        return parse_level(entries[key], self._version)
