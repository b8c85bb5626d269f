"""The events that relate to an event, page by page: `GET /rooms/{roomId}/relations/{eventId}`.

In the order of history, with the tokens of /messages and /sync. Relations to relations are followed as far as
`MAX_DEPTH`, where the client asks for that. Client-server API, "Relationships API".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

from synapse.api.errors import MatrixError
from synapse.handlers.pagination import PageRequest, Pagination, next_token, page_of
from synapse.handlers.room_reading import RoomReading, no_event
from synapse.handlers.visibility import RoomDoor
from synapse.storage.relations import Related, RelationsStore
from synapse.storage.timeline import NEWEST
from synapse.sync.forms import Annotator
from synapse.sync.tokens import RoomToken

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 1_000

MAX_DEPTH: Final = 3
"""How many relations lie between an event and those that are shown as related to it, with `recurse`."""


@dataclass(frozen=True, slots=True)
class RelationsRequest:
    """What a client asks for: of `page`, the part that relates to an event, in a certain way if it says so.

    `recurse` is None where it is not mentioned.
    """

    page: PageRequest
    event_id: str
    rel_type: str | None = None
    event_type: str | None = None
    recurse: bool | None = None


class Relations:
    """Reads relations, in any process."""

    def __init__(
        self,
        door: RoomDoor,
        reading: RoomReading,
        pagination: Pagination,
        store: RelationsStore,
        annotator: Annotator,
    ) -> None:
        self._door = door
        self._reading = reading
        self._pagination = pagination
        self._store = store
        self._annotator = annotator

    async def of(self, request: RelationsRequest) -> bytes:
        """The body of the answer. Raises 404 for events that the user may not see, too."""
        page = request.page
        user_id, room_id = page.user_id, page.room_id
        try:
            access = (await self._door.standing(user_id, room_id)).access
        except MatrixError:  # 403: whether the event exists is not for them to know
            raise no_event() from None
        # Whom the user ignores may still be answered by others.
        await self._reading.seen_event(user_id, room_id, request.event_id, access, though_ignored=True)
        newest = NEWEST if access.until is None else access.until
        start = page.start or (RoomToken(None, newest) if page.backwards else RoomToken(0, 0))
        depth = MAX_DEPTH if request.recurse else 1
        wanted = Related(request.event_id, request.rel_type, request.event_type, depth)
        rows = await self._store.related(page_of(page, start, newest), wanted)
        shown = rows[: page.limit]
        seen = await self._pagination.seen(user_id, room_id, shown, access)
        told = [row for row, _ in seen]
        notes = await self._annotator.notes(told, user_id, page.device_id, {room_id: access})
        answer: dict[str, Any] = {"chunk": self._pagination.write(seen, notes)}
        if len(rows) > page.limit:
            answer["next_batch"] = str(next_token(start, shown[-1], page.backwards))
        if page.start is not None:
            answer["prev_batch"] = str(page.start)
        if request.recurse is not None:
            answer["recursion_depth"] = MAX_DEPTH if request.recurse else 0
        return orjson.dumps(answer)
