"""Which rooms somebody may search, and which stretches of their timelines.

All rooms that they are joined to, and those that they have left, up to then. Where history was not open to everybody
in the room at times, only the stretches that the user could see: so not even the number of results tells of anything
else. The stretches are those of the order of arrival; each result is judged by itself afterwards.

Client-server API, "Server Side Search".
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import orjson

from synapse.api.constants import EventTypes, HistoryVisibility, Membership
from synapse.api.filters import RoomEventFilter
from synapse.api.identifiers import is_room_id
from synapse.events.visibility import allows
from synapse.storage.past_state import PastStateStore
from synapse.storage.timeline import NEWEST, OLDEST, Window
from synapse.storage.user_rooms import Step, UserRoomStore
from synapse.sync.memberships import Memberships
from synapse.sync.plan import last_access
from synapse.sync.visibility import Access, History, VisibilityFilter

MAX_UPGRADES: Final = 20
"""How many times a room may have been upgraded for its oldest ancestor still to be searched with it."""

_OPEN: Final = frozenset({HistoryVisibility.SHARED, HistoryVisibility.WORLD_READABLE})


class Searchable(NamedTuple):
    """How the user stands to each room, and the stretches to search."""

    access: dict[str, Access]
    windows: list[Window]


class SearchRooms:
    """Answers for one process."""

    def __init__(
        self, memberships: Memberships, user_rooms: UserRoomStore, visibility: VisibilityFilter, states: PastStateStore
    ) -> None:
        self._memberships = memberships
        self._user_rooms = user_rooms
        self._visibility = visibility
        self._states = states

    async def of(self, user_id: str, wanted: RoomEventFilter) -> Searchable:
        """The rooms that the filter wants, and what they were before an upgrade. Two statements, and one for each
        upgrade, however many rooms there are."""
        known = {r: m for r, m in (await self._memberships.of(user_id)).rooms.items() if not m.forgotten}
        if wanted.rooms is not None:
            chosen = await self._with_predecessors(wanted.rooms)
            known = {room_id: membership for room_id, membership in known.items() if room_id in chosen}
        known = {room_id: membership for room_id, membership in known.items() if room_id not in wanted.not_rooms}
        joined = {r: Access(m.stream, None) for r, m in known.items() if m.membership == Membership.JOIN}
        histories = await self._visibility.histories_of(list(known))
        strict = {room_id for room_id in known if not _OPEN.issuperset(histories[room_id].values)}
        steps = _by_room(await self._user_rooms.steps(user_id, sorted(strict | (known.keys() - joined.keys()))))
        access = joined | {r: last_access(steps.get(r, ())) for r in known.keys() - joined.keys()}
        access = {room_id: each for room_id, each in access.items() if each.joined is not None}
        windows: list[Window] = []
        for room_id, each in access.items():
            until = NEWEST if each.until is None else each.until
            if room_id in strict:
                windows += stretches(room_id, histories[room_id], steps.get(room_id, ()), until)
            else:
                windows.append(Window(room_id, OLDEST, until))
        return Searchable(access, windows)

    async def _with_predecessors(self, room_ids: Collection[str]) -> set[str]:
        """The rooms, and those that they say they have replaced. Whether the user may see those is looked at later."""
        found = set(room_ids)
        new = set(room_ids)
        for _ in range(MAX_UPGRADES):
            created = await self._states.entries([(room_id, EventTypes.CREATE, "") for room_id in sorted(new)])
            new = {before for row in created.values() if (before := _predecessor(row.json)) is not None} - found
            if not new:
                break
            found |= new
        return found


def stretches(room_id: str, history: History, steps: Sequence[Step], until: int) -> list[Window]:
    """The parts of a room's timeline that history visibility opens to a user whose membership went like this."""
    marks = sorted({OLDEST, *history.streams, *(step.stream for step in steps)})
    turns = [step.stream for step in steps]
    joins = [step.stream for step in steps if step.membership == Membership.JOIN]
    found: list[Window] = []
    for mark, end in zip(marks, [*marks[1:], until + 1], strict=True):
        if mark > until:
            break
        index = bisect_right(turns, mark)
        membership = steps[index - 1].membership if index else Membership.LEAVE
        joined_later = bool(joins) and joins[-1] > mark
        if allows(history.values[bisect_right(history.streams, mark)], membership, joined_later):
            goes_on = bool(found) and found[-1].until == mark - 1
            after = found.pop().after if goes_on else mark - 1
            found.append(Window(room_id, after, min(end - 1, until)))
    return found


def _by_room(steps: Iterable[Step]) -> Mapping[str, list[Step]]:
    found: dict[str, list[Step]] = {}
    for step in steps:
        found.setdefault(step.room_id, []).append(step)
    return found


def _predecessor(json: str) -> str | None:
    before = orjson.loads(json)["content"].get("predecessor")
    room_id = before.get("room_id") if isinstance(before, dict) else None
    return room_id if isinstance(room_id, str) and is_room_id(room_id) else None
