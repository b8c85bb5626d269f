"""Paging through a room's history: `GET /rooms/{roomId}/messages`.

In the order of history (depth, then arrival), bounded by what had arrived at the point where the client began: so
pages meet the timelines of /sync without gap or overlap, however the room forks. See `synapse.sync.tokens` for the
tokens.

Where a page comes upon a gap, or the end of what is here, other servers are asked for what is missing
(`handlers.remote.backfill`): it stands in its place in the order of history, and the page is read again.

Client-server API, "Getting events for a room".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from synapse.api.constants import EventTypes
from synapse.api.filters import RoomEventFilter
from synapse.handlers.visibility import RoomDoor
from synapse.storage.past_state import Members, PastStateStore
from synapse.storage.timeline import NEWEST, OLDEST, Page, TimelineRow, TimelineStore
from synapse.sync.conditions import condition
from synapse.sync.forms import Annotator, Forms, Notes
from synapse.sync.ignored import IgnoredUsers
from synapse.sync.state_at import state_at
from synapse.sync.tokens import RoomToken
from synapse.sync.visibility import Access, Seen, VisibilityFilter
from synapse.util.clock import Clock

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 1_000
_DEEPEST: Final = 2**62
_FURTHER: Final = (100, 500, 1_000, 1_000)
"""How many events are looked at after a page of which the user may see nothing, one batch after another."""

_FETCHES: Final = 3
"""How often others are asked for what is missing in one page."""

EVERYTHING: Final = RoomEventFilter()


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a client asks for; `start` None is the present end of the room backwards, its beginning onwards."""

    user_id: str
    device_id: str | None
    room_id: str
    backwards: bool
    start: RoomToken | None = None
    end: RoomToken | None = None
    limit: int = DEFAULT_LIMIT
    filter: RoomEventFilter = EVERYTHING


class Pagination:
    """Reads pages, in any process.

    :param now: the present position of the events stream.
    :param clock: its seconds are those of the epoch.
    :param backfill: has others tell what is missing in a room at that depth; whether something came.
    """

    def __init__(
        self,
        door: RoomDoor,
        timeline: TimelineStore,
        states: PastStateStore,
        visibility: VisibilityFilter,
        annotator: Annotator,
        ignored: IgnoredUsers,
        now: Callable[[], int],
        clock: Clock,
        backfill: Callable[[str, int], Awaitable[bool]],
    ) -> None:
        self._door = door
        self._backfill = backfill
        self._timeline = timeline
        self._states = states
        self._visibility = visibility
        self._annotator = annotator
        self._ignored = ignored
        self._now = now
        self._clock = clock

    async def messages(self, request: PageRequest) -> bytes:
        """The body of the answer. Raises 403. Three statements for a member, less when there is less to tell."""
        standing = await self._door.standing(request.user_id, request.room_id)
        access = standing.access
        newest = self._now() if access.until is None else access.until
        start = request.start or (RoomToken(None, newest) if request.backwards else RoomToken(0, 0))
        seen, end = await self._find(request, start, newest, access)
        answer: dict[str, Any] = {"start": str(start)}
        if end is not None:
            answer["end"] = str(end)
        answer["chunk"] = await self._written(request, seen, access)
        if request.filter.lazy_load_members:
            answer["state"] = await self._members(request.room_id, seen, access)
        return orjson.dumps(answer)

    async def _find(
        self, request: PageRequest, start: RoomToken, newest: int, access: Access
    ) -> tuple[list[Seen], RoomToken | None]:
        """A page of what the user may see, and where to go on, None at the end.

        Where nothing of a page is to be seen, as from before they joined, some of the next ones are looked through:
        mostly the end of history is found there, and the client need not ask for one empty page after the other.
        """
        # Whoever has come to the present end of a room may wait there for what is to come.
        waits = not request.backwards and request.end is None and access.until is None
        for limit in (request.limit, *_FURTHER):
            rows, more = await self.whole_page(replace(request, limit=limit), start, newest)
            seen = await self.seen(request.user_id, request.room_id, rows, access)
            if len(seen) > request.limit:
                seen = seen[: request.limit]
                return seen, next_token(start, seen[-1].row, request.backwards)
            end = next_token(start, rows[-1], request.backwards) if more or (waits and rows) else None
            if seen or end is None or not more:
                return seen, end
            start = end
        return [], start

    async def whole_page(self, request: PageRequest, start: RoomToken, newest: int) -> tuple[list[TimelineRow], bool]:
        """The same as `page`, with what other servers have of it."""
        rows, more = await self.page(request, start, newest)
        for _ in range(_FETCHES if request.backwards else 0):
            depth = depth_of_gap(rows, more, is_first=start.depth is None)
            if depth is None or not await self._backfill(request.room_id, depth):
                break
            rows, more = await self.page(request, start, newest)
        return rows, more

    async def page(self, request: PageRequest, start: RoomToken, newest: int) -> tuple[list[TimelineRow], bool]:
        """The rows of a page, and whether there are more after them."""
        page = page_of(request, start, newest)
        if not request.filter.room_matches(request.room_id) or request.filter.is_closed:
            return [], False
        rows = await self._timeline.page(page, condition(request.filter))
        return rows[: request.limit], len(rows) > request.limit

    async def seen(self, user_id: str, room_id: str, rows: Sequence[TimelineRow], access: Access) -> list[Seen]:
        """Those of a room's rows that the user may and wants to see."""
        ignored = await self._ignored.of(user_id)
        return (await self._visibility.visible({room_id: rows}, {room_id: access}, user_id, ignored))[room_id]

    async def _written(self, request: PageRequest, seen: Sequence[Seen], access: Access) -> list[orjson.Fragment]:
        rows = [row for row, _ in seen]
        bundled = {request.room_id: access}
        return self.write(seen, await self._annotator.notes(rows, request.user_id, request.device_id, bundled))

    def write(self, seen: Sequence[Seen], notes: Notes) -> list[orjson.Fragment]:
        """The events as clients get them."""
        form = self._forms().form
        return [orjson.Fragment(form(row, notes, membership)) for row, membership in seen]

    async def _members(self, room_id: str, seen: Sequence[Seen], access: Access) -> list[orjson.Fragment]:
        """The membership events of those who speak."""
        senders = sorted({row.sender for row, _ in seen})
        if not senders:
            return []
        members = Members([(room_id, sender) for sender in senders])
        rows = list((await state_at(self._states, room_id, access.until, members=members, types=())).values())
        return self._forms().forms(rows, await self._annotator.versions(rows))

    def _forms(self) -> Forms:
        return Forms(int(self._clock.seconds() * 1000), room_ids=True)


def page_of(request: PageRequest, start: RoomToken, newest: int) -> Page:
    """The stretch of history that a request is about, and one event more."""
    end = request.end
    after, until = OLDEST, newest
    if request.backwards:
        depth, stream = (_DEEPEST, NEWEST) if start.depth is None else (start.depth, start.stream)
        until = min(until, start.stream if start.depth is None else NEWEST if start.until is None else start.until)
        if end is not None and end.depth is None:
            after = end.stream
    else:
        depth, stream = (-1, OLDEST) if start.depth is None else (start.depth, start.stream)
        after = start.stream if start.depth is None else OLDEST if start.after is None else start.after
        if end is not None and end.depth is None:
            until = min(until, end.stream)
    stop = None if end is None or end.depth is None else (end.depth, end.stream)
    return Page(request.room_id, request.backwards, depth, stream, after, until, stop, request.limit + 1)


def depth_of_gap(rows: Sequence[TimelineRow], more: bool, is_first: bool) -> int | None:
    """The depth from which on something may be missing in or around a page backwards; None where nothing is.

    That is where a row says so; at the end of a last page, unless the room begins there; and before a first page, whose
    reader has come from a point of arrival, and may have left a gap just behind.
    """
    for row in rows:
        if row.after_gap:
            return row.depth
    is_end = not more and not (rows and rows[-1].type == EventTypes.CREATE)
    if is_end or not rows:  # nothing is known of what a filter leaves out
        return 0
    return rows[0].depth if is_first else None


def next_token(start: RoomToken, last: TimelineRow, backwards: bool) -> RoomToken:
    """Where the next page begins: just before the last row of this one, or just after it when going onwards."""
    if backwards:
        until = start.stream if start.depth is None else start.until
        return RoomToken(last.depth, last.stream - 1, until=until)
    after = start.stream if start.depth is None else start.after
    return RoomToken(last.depth, last.stream, after=after)
