"""Walking back through a room's graph for another server, within bounds.

What an event refers to is in its JSON only. So a stretch of the room is read at once, below where the walk begins, and
walked in memory; a walk that comes to events outside of it reads another one, a few times at most, and then ends where
it is: who asks asks again from there.

Events that were rejected are walked through and told to nobody. Soft-failed ones are told of where what is asked about
refers to them ("Soft failure").

Server-server API, "Backfilling and retrieving missing events".
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from synapse.storage.served_events import ServedEvent, ServedEventsStore

MAX_BACKFILL: Final = 100
"""Events of one answer to /backfill."""
MAX_MISSING: Final = 20
"""Events of one answer to /get_missing_events."""
MAX_STARTS: Final = 100
"""Events that a walk may begin at; of more, the first ones count."""
_ROUNDS: Final = 4
"""How many stretches are read, each in one statement."""
_MAX_KNOWN: Final = 2_000
"""Events that a walk may look at."""

_Order = Callable[["ServedEvent"], Any]


class HistoryWalk:
    """Walks, in any process."""

    def __init__(self, store: ServedEventsStore) -> None:
        self._store = store

    async def backfill(self, room_id: str, starts: Collection[str], limit: int) -> list[ServedEvent]:
        """The events `starts` of a room and what came before them, `limit` at most, the latest first.

        What is not in the room is passed over.
        """
        walk = _Walk(self._store, room_id, min(limit, MAX_BACKFILL), lambda e: (-e.depth, -e.stream))
        return await walk.back_from(list(starts)[:MAX_STARTS])

    async def missing(
        self, room_id: str, latest: Collection[str], earliest: Collection[str], limit: int, min_depth: int
    ) -> list[ServedEvent]:
        """What `latest` refer to, and what that refers to, breadth first, but for `earliest` and what lies beyond them.

        `limit` at most, none that says that it is less deep than `min_depth`; the oldest first.
        """
        starts = list(latest)[:MAX_STARTS]
        turn = count()
        walk = _Walk(self._store, room_id, min(limit, MAX_MISSING), lambda _: next(turn), min_depth)
        walk.untold = set(starts)
        walk.stops = set(earliest)
        return sorted(await walk.back_from(starts), key=lambda event: (event.depth, event.stream))


class _Walk:
    """One walk. `untold` are walked through, `stops` are not even looked at."""

    def __init__(
        self, store: ServedEventsStore, room_id: str, limit: int, order: _Order, min_depth: int | None = None
    ) -> None:
        self.untold: set[str] = set()
        self.stops: set[str] = set()
        self._store = store
        self._room_id = room_id
        self._limit = limit
        self._order = order
        self._min_depth = min_depth
        self._known: dict[str, ServedEvent] = {}
        self._queue: list[tuple[Any, int, str]] = []
        self._unread: list[str] = []
        self._floor: float = 0
        self._rounds = 0

    async def back_from(self, starts: Iterable[str]) -> list[ServedEvent]:
        found: list[ServedEvent] = []
        met: set[str] = set(self.stops)
        self._meet(starts, met)
        while len(found) < self._limit:
            if self._unread and (not self._queue or self._queue[0][1] <= self._floor):
                await self._read()
            if not self._queue:
                break
            event = self._known[heapq.heappop(self._queue)[2]]
            if not event.rejected and event.event_id not in self.untold:
                found.append(event)
            self._meet(prev_event_ids(event.json), met)
        return found

    def _meet(self, event_ids: Iterable[str], met: set[str]) -> None:
        """Puts events into the queue, each once; those that are not known yet aside. They are below the stretches that
        have been read, or not here at all: many of them are read at once, when it is their turn."""
        for event_id in event_ids:
            if event_id in met:
                continue
            met.add(event_id)
            if event_id in self._known:
                self._enqueue(self._known[event_id])
            else:
                self._unread.append(event_id)

    def _enqueue(self, event: ServedEvent) -> None:
        if self._min_depth is None or event.depth >= self._min_depth:
            heapq.heappush(self._queue, (self._order(event), event.depth, event.event_id))

    async def _read(self) -> None:
        """Reads those put aside that are in the room, and what is below them; as often as it may."""
        unread, self._unread = self._unread, []
        if self._rounds == _ROUNDS or len(self._known) > _MAX_KNOWN:
            return
        self._rounds += 1
        stretch = await self._store.stretch(self._room_id, unread, self._limit + len(self.untold))
        self._known.update((event.event_id, event) for event in stretch)
        named = set(unread)
        below = [event.depth for event in stretch if event.event_id not in named]
        self._floor = min(below, default=0)
        for event_id in unread:
            if event_id in self._known:
                self._enqueue(self._known[event_id])


class _References(msgspec.Struct):
    prev_events: list[Any]


_decoder = msgspec.json.Decoder(_References)


def prev_event_ids(json: str) -> list[str]:
    """What a stored event refers to. In the oldest room versions, references are pairs of an id and its hashes."""
    return [each if isinstance(each, str) else each[0] for each in _decoder.decode(json).prev_events]
