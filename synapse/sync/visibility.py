"""Which of these events may this user see, and as what did they stand in the room then?

Given rows of timelines and how far the user may look at all in each room (`Access`), this drops what history
visibility or the user's list of ignored people hides, and prunes what erased users have written. In nearly all rooms
the question is settled by the room's short list of visibility changes, which is kept in memory; where a stricter
visibility was in force, the state at each event is consulted.

The rules are in `synapse.events.visibility`; who may look at a room in the first place is decided in
`synapse.handlers.visibility`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from synapse.api.constants import HistoryVisibility, Membership
from synapse.events.visibility import is_own_membership, is_turn, may_see, visibility_of
from synapse.storage.timeline import TimelineRow
from synapse.storage.user_rooms import Step, UserRoomStore
from synapse.storage.visibility_facts import GroupFacts, VisibilityFactStore
from synapse.sync.erased import ErasedUsers
from synapse.util.caches import Cache, LruCache

HISTORIES: Final = "visibility_history"
GROUPS: Final = "visibility_groups"

_OPEN = frozenset({HistoryVisibility.SHARED, HistoryVisibility.WORLD_READABLE})


class Seen(NamedTuple):
    """An event that the user may see, with their membership at the time where it is known."""

    row: TimelineRow
    membership: str | None


class Access(NamedTuple):
    """How a user stands to a room.

    `joined` since which position the present (or last) membership `join` holds without a break, None if the user was
    never joined; `until` the position after which nothing is shown, None for no such limit (they are joined now).
    """

    joined: int | None
    until: int | None


class History:
    """How the visibility of one room changed: from `streams[i]` on it was `values[i + 1]`; before all, `values[0]`."""

    __slots__ = ("streams", "values")

    def __init__(self) -> None:
        self.streams: list[int] = []
        self.values: list[str] = [HistoryVisibility.SHARED]

    def during(self, first: int, last: int) -> Collection[str]:
        """All values in force for the events from `first` to `last`; an event that changes it counts for both."""
        return self.values[bisect_right(self.streams, first - 1) : bisect_right(self.streams, last) + 1]


class VisibilityFilter:
    """Answers for one process; remembers the histories of rooms and what state groups said.

    :param histories: invalidated by room id when a room's visibility changes.
    :param groups: by group and user; what a state group says never changes.
    :param erased: whose events are shown pruned to those who were not in the room at the time.
    """

    def __init__(
        self,
        facts: VisibilityFactStore,
        user_rooms: UserRoomStore,
        histories: Cache[str, History],
        groups: LruCache[tuple[int, str], GroupFacts],
        erased: ErasedUsers,
    ) -> None:
        self._facts = facts
        self._user_rooms = user_rooms
        self.histories = histories
        self._groups = groups
        self._erased = erased

    async def now(self, room_id: str) -> str:
        """The room's present history visibility."""
        return (await self.histories_of([room_id]))[room_id].values[-1]

    async def ever_open(self, access: Mapping[str, Access]) -> set[str]:
        """Those of the rooms in which nothing that arrived in time (`Access.until`) is hidden from the user."""
        histories = await self.histories_of(list(access))
        return {
            room_id
            for room_id, each in access.items()
            if each.joined is not None and all(value in _OPEN for value in histories[room_id].values)
        }

    async def visible(
        self,
        timelines: Mapping[str, Sequence[TimelineRow]],
        access: Mapping[str, Access],
        user_id: str,
        ignored: frozenset[str] = frozenset(),
        known: frozenset[str] = frozenset(),
    ) -> dict[str, list[Seen]]:
        """Of each room's rows those that the user may see, in the same order. Rooms may end up with none.

        `known` are ids of events that the user may see in any case, as they are part of a state that is shown to them.
        """
        histories = await self.histories_of([room_id for room_id, rows in timelines.items() if rows])
        steps = await self._steps(timelines, access, user_id)
        seen: dict[str, list[Seen]] = {}
        strict: dict[str, Sequence[TimelineRow]] = {}
        for room_id, rows in timelines.items():
            if not rows or self._is_open(histories[room_id], rows, access[room_id]):
                seen[room_id] = [Seen(row, steps.membership(row)) for row in rows]
            else:
                strict[room_id] = rows
        if strict:
            seen.update(await self._strictly(strict, access, user_id, known))
        if ignored:
            seen = {room_id: [s for s in rows if not _is_ignored(s.row, ignored)] for room_id, rows in seen.items()}
        return await self._erased.prune(seen)

    def _is_open(self, history: History, rows: Sequence[TimelineRow], access: Access) -> bool:
        """Whether all of this is visible to whoever was ever joined: nothing stricter than `shared` was in force.

        Events fetched later than they happened lie outside the room's history as we know it.
        """
        streams = [row.stream for row in rows]
        first, last = min(streams), max(streams)
        if access.joined is None or first <= 0 or (access.until is not None and last > access.until):
            return False
        return all(value in _OPEN for value in history.during(first, last))

    async def histories_of(self, room_ids: list[str]) -> dict[str, History]:
        """How the visibility of each room changed. At most one statement."""
        return await self.histories.fetch_many(room_ids, self._load_histories)

    async def _load_histories(self, room_ids: list[str]) -> dict[str, History]:
        found = {room_id: History() for room_id in room_ids}
        for room_id, stream, content in await self._facts.history(room_ids):
            found[room_id].streams.append(stream)
            found[room_id].values.append(visibility_of(content))
        return found

    async def _steps(
        self, timelines: Mapping[str, Sequence[TimelineRow]], access: Mapping[str, Access], user_id: str
    ) -> _Steps:
        """How the user's membership went where it changed within these timelines."""
        changed = [r for r, rows in timelines.items() if rows and not _joined_all_the_time(rows, access[r])]
        return _Steps(changed, await self._user_rooms.steps(user_id, changed))

    async def _strictly(
        self,
        timelines: Mapping[str, Sequence[TimelineRow]],
        access: Mapping[str, Access],
        user_id: str,
        known: frozenset[str],
    ) -> dict[str, list[Seen]]:
        rows = [row for room in timelines.values() for row in room]
        facts = await self._at_groups({row.state_group for row in rows if row.state_group is not None}, user_id)
        turns = {row.state_group for row in rows if row.state_group is not None and is_turn(row.type, row.state_key)}
        before = await self._facts.groups_before(list(turns))
        earlier = await self._at_groups(before.values(), user_id)
        seen: dict[str, list[Seen]] = {}
        for room_id, room_rows in timelines.items():
            seen[room_id] = room_seen = []
            for row in room_rows:
                at = facts.get(row.state_group or 0)
                was = earlier.get(before.get(row.state_group or 0, 0)) if is_turn(row.type, row.state_key) else None
                # Of their own membership users learn, whatever it is.
                is_shown = is_own_membership(row.type, row.state_key, user_id) or row.event_id in known
                if is_shown or _may_see(row, at, was, access[room_id]):
                    room_seen.append(Seen(row, (at and at.membership) or Membership.LEAVE))
        return seen

    async def _at_groups(self, groups: Iterable[int], user_id: str) -> dict[int, GroupFacts]:
        found: dict[int, GroupFacts] = {}
        missing: list[int] = []
        for group in groups:
            facts = self._groups.get((group, user_id))
            if facts is None:
                missing.append(group)
            else:
                found[group] = facts
        for group, facts in (await self._facts.at_groups(missing, user_id)).items():
            found[group] = facts
            self._groups.set((group, user_id), facts)
        return found


class _Steps:
    """The user's membership over time in a few rooms; in all others they are joined all the time."""

    def __init__(self, room_ids: Iterable[str], steps: Iterable[Step]) -> None:
        self._rooms: dict[str, tuple[list[int], list[str]]] = {r: ([], [Membership.LEAVE]) for r in room_ids}
        for step in steps:
            streams, memberships = self._rooms[step.room_id]
            streams.append(step.stream)
            memberships.append(step.membership)

    def membership(self, row: TimelineRow) -> str:
        known = self._rooms.get(row.room_id)
        if known is None:
            return Membership.JOIN
        return known[1][bisect_right(known[0], row.stream)]


def _joined_all_the_time(rows: Sequence[TimelineRow], access: Access) -> bool:
    return access.joined is not None and access.until is None and all(row.stream > access.joined for row in rows)


def _is_ignored(row: TimelineRow, ignored: frozenset[str]) -> bool:
    return row.state_key is None and row.sender in ignored


def _may_see(row: TimelineRow, at: GroupFacts | None, before: GroupFacts | None, access: Access) -> bool:
    """`at` is the state after the event, None where it is not known: then nothing says that it may be shown."""
    if access.until is not None and row.stream > access.until:
        return False  # who has left sees the room as it was then
    sides = [(visibility_of(facts.visibility), facts.membership) for facts in (at, before) if facts is not None]
    joined_after = access.joined is not None and (access.until is None or row.stream <= access.joined)
    return may_see(sides, joined_after)
