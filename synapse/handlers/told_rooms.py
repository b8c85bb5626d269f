"""Rooms as other servers tell of them: only what is as it should be is kept, the rest is as if it had not been said.

Pure. Client-server API, `PublishedRoomsChunk`, `RoomSummary`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from synapse.api.constants import GuestAccess, HistoryVisibility, JoinRules
from synapse.api.identifiers import is_room_alias, is_room_id, is_room_version
from synapse.storage.rooms import KnownRoom, ListedRoom

MAX_NAME: Final = 1_000  # characters, as of other short texts
MAX_TOPIC: Final = 10_000
MAX_ALLOWED: Final = 100
_MAX_MEMBERS: Final = 2**31 - 1


def listed_room(said: Mapping[str, Any]) -> ListedRoom | None:
    """A room of a list; None where it is not even clear which."""
    room_id, members = said.get("room_id"), said.get("num_joined_members")
    if not isinstance(room_id, str) or not is_room_id(room_id) or type(members) is not int:
        return None
    alias = _text(said, "canonical_alias")
    picture = _text(said, "avatar_url")
    return ListedRoom(
        room_id,
        _text(said, "name"),
        _text(said, "topic", MAX_TOPIC),
        alias if alias is not None and is_room_alias(alias) else None,
        picture if picture is not None and picture.startswith("mxc://") else None,
        _text(said, "join_rule") or JoinRules.PUBLIC,  # "When not present, the room is assumed to be public"
        HistoryVisibility.WORLD_READABLE if said.get("world_readable") is True else None,
        GuestAccess.CAN_JOIN if said.get("guest_can_join") is True else None,
        _text(said, "room_type"),
        min(max(members, 0), _MAX_MEMBERS),
    )


def summarised_room(said: Mapping[str, Any]) -> KnownRoom | None:
    """A room with what summaries tell besides."""
    listed = listed_room(said)
    if listed is None:
        return None
    version = _text(said, "room_version")
    allowed = said.get("allowed_room_ids")
    rooms = (
        [each for each in allowed if isinstance(each, str) and is_room_id(each)] if isinstance(allowed, list) else []
    )
    return KnownRoom(
        listed,
        version if version is not None and is_room_version(version) else None,
        _text(said, "encryption"),
        None,
        allowed=tuple(rooms[:MAX_ALLOWED]),
    )


def encoded(value: Any) -> bytes | None:
    """What another server has told, as JSON for clients; None where it cannot be that: numbers of any size may come,
    and any depth."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return None


def _text(said: Mapping[str, Any], name: str, limit: int = MAX_NAME) -> str | None:
    value = said.get(name)
    return value if isinstance(value, str) and value and len(value) <= limit else None
