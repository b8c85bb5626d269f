"""What happened around an event: `GET /rooms/{roomId}/context/{eventId}`. Client-server API, "Event context"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from synapse.api.filters import RoomEventFilter
from synapse.handlers.pagination import PageRequest, Pagination
from synapse.handlers.room_reading import RoomReading
from synapse.handlers.visibility import RoomDoor
from synapse.state.filters import ALL, StateFilter
from synapse.state.store import StateReader
from synapse.storage.past_state import PastStateStore
from synapse.storage.timeline import NEWEST, TimelineRow
from synapse.sync.forms import Annotator, Forms
from synapse.sync.tokens import RoomToken
from synapse.sync.visibility import Seen
from synapse.util.clock import Clock

MAX_LIMIT: Final = 100


class EventContext:
    """Reads the surroundings of events, in any process.

    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self,
        door: RoomDoor,
        reading: RoomReading,
        pagination: Pagination,
        states: PastStateStore,
        state: StateReader,
        annotator: Annotator,
        clock: Clock,
    ) -> None:
        self._door = door
        self._reading = reading
        self._pagination = pagination
        self._states = states
        self._state = state
        self._annotator = annotator
        self._clock = clock

    async def around(
        self, user_id: str, device_id: str | None, room_id: str, event_id: str, limit: int, wanted: RoomEventFilter
    ) -> bytes:
        """The body of the answer; `limit` is shared by what came before and after. Raises 403, 404."""
        access = (await self._door.standing(user_id, room_id)).access
        row, membership = await self._reading.seen_event(user_id, room_id, event_id, access)
        newest = NEWEST if access.until is None else access.until
        request = PageRequest(user_id, device_id, room_id, True, limit=limit - limit // 2, filter=wanted)
        before: list[TimelineRow] = []
        after: list[TimelineRow] = []
        if limit:
            start = RoomToken(row.depth, row.stream - 1)
            before = (await self._pagination.whole_page(request, start, newest)).rows
            request = replace(request, backwards=False, limit=limit - len(before))
            after = (await self._pagination.whole_page(request, RoomToken(row.depth, row.stream), newest)).rows
        seen = await self._pagination.seen(user_id, room_id, [*before, *after], access)
        first = before[-1] if before else row
        last = after[-1] if after else row
        told = [row, *(s.row for s in seen)]
        notes = await self._annotator.notes(told, user_id, device_id, {room_id: access})
        earlier = {r.event_id for r in before}
        later = [s for s in seen if s.row.event_id not in earlier]
        answer: dict[str, Any] = {
            "start": str(RoomToken(first.depth, first.stream - 1)),
            "end": str(RoomToken(last.depth, last.stream)),
            "event": orjson.Fragment(self._forms().form(row, notes, membership)),
            "events_before": self._pagination.write([s for s in seen if s.row.event_id in earlier], notes),
            "events_after": self._pagination.write(later, notes),
            # What the user may not see does not tell them how the room is then either.
            "state": await self._state_at(later[-1].row if later else row, [Seen(row, membership), *seen], wanted),
        }
        return orjson.dumps(answer)

    async def _state_at(
        self, last: TimelineRow, seen: Sequence[Seen], wanted: RoomEventFilter
    ) -> list[orjson.Fragment]:
        """The state at the last event; lazily, only those of the members who speak."""
        if last.state_group is None:
            return []
        senders = {s.row.sender for s in seen}
        state_filter = StateFilter.members(senders) if wanted.lazy_load_members else ALL
        ids = await self._state.at_group_ids(last.state_group, state_filter)
        rows = [row for row in (await self._states.events(ids.values())).values() if wanted.matches(row)]
        return self._forms().forms(rows, await self._annotator.versions(rows))

    def _forms(self) -> Forms:
        return Forms(int(self._clock.seconds() * 1000), room_ids=True)
