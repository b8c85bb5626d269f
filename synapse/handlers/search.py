"""Searching what people have written: `POST /search`.

This module knows what is asked for and finds it; `synapse.handlers.search_answer` writes the answer. Which rooms may
be searched is told by `synapse.handlers.search_rooms`. Each result is judged by history visibility like any other
event; where that hides results, the next ones are looked at, so that a page is not shorter for it.

Client-server API, "Server Side Search".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, NamedTuple

import orjson

from synapse.api.errors import invalid_param, unknown
from synapse.api.filters import RoomEventFilter, parse_room_event_filter
from synapse.handlers.search_answer import Page, SearchAnswer
from synapse.handlers.search_index import PAGES_BEFORE_A_SEARCH, SearchIndex
from synapse.handlers.search_rooms import Searchable, SearchRooms
from synapse.handlers.search_wish import RoomEvents, SearchBody
from synapse.http.request import Requester
from synapse.storage.event_search import TYPES, EventSearchStore, Match, Place, SearchQuery
from synapse.storage.timeline import TimelineStore, Window
from synapse.sync.conditions import condition
from synapse.sync.ignored import IgnoredUsers
from synapse.sync.visibility import Seen
from synapse.util.batch_tokens import pack, unpack
from synapse.util.words import terms

MAX_RESULTS: Final = 50
MAX_TERM: Final = 512  # characters
MAX_WORDS: Final = 32
LEAST_RANK: Final = 1e-30
"""What is less, the database takes for nothing, or cannot hold."""
ROUNDS: Final = 5
"""How often results are looked up for one page, where history visibility hides some."""


class Start(NamedTuple):
    """Where a page begins, as its token says: behind a place, and within a group where the token is a group's."""

    place: Place | None = None
    group: str | None = None
    value: str | None = None

    def token(self) -> str:
        """The token that `parse_start` understands."""
        assert self.place is not None
        return pack(self.place.rank, self.place.stream, self.group, self.value)


def parse_start(token: str | None, by_rank: bool) -> Start:
    """The start that a `next_batch` names; raises M_INVALID_PARAM."""
    if token is None:
        return Start()
    values = unpack(token, (float, type(None)), int, (str, type(None)), (str, type(None)))
    if values is not None:
        rank, stream, group, value = values
        is_group = group in ("room_id", "sender") and value is not None
        is_rank = rank is None or rank == 0 or LEAST_RANK < rank < 1 / LEAST_RANK
        if is_rank and (rank is not None) is by_rank and (is_group or (group is None and value is None)):
            return Start(Place(rank, stream), group, value)
    raise invalid_param("'next_batch' is not a token of this search.")


class SearchHandler:
    """Searches, in the main process, which keeps the index.

    :param enabled: whether this server offers it (`enable_search`).
    """

    def __init__(
        self,
        store: EventSearchStore,
        index: SearchIndex,
        rooms: SearchRooms,
        timeline: TimelineStore,
        ignored: IgnoredUsers,
        answer: SearchAnswer,
        *,
        enabled: bool,
    ) -> None:
        self._store = store
        self._index = index
        self._rooms = rooms
        self._timeline = timeline
        self._ignored = ignored
        self._answer = answer
        self._enabled = enabled

    async def search(self, requester: Requester, body: SearchBody, next_batch: str | None) -> bytes:
        """The body of the answer. Raises 400 M_INVALID_PARAM, and 400 M_UNKNOWN where search is switched off."""
        if not self._enabled:
            raise unknown("Searching messages is switched off on this server.")
        wish = body.search_categories.room_events
        if wish is None:
            return b'{"search_categories":{}}'
        _check(wish)
        start = parse_start(next_batch, wish.order_by == "rank")
        wanted = _narrowed(parse_room_event_filter(wish.filter), start)
        if wanted.limit <= 0:
            raise invalid_param("'limit' in the filter must be greater than 0.")
        page = await self._find(requester.user_id, wish, wanted, start)
        events = await self._answer.write(requester, wish, wanted, page)
        self._add_tokens(events, wish, page, start)
        return orjson.dumps({"search_categories": {"room_events": events}})

    async def _find(self, user_id: str, wish: RoomEvents, wanted: RoomEventFilter, start: Start) -> Page:
        await self._index.catch_up(PAGES_BEFORE_A_SEARCH)
        words = terms(wish.search_term)
        searchable = await self._rooms.of(user_id, wanted)
        ignored = await self._ignored.of(user_id)
        windows = _windows(searchable, start)
        if not words or not windows or wanted.is_closed:
            return Page([], 0, searchable.access, ignored, None, None)
        query = SearchQuery(
            terms=words,
            types=[TYPES[key] for key in (wish.keys if wish.keys is not None else TYPES)],
            windows=windows,
            condition=condition(wanted),
            ignored=sorted(ignored),
            by_rank=wish.order_by == "rank",
            after=start.place,
            limit=min(wanted.limit, MAX_RESULTS),
        )
        return await self._collect(user_id, query, searchable, ignored)

    async def _collect(self, user_id: str, query: SearchQuery, searchable: Searchable, ignored: frozenset[str]) -> Page:
        """Results until the page is full, or there are no more, or it takes too long."""
        limit = query.limit
        results: list[tuple[Match, Seen]] = []
        for _ in range(ROUNDS):
            found = await self._store.search(query)
            results += await self._visible(user_id, found.matches, searchable, ignored)
            if len(results) >= limit or not found.later_rooms:
                break
            query = query._replace(after=_place(found.matches[-1], query.by_rank), limit=limit - len(results))
        last = found.matches[-1] if found.matches else None
        place = None if last is None or not found.later_rooms else _place(last, query.by_rank)
        return Page(results, found.total, searchable.access, ignored, place, found)

    async def _visible(
        self, user_id: str, matches: list[Match], searchable: Searchable, ignored: frozenset[str]
    ) -> list[tuple[Match, Seen]]:
        rows = await self._timeline.get([match.event_id for match in matches])
        seen = await self._answer.visible(user_id, rows.values(), searchable.access, ignored)
        # What was pruned for this user, because its sender is erased, does not say any more what was looked for.
        whole = {event_id for event_id, each in seen.items() if each.row.redacted_by is None}
        return [(match, seen[match.event_id]) for match in matches if match.event_id in whole]

    def _add_tokens(self, events: dict[str, Any], wish: RoomEvents, page: Page, start: Start) -> None:
        """`next_batch`, of the whole and of those groups of which there is more behind the page."""
        if page.place is None or page.found is None:
            return
        events["next_batch"] = Start(page.place, start.group, start.value).token()
        later = {"room_id": page.found.later_rooms, "sender": page.found.later_senders}
        for key, groups in events.get("groups", {}).items():
            for value, group in groups.items():
                if value in later[key]:
                    group["next_batch"] = Start(page.place, key, value).token()


def _check(wish: RoomEvents) -> None:
    if len(wish.search_term) > MAX_TERM or len(terms(wish.search_term)) > MAX_WORDS:
        raise invalid_param(f"'search_term' has at most {MAX_TERM} characters and {MAX_WORDS} words.")
    context = wish.event_context
    if context is not None and min(context.before_limit, context.after_limit) < 0:
        raise invalid_param("'before_limit' and 'after_limit' must not be negative.")


def _narrowed(wanted: RoomEventFilter, start: Start) -> RoomEventFilter:
    """The filter, within the group of a sender that a token is of."""
    if start.group != "sender" or start.value is None:
        return wanted
    one = frozenset({start.value})
    return replace(wanted, senders=one if wanted.senders is None else one & wanted.senders)


def _windows(searchable: Searchable, start: Start) -> list[Window]:
    """The stretches to search, within the group of a room that a token is of."""
    if start.group != "room_id":
        return searchable.windows
    return [window for window in searchable.windows if window.room_id == start.value]


def _place(match: Match, by_rank: bool) -> Place:
    return Place(match.rank if by_rank else None, match.stream)
