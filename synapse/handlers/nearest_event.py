"""The event nearest to a moment: `GET /rooms/{roomId}/timestamp_to_event`. Client-server API, "Getting events for a
room".
"""

from __future__ import annotations

from typing import Final

from synapse.api.errors import not_found
from synapse.handlers.visibility import RoomDoor
from synapse.storage.timeline import NEWEST, OLDEST, TimelineRow, TimelineStore
from synapse.sync.ignored import IgnoredUsers
from synapse.sync.visibility import VisibilityFilter

_BATCHES: Final = (5, 50, *[500] * 20)
"""How many events are looked at, one batch after another: nearly always the first one is to be seen."""


class NearestEvent:
    """Looks for events by time, in any process."""

    def __init__(
        self, door: RoomDoor, timeline: TimelineStore, visibility: VisibilityFilter, ignored: IgnoredUsers
    ) -> None:
        self._door = door
        self._timeline = timeline
        self._visibility = visibility
        self._ignored = ignored

    async def find(self, user_id: str, room_id: str, timestamp: int, *, backwards: bool) -> TimelineRow:
        """The nearest event at `timestamp` (milliseconds) or after it; or before it. Raises 403, 404."""
        access = (await self._door.standing(user_id, room_id)).access
        ignored = await self._ignored.of(user_id)
        until = NEWEST if access.until is None else access.until
        place = (timestamp, NEWEST if backwards else OLDEST)
        for size in _BATCHES:
            rows = await self._timeline.by_time(room_id, place, until, size, backwards=backwards)
            seen = (await self._visibility.visible({room_id: rows}, {room_id: access}, user_id, ignored))[room_id]
            if seen:
                return seen[0].row
            if len(rows) < size:
                break
            place = (rows[-1].origin_server_ts, rows[-1].stream)
        direction = "backward" if backwards else "forward"
        raise not_found(f"There is no event to be found from {timestamp} in {direction} direction.")
