"""Writing the answer of a search: the events, what happened around them, who spoke, the rooms' state, the groups, and
the words to highlight.

Everything is read for all results at once. Client-server API, "Server Side Search".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from synapse.api.constants import EventTypes
from synapse.api.filters import RoomEventFilter
from synapse.handlers.search_wish import ContextWish, RoomEvents
from synapse.http.request import Requester
from synapse.state.filters import StateFilter
from synapse.storage.event_search import EventSearchStore, Found, Match, Place, searched_text
from synapse.storage.past_state import ALL_MEMBERS, Members, PastStateStore
from synapse.storage.state import StateStore
from synapse.storage.surroundings import Surroundings, SurroundingsStore
from synapse.storage.timeline import TimelineRow
from synapse.sync.forms import NO_NOTES, Annotator, Forms, Notes, content_of
from synapse.sync.state_at import state_at
from synapse.sync.tokens import RoomToken
from synapse.sync.visibility import Access, Seen, VisibilityFilter
from synapse.util.clock import Clock
from synapse.util.words import UNSPACED, WORD, fold, terms

MAX_CONTEXT: Final = 20
MAX_HIGHLIGHT_TEXT: Final = 8_000
"""In so many characters of each result, words to highlight are looked for."""

Profiles = dict[int, dict[str, dict[str, Any]]]
"""By state group and user."""


class Page(NamedTuple):
    """Results that the user may see, and what else is known of them.

    `place` is where the page ends and `found` what was found last, if there are more results behind it.
    """

    results: list[tuple[Match, Seen]]
    total: int
    access: Mapping[str, Access]
    ignored: frozenset[str]
    place: Place | None
    found: Found | None


class SearchAnswer:
    """Writes answers.

    :param clock: its seconds are those of the epoch.
    """

    def __init__(
        self,
        store: EventSearchStore,
        surroundings: SurroundingsStore,
        visibility: VisibilityFilter,
        annotator: Annotator,
        states: PastStateStore,
        groups: StateStore,
        clock: Clock,
    ) -> None:
        self._store = store
        self._surroundings = surroundings
        self._visibility = visibility
        self._annotator = annotator
        self._states = states
        self._groups = groups
        self._clock = clock

    async def write(
        self, requester: Requester, wish: RoomEvents, wanted: RoomEventFilter, page: Page
    ) -> dict[str, Any]:
        """`room_events` of the answer, without tokens."""
        rows = [seen.row for _, seen in page.results]
        answer: dict[str, Any] = {
            "count": page.total,
            "results": [],
            "highlights": await self._highlights(wish.search_term, rows),
        }
        if wish.groupings.group_by:
            keys = dict.fromkeys(group.key for group in wish.groupings.group_by)
            answer["groups"] = {key: _groups(rows, key) for key in keys}
        if wish.include_state:
            answer["state"] = await self._state(rows, wanted, page.access)
        if rows:
            answer["results"] = await self._results(requester, wish.event_context, page)
        return answer

    async def visible(
        self, user_id: str, rows: Iterable[TimelineRow], access: Mapping[str, Access], ignored: frozenset[str]
    ) -> dict[str, Seen]:
        """Those of the events that the user may see, by id."""
        timelines: dict[str, dict[str, TimelineRow]] = {}
        for row in rows:
            timelines.setdefault(row.room_id, {})[row.event_id] = row
        found = await self._visibility.visible(
            {room_id: list(each.values()) for room_id, each in timelines.items()}, access, user_id, ignored
        )
        return {seen.row.event_id: seen for room in found.values() for seen in room}

    # -- events ------------------------------------------------------------------------------------------------------

    async def _results(self, requester: Requester, wish: ContextWish | None, page: Page) -> list[dict[str, Any]]:
        rows = [seen.row for _, seen in page.results]
        seen = {each.row.event_id: each for _, each in page.results}
        around: dict[str, Surroundings] = {}
        profiles: Profiles = {}
        if wish is not None:
            around = await self._around(rows, wish, page)
            neighbours = [row for each in around.values() for row in (*each.before, *each.after)]
            seen |= await self.visible(requester.user_id, neighbours, page.access, page.ignored)
            if wish.include_profile:
                profiles = await self._profiles(rows, {each.row.sender for each in seen.values()})
        every = [each.row for each in seen.values()]
        notes = await self._annotator.notes(every, requester.user_id, requester.device_id, page.access)
        forms = Forms(int(self._clock.seconds() * 1000), room_ids=True)
        written = {
            event_id: orjson.Fragment(forms.form(each.row, notes, each.membership)) for event_id, each in seen.items()
        }
        results: list[dict[str, Any]] = []
        for match, each in page.results:
            result: dict[str, Any] = {"rank": match.rank, "result": written[match.event_id]}
            if wish is not None:
                beside = around[match.event_id]
                result["context"] = _context(each.row, beside, written)
                if wish.include_profile:
                    senders = {row.sender for row in (each.row, *beside.before, *beside.after) if row.event_id in seen}
                    known = profiles.get(each.row.state_group or 0, {})
                    result["context"]["profile_info"] = {u: known[u] for u in sorted(senders & known.keys())}
            results.append(result)
        return results

    async def _around(self, rows: Sequence[TimelineRow], wish: ContextWish, page: Page) -> dict[str, Surroundings]:
        before, after = min(wish.before_limit, MAX_CONTEXT), min(wish.after_limit, MAX_CONTEXT)
        if not (before or after):
            return {row.event_id: Surroundings([], []) for row in rows}
        until = {room_id: each.until for room_id, each in page.access.items()}
        return await self._surroundings.of(rows, before, after, until)

    async def _profiles(self, rows: Sequence[TimelineRow], users: set[str]) -> Profiles:
        """Under which names and pictures the users were in the rooms when the results were sent."""
        groups = {row.state_group for row in rows if row.state_group is not None}
        wanted = StateFilter.keys((EventTypes.MEMBER, user_id) for user_id in users)
        states = await self._groups.ids(groups, wanted)
        members = await self._states.events({event_id for state in states.values() for event_id in state.values()})
        notes = await self._annotator.versions(members.values())
        shown = {event_id: _profile(row, notes) for event_id, row in members.items()}
        return {
            group: {user_id: shown[event_id] for (_, user_id), event_id in state.items() if event_id in shown}
            for group, state in states.items()
        }

    # -- rooms -------------------------------------------------------------------------------------------------------

    async def _state(
        self, rows: Sequence[TimelineRow], wanted: RoomEventFilter, access: Mapping[str, Access]
    ) -> dict[str, list[orjson.Fragment]]:
        """The state of each room of the results: as it is, or as it was when the user left. With lazy loading, of the
        members only those who are among the senders."""
        rooms: dict[str, list[TimelineRow]] = {row.room_id: [] for row in rows}
        speakers = sorted({(row.room_id, row.sender) for row in rows})
        members = Members(speakers) if wanted.lazy_load_members else ALL_MEMBERS
        present = [room_id for room_id in rooms if access[room_id].until is None]
        for _, row in await self._states.current(present, members):
            rooms[row.room_id].append(row)
        for room_id in rooms.keys() - set(present):
            own = Members([each for each in speakers if each[0] == room_id]) if wanted.lazy_load_members else members
            rooms[room_id] = list((await state_at(self._states, room_id, access[room_id].until, members=own)).values())
        every = [row for state in rooms.values() for row in state]
        notes = await self._annotator.versions(every)
        forms = Forms(int(self._clock.seconds() * 1000), room_ids=True)
        return {room_id: forms.forms(state, notes) for room_id, state in rooms.items()}

    # -- words -------------------------------------------------------------------------------------------------------

    async def _highlights(self, term: str, rows: Sequence[TimelineRow]) -> list[str]:
        """The words of the results that were meant, as they stand there but for their case."""
        if not rows:
            return []
        spoken: dict[str, set[str]] = {}
        for row in rows:
            text = searched_text(row.type, row.json)[:MAX_HIGHLIGHT_TEXT]
            for word in WORD.findall(text):
                spoken.setdefault(fold(word), set()).add(word.lower())
        meant = await self._store.same_stem(list(spoken), terms(term))
        found = {word for folded in meant for word in spoken[folded]}
        return sorted(found | {run for word in WORD.findall(fold(term)) for run in UNSPACED.findall(word)})


def _context(row: TimelineRow, around: Surroundings, written: Mapping[str, orjson.Fragment]) -> dict[str, Any]:
    first = around.before[-1] if around.before else row
    last = around.after[-1] if around.after else row
    return {
        "start": str(RoomToken(first.depth, first.stream - 1)),
        "end": str(RoomToken(last.depth, last.stream)),
        "events_before": [written[each.event_id] for each in around.before if each.event_id in written],
        "events_after": [written[each.event_id] for each in around.after if each.event_id in written],
    }


def _groups(rows: Sequence[TimelineRow], key: str) -> dict[str, dict[str, Any]]:
    """The results by room or sender; groups are in the order of their best results."""
    groups: dict[str, dict[str, Any]] = {}
    for row in rows:
        value = row.room_id if key == "room_id" else row.sender
        group = groups.setdefault(value, {"order": len(groups) + 1, "results": []})
        group["results"].append(row.event_id)
    return groups


def _profile(row: TimelineRow, notes: Notes = NO_NOTES) -> dict[str, Any]:
    content = orjson.loads(content_of(row, notes))
    return {name: content[name] for name in ("displayname", "avatar_url") if isinstance(content.get(name), str)}
