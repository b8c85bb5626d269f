"""The event nearest to a moment: `GET /rooms/{roomId}/timestamp_to_event`.

What other servers have of the room is looked for where the moment lies before an event whose predecessors are not here.

Client-server API, "Getting events for a room"; server-server API, "Retrieving events".
"""

from __future__ import annotations

from typing import Final, Protocol

from synapse.api.constants import Membership
from synapse.api.errors import not_found
from synapse.handlers.visibility import RoomDoor
from synapse.storage.timeline import NEWEST, OLDEST, TimelineRow, TimelineStore
from synapse.sync.ignored import IgnoredUsers
from synapse.sync.visibility import Access, VisibilityFilter

_BATCHES: Final = (5, 50, *[500] * 20)
"""How many events are looked at, one batch after another: nearly always the first one is to be seen."""


class Elsewhere(Protocol):
    """Who asks other servers: `synapse.handlers.federated_nearest.FederatedNearest`."""

    async def fetch(self, room_id: str, timestamp: int, limit: int | None, *, backwards: bool) -> str | None:
        """Has the event nearest to `timestamp` fetched, if one is nearer than `limit`; its id."""


class NearestEvent:
    """Looks for events by time, in any process."""

    def __init__(
        self,
        door: RoomDoor,
        timeline: TimelineStore,
        visibility: VisibilityFilter,
        ignored: IgnoredUsers,
        elsewhere: Elsewhere,
    ) -> None:
        self._door = door
        self._timeline = timeline
        self._visibility = visibility
        self._ignored = ignored
        self._elsewhere = elsewhere

    async def find(self, user_id: str, room_id: str, timestamp: int, *, backwards: bool) -> TimelineRow:
        """The nearest event at `timestamp` (milliseconds) or after it; or before it. Raises 403, 404."""
        standing = await self._door.standing(user_id, room_id)
        found = await self._found(user_id, room_id, standing.access, timestamp, backwards)
        if standing.membership == Membership.JOIN and await self._is_in_gap(room_id, timestamp):
            limit = None if found is None else found.origin_server_ts
            if await self._elsewhere.fetch(room_id, timestamp, limit, backwards=backwards) is not None:
                found = await self._found(user_id, room_id, standing.access, timestamp, backwards)
        if found is None:
            direction = "backward" if backwards else "forward"
            raise not_found(f"There is no event to be found from {timestamp} in {direction} direction.")
        return found

    async def _found(
        self, user_id: str, room_id: str, access: Access, timestamp: int, backwards: bool
    ) -> TimelineRow | None:
        """The nearest event of those that are here."""
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
        return None

    async def _is_in_gap(self, room_id: str, timestamp: int) -> bool:
        """Whether what happened just before the next event, counted from this moment, is not here. One statement."""
        rows = await self._timeline.by_time(room_id, (timestamp, OLDEST), NEWEST, 1, backwards=False)
        return bool(rows) and rows[0].after_gap
