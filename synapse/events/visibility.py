"""May this user see this event? The rules of history visibility, given the facts.

The facts are what the room's state said at the event; finding them is for the caller. Not here: that soft-failed and
rejected events are shown to nobody, and events of ignored users not to whoever ignores them.

Client-server API, "Room history visibility", "Server behaviour".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from synapse.api.constants import EventTypes, HistoryVisibility, Membership


def visibility_of(content: dict[str, Any] | None) -> str:
    """The visibility that the content of m.room.history_visibility (None: no such event) amounts to."""
    value = content.get("history_visibility") if content is not None else None
    return value if isinstance(value, str) and value in HistoryVisibility.ALL else HistoryVisibility.SHARED


def allows(visibility: str, membership: str | None, joined_after: bool) -> bool:
    """Whether an event is visible, that was sent under `visibility` when the user's membership was `membership`.

    `joined_after`: the user joined the room at some point after the event.
    """
    if visibility == HistoryVisibility.WORLD_READABLE or membership == Membership.JOIN:
        return True
    if visibility == HistoryVisibility.SHARED:
        return joined_after
    return visibility == HistoryVisibility.INVITED and membership == Membership.INVITE


Side = tuple[str, str | None]
"""A visibility and the user's membership, as a room's state has them."""


def is_turn(event_type: str, state_key: str | None) -> bool:
    """Whether the event itself changes the visibility, so that the state before it and the one after it count."""
    return event_type == EventTypes.HISTORY_VISIBILITY and state_key == ""


def is_own_membership(event_type: str, state_key: str | None, user_id: str) -> bool:
    """Whether the event changes the user's own membership: again, both sides count."""
    return event_type == EventTypes.MEMBER and state_key == user_id


def may_see(sides: Iterable[Side], joined_after: bool) -> bool:
    """Whether an event is visible, given the state at it: the one before it, which for a message is the one after it.

    For an event that changes what decides (`is_turn`, `is_own_membership`), `sides` holds the state before and after.
    """
    return any(allows(visibility, membership, joined_after) for visibility, membership in sides)
