"""What the content of an event must look like where this server's own users send it. Pure.

Other servers' events are not held to this: their contents may be anything, and whoever reads them checks. Here the
mistake is told to the one who made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from synapse.api.constants import EventTypes, HistoryVisibility, Membership
from synapse.api.errors import bad_json, invalid_param
from synapse.api.identifiers import is_room_alias, is_user_id

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

_MAY_BE_EMPTY: Final = frozenset({EventTypes.NAME, EventTypes.TOPIC})


def check_content(event_type: str, state_key: str | None, content: Mapping[str, Any]) -> None:
    """Raise 400 M_BAD_JSON or M_INVALID_PARAM for content that means nothing."""
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
    for name in ("displayname", "avatar_url"):
        if content.get(name) is not None and not isinstance(content[name], str):
            raise bad_json(f"The '{name}' of m.room.member must be a string.")


def _check_visibility(_state_key: str, content: Mapping[str, Any]) -> None:
    if content["history_visibility"] not in HistoryVisibility.ALL:
        raise bad_json(f"A history visibility is one of {', '.join(sorted(HistoryVisibility.ALL))}.")


def _check_canonical_alias(_state_key: str, content: Mapping[str, Any]) -> None:
    for alias in aliases_in(content):
        if not is_room_alias(alias):
            raise invalid_param(f"'{alias}' is not a room alias; it should look like #name:server.")


_CHECKS: Final = {
    EventTypes.MEMBER: _check_member,
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
