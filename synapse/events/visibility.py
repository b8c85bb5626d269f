"""May this user see this event? The rules of history visibility, given the facts.

The facts are what the room's state said at the event; finding them is for the caller. Not here: that soft-failed and
rejected events are shown to nobody, and events of ignored users not to whoever ignores them.

Client-server API, "Room history visibility", "Server behaviour".
"""

from __future__ import annotations

from typing import Any

from synapse.api.constants import EventTypes, HistoryVisibility, Membership
from synapse.events.event import Event


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


def may_see(event: Event, user_id: str, *, visibility: str, membership: str | None, joined_after: bool) -> bool:
    """Whether the user may see the event, given visibility and membership in the state *before* it.

    What the event itself changes counts as well: a change of visibility is seen if the old or the new one allows it,
    and the user's own membership event if the old or the new membership does.
    """
    if allows(visibility, membership, joined_after):
        return True
    if event.type == EventTypes.HISTORY_VISIBILITY and event.state_key == "":
        return allows(visibility_of(event.content), membership, joined_after)
    if event.type == EventTypes.MEMBER and event.state_key == user_id:
        return allows(visibility, event.membership, joined_after)
    return False
