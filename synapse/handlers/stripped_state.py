"""Stripped state: what those see of a room who are not in it, as servers hand it to each other.

What this server gives are whole events, by which others can see that they are genuine; what it takes may still be the
short form of older servers, in the room versions where those exist.

Client-server API, "Stripped state"; server-server API, `PUT /invite` (v2), `PUT /send_knock`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import orjson

from synapse.api.constants import MAX_EVENT_BYTES, EventTypes
from synapse.api.identifiers import is_user_id
from synapse.api.room_versions import RoomVersion
from synapse.events.client import STRIPPED_STATE_TYPES
from synapse.util.storable import is_too_deep

if TYPE_CHECKING:
    from synapse.federation.receiving.checks import EventChecks
    from synapse.state.store import StateReader

MAX_ENTRIES: Final = 50
"""So many entries of what another server gives are looked at: there are seven kinds that should be there."""

_SHOWN: Final = frozenset((event_type, "") for event_type in STRIPPED_STATE_TYPES)
_KEYS: Final = ("type", "state_key", "sender", "content")


async def given(state: StateReader, room_id: str, *members: str) -> list[dict[str, Any]]:
    """What goes along with an invite, or answers a knock: whole events, m.room.create among them, and the memberships
    of these (who invites)."""
    keys = [*sorted(_SHOWN), *((EventTypes.MEMBER, user_id) for user_id in members)]
    return [stored.shown.raw for stored in (await state.current(room_id, keys)).values()]


async def taken(
    entries: Sequence[Any], version: RoomVersion, room_id: str, checks: EventChecks
) -> list[Mapping[str, Any]]:
    """What another server says that the room is. Whole events that are not right are left out, and since room version
    12 everything else that is not one."""
    entries = entries[:MAX_ENTRIES]
    whole = [entry for entry in entries if _is_whole(entry)]
    short = [] if version.room_id_from_create else [entry for entry in entries if not _is_whole(entry)]
    events = await checks.check_many(whole, version, room_id=room_id)
    return cut([*short, *(event.raw for event in events)])


def cut(entries: Iterable[Any], *members: str) -> list[Mapping[str, Any]]:
    """Those of the entries that may be shown, and the memberships of these, each once and with nothing but what
    stripped state has."""
    shown = _SHOWN.union((EventTypes.MEMBER, user_id) for user_id in members)
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    for entry in entries:
        if _is_stripped(entry) and (entry["type"], entry["state_key"]) in shown:
            found[entry["type"], entry["state_key"]] = {key: entry[key] for key in _KEYS}
    return list(found.values())


def _is_whole(entry: Any) -> bool:
    return isinstance(entry, dict) and "signatures" in entry and "hashes" in entry


def _is_stripped(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(key), str) for key in ("type", "state_key", "sender"))
        and is_user_id(entry["sender"])
        and _is_content(entry.get("content"))
    )


def _is_content(content: Any) -> bool:
    """Whether it can be kept, and handed to clients. Of the short form, nobody else has looked at it."""
    if not isinstance(content, dict) or is_too_deep(content):
        return False
    try:
        return len(orjson.dumps(content)) <= MAX_EVENT_BYTES
    except TypeError:  # an integer of more than 64 bits
        return False
