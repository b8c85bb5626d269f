"""Which events another server may see, and the copies that it gets of the others.

A server may see what any of its users may: history visibility is evaluated for the server as a whole. It is in the room
now, or was when the event was here already, or it would not be answered; so what was `shared` is visible to it,
`invited` what was sent while one of its users was in the room or invited, `joined` what was sent while one of them was
in it. Of everything else it gets a copy as a redaction leaves it, so that it can follow the room's graph; as of what
erased users wrote.

Client-server API, "Room history visibility"; server-server API, "Backfilling and retrieving missing events".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from synapse.api.constants import EventTypes, HistoryVisibility, Membership
from synapse.api.identifiers import domain_of
from synapse.api.room_versions import room_version
from synapse.events.event import Event
from synapse.events.visibility import is_turn, may_see

if TYPE_CHECKING:
    from synapse.storage.served_events import ServedEvent
    from synapse.storage.served_visibility import ServedVisibilityStore
    from synapse.util.caches import LruCache

_OPEN: Final = frozenset({HistoryVisibility.SHARED, HistoryVisibility.WORLD_READABLE})


class Erased(Protocol):
    """Who had what they wrote erased: `synapse.sync.erased.ErasedUsers`."""

    async def among(self, user_ids: Collection[str]) -> set[str]: ...


class ServerVisibility:
    """Answers in any process.

    :param visibilities: the visibility of state groups, which never changes.
    """

    def __init__(
        self, store: ServedVisibilityStore, visibilities: LruCache[int, str], erased: Erased, server_name: str
    ) -> None:
        self._store = store
        self._visibilities = visibilities
        self._erased = erased
        self._server_name = server_name

    async def copies(self, origin: str, events: Sequence[ServedEvent]) -> list[bytes]:
        """The events in the same order, each as the server may have it. That it was in the room at some time after
        them, or at them, is taken for granted.

        Four statements at most, none where it is known that nothing is hidden.
        """
        erased = await self._erased.among({e.sender for e in events if domain_of(e.sender) == self._server_name})
        hidden = await self._hidden(origin, events)
        return [copy_of(e, pruned=e.event_id in hidden or e.sender in erased) for e in events]

    async def _hidden(self, origin: str, events: Sequence[ServedEvent]) -> set[str]:
        """The ids of those that none of the server's users may see."""
        # What is known of the room's state only through it (outliers) is given to everybody in the room anyway.
        placed = [(e, e.state_group) for e in events if e.state_group is not None]
        at = await self._visibilities_of({group for _, group in placed})
        strict = [(e, group) for e, group in placed if at[group] not in _OPEN]
        if not strict:
            return set()
        # An event that changes what decides is seen by whoever could see it before, or can after.
        turns = {group for e, group in strict if _changes_what_decides(e, origin)}
        before = await self._store.groups_before(turns)
        at |= await self._visibilities_of(before.values())
        groups = {group for _, group in strict}
        members = await self._store.memberships(groups | set(before.values()), origin)
        hidden: set[str] = set()
        for event, group in strict:
            sides = [group, before[group]] if group in before and _changes_what_decides(event, origin) else [group]
            if not may_see(((at[side], _best(members[side])) for side in sides), joined_after=True):
                hidden.add(event.event_id)
        return hidden

    async def _visibilities_of(self, groups: Collection[int]) -> dict[int, str]:
        found: dict[int, str] = {}
        missing: list[int] = []
        for group in groups:
            known = self._visibilities.get(group)
            if known is None:
                missing.append(group)
            else:
                found[group] = known
        for group, visibility in (await self._store.visibilities(missing)).items():
            found[group] = visibility
            self._visibilities.set(group, visibility)
        return found


def copy_of(event: ServedEvent, *, pruned: bool = False) -> bytes:
    """An event as others get it: redacted, where a redaction is in force, or it is to be `pruned`."""
    text = event.json.encode()
    if not (pruned or event.redacted):
        return text
    return Event.from_json(text, room_version(event.room_version), event_id=event.event_id).redacted().json


def _changes_what_decides(event: ServedEvent, origin: str) -> bool:
    if is_turn(event.type, event.state_key):
        return True
    return event.type == EventTypes.MEMBER and domain_of(event.state_key or "") == origin


def _best(memberships: Collection[str]) -> str | None:
    """The membership of the one who may see most."""
    return next((each for each in (Membership.JOIN, Membership.INVITE) if each in memberships), None)
