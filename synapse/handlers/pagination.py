"""Paging through a room's history: `GET /rooms/{roomId}/messages`.

In the order of history (depth, then arrival), bounded by what had arrived at the point where the client began: so
pages meet the timelines of /sync without gap or overlap, however the room forks. See `synapse.sync.tokens` for the
tokens.

Where a page comes upon a gap, or the end of what is here, other servers are asked for what is missing
(`handlers.remote.backfill`): it stands in its place in the order of history, and the page is read again. In the order
of arrival, its place is that of the gap: so between two points of arrival lies what has filled the gaps between them.
While something is missing that nobody tells now, the last page has an `end`: the room does not begin there. Where more
is to be told than is fetched for one page, the page ends before that, and whoever goes on has more of it fetched.

Client-server API, "Getting events for a room".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, Protocol

import orjson

from synapse.api.constants import EventTypes
from synapse.api.filters import RoomEventFilter
from synapse.handlers.remote.gaps import Told
from synapse.handlers.visibility import RoomDoor
from synapse.storage.awaited import Stretch
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
_FETCHES_IN_ALL: Final = 6
"""The same where further pages are looked through for it."""
_FETCHES_ONWARDS: Final = 10
"""The same onwards, where nothing can be shown before all of a gap is here: others tell from its end."""
_SECONDS: Final = 20.0
"""After so long, nobody is asked any more for one page."""

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


class Elsewhere(Protocol):
    """What other servers have of rooms: `synapse.app._remote`."""

    async def backfill(self, room_id: str, stretch: Stretch) -> Told:
        """Has others tell what is missing there."""

    async def untold(self, room_id: str, stretch: Stretch) -> int | None:
        """The depth of the nearest event there before which something is missing that others may tell."""

    def filled(self) -> int:
        """Is another once something has come that was missing, in whichever room."""

    def may_lack(self, room_id: str, filled: int) -> bool:
        """Whether what was read of the room when `filled` was that may lack what is here by now."""


class Read(NamedTuple):
    """A page that was read. `more`: there are rows after it, or will be. `told`: what others have told of it; WHOLE
    where nothing is missing that could be shown in it."""

    rows: list[TimelineRow]
    more: bool
    told: Told


class Pagination:
    """Reads pages, in any process.

    :param now: the present position of the events stream.
    :param clock: its seconds are those of the epoch.
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
        elsewhere: Elsewhere,
    ) -> None:
        self._door = door
        self._elsewhere = elsewhere
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
        fetches = _FETCHES_IN_ALL if request.backwards else _FETCHES_ONWARDS
        for limit in (request.limit, *_FURTHER):
            rows, more, told = await self.whole_page(replace(request, limit=limit), start, newest, fetches)
            if more and not rows:
                break
            seen = await self.seen(request.user_id, request.room_id, rows, access)
            if len(seen) > request.limit:
                seen = seen[: request.limit]
                return seen, next_token(start, seen[-1].row, request.backwards)
            goes_on = more or (waits and rows) or (rows and _is_cut_off(request, rows, seen, told))
            end = next_token(start, rows[-1], request.backwards) if goes_on else None
            if seen or end is None or not more:
                return seen, end
            fetches -= _FETCHES if told is Told.MORE else 0
            start = end
        return [], start

    async def whole_page(
        self, request: PageRequest, start: RoomToken, newest: int, fetches: int = _FETCHES_ONWARDS
    ) -> Read:
        """The same as `page`, with what other servers have of it, as far as that goes without leaving anything out."""
        deadline = self._clock.seconds() + _SECONDS
        filled = self._elsewhere.filled()
        rows, more = await self.page(request, start, newest)
        for _ in range(min(fetches, _FETCHES) if request.backwards else fetches):
            stretch = stretch_of(request, start, newest, rows, more)
            told = Told.WHOLE if stretch is None else await self._elsewhere.backfill(request.room_id, stretch)
            # Others who page may have had it come between the page and the look at what is missing.
            if told is not Told.MORE and not self._elsewhere.may_lack(request.room_id, filled):
                return Read(rows, more, told)
            filled = self._elsewhere.filled()
            rows, more = await self.page(request, start, newest)
            if self._clock.seconds() >= deadline:
                break
        stretch = stretch_of(request, start, newest, rows, more)
        depth = None if stretch is None else await self._elsewhere.untold(request.room_id, stretch)
        if depth is None:
            return Read(rows, more, Told.MORE)
        return Read([row for row in rows if request.backwards and row.depth >= depth], True, Told.MORE)

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


def stretch_of(
    request: PageRequest, start: RoomToken, newest: int, rows: Sequence[TimelineRow], more: bool
) -> Stretch | None:
    """The events before which something may be missing that belongs into the page; None where it is for no events.

    A last page reaches as far back as there may be anything, unless the room begins there. What is before a first page
    backwards counts too: whoever has come from a point of arrival may have left a gap just behind.
    """
    end = request.end
    if not request.limit or not request.filter.room_matches(request.room_id) or request.filter.is_closed:
        return None
    page = page_of(request, start, newest)
    if request.backwards:
        lowest, highest = rows[-1].depth if rows else 0, start.depth
        if not more and not (rows and rows[-1].type == EventTypes.CREATE):
            lowest = 0 if end is None or end.depth is None else end.depth
    else:
        lowest = 0 if start.depth is None else start.depth + 1
        highest = rows[-1].depth if more else None if end is None else end.depth
    return Stretch(lowest, highest, page.after, page.until, request.backwards)


def _is_cut_off(request: PageRequest, rows: Sequence[TimelineRow], seen: Sequence[Seen], told: Told) -> bool:
    """Whether a last page backwards ends where history does that is here, and not where the room does. Who sees nothing
    of it need not ask again, unless more is coming."""
    at_the_end = request.backwards and request.end is None and rows[-1].type != EventTypes.CREATE
    return at_the_end and (told is Told.MORE or (told is Told.NOTHING and bool(seen)))


def next_token(start: RoomToken, last: TimelineRow, backwards: bool) -> RoomToken:
    """Where the next page begins: just before the last row of this one, or just after it when going onwards."""
    if backwards:
        until = start.stream if start.depth is None else start.until
        return RoomToken(last.depth, last.stream - 1, until=until)
    after = start.stream if start.depth is None else start.after
    return RoomToken(last.depth, last.stream, after=after)
