"""The present state of rooms that people begin to sync, as bytes ready for clients, from memory.

First syncs of many users ask for the same rooms, and the state is the larger part of their answers. Rooms with a
moderate number of entries are kept; the events stream has a room forgotten when an entry of its state changes or is
redacted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from synapse.api.constants import EventTypes
from synapse.storage.past_state import ALL_MEMBERS, Members, PastStateStore
from synapse.storage.timeline import TimelineRow
from synapse.sync.forms import Annotator, head
from synapse.util.caches import Cache

CACHE: Final = "room_states"
ROOMS: Final = 200
MAX_ENTRIES: Final = 100
"""Of one room, to be worth keeping: with `ROOMS`, this bounds the memory to some 20 MiB."""


class StateEvent(NamedTuple):
    """An entry of a room's state since position `since`; `head` is its client form but for the end.

    `row` lacks the JSON.
    """

    since: int
    row: TimelineRow
    head: bytes


class RoomState(NamedTuple):
    """A room's whole present state; nothing of it changed after position `changed`, as far as is known."""

    changed: int
    events: Sequence[StateEvent]


class RoomStates:
    """Reads the present state of rooms. One statement for all that are not in memory."""

    def __init__(self, store: PastStateStore, annotator: Annotator, cache: Cache[str, RoomState]) -> None:
        self._store = store
        self._annotator = annotator
        self.cache = cache

    async def whole(self, room_ids: Collection[str]) -> dict[str, RoomState]:
        """All of it."""
        states = await self.cache.fetch_many(room_ids, self._load_whole)
        for room_id, state in states.items():
            if len(state.events) > MAX_ENTRIES:
                self.cache.invalidate(room_id)
        return states

    async def lazily(self, members: dict[str, Collection[str]]) -> dict[str, RoomState]:
        """All but the members, of whom only these of each room are wanted."""
        found: dict[str, RoomState] = {}
        missing: list[str] = []
        for room_id, users in members.items():
            state = self.cache.get(room_id)
            if state is None:
                missing.append(room_id)
            else:
                found[room_id] = _without_members(state, users)
        if missing:
            wanted = Members([(room_id, user_id) for room_id in missing for user_id in members[room_id]])
            found.update(await self._load(missing, wanted))
        return found

    async def _load_whole(self, room_ids: list[str]) -> dict[str, RoomState]:
        return await self._load(room_ids, ALL_MEMBERS)

    async def _load(self, room_ids: list[str], members: Members) -> dict[str, RoomState]:
        entries = await self._store.current(room_ids, members)
        notes = await self._annotator.versions(row for _, row in entries)
        states: dict[str, list[StateEvent]] = {room_id: [] for room_id in room_ids}
        for since, row in entries:
            # Its JSON is in the head, as far as clients see it.
            states[row.room_id].append(StateEvent(since, row._replace(json="", redacted_by=None), head(row, notes)))
        return {room_id: RoomState(_latest(events), events) for room_id, events in states.items()}


def _without_members(state: RoomState, users: Collection[str]) -> RoomState:
    events = [e for e in state.events if e.row.type != EventTypes.MEMBER or e.row.state_key in users]
    return RoomState(state.changed, events)


def _latest(events: Iterable[StateEvent]) -> int:
    return max((event.since for event in events), default=0)
