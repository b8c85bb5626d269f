"""How much people have not read, from memory as far as it goes: a room where thousands of messages wait unread is
counted once, and then only what has come since.

New events say for whom they count, so that what has come since is mostly counted in memory as well.

A count holds as of a position. The streams say when it does not any more: when the user has read something (a receipt,
an event of their own) or has come or gone, and when an event of the room is redacted.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.replication.event_rows import HIGHLIGHTS, NOTIFIES, EventRow
from synapse.storage.unread import Unread, UnreadStore

if TYPE_CHECKING:
    from synapse.replication.notifier import Notifier
    from synapse.replication.streams import Rows
    from synapse.util.caches import LruCache

CACHE: Final = "unread_counts"

_NEWS: Final = 2_000  # events
_REMEMBERED: Final = 10_000  # users and rooms whose counts changed by less obvious means, and rooms with redactions

Threads = dict[str, Unread]


class Counted(NamedTuple):
    """What a user had not read of a room up to and including `position`, by thread."""

    position: int
    threads: Threads


_NOTHING: Final = Counted(0, {})


class _New(NamedTuple):
    """An event that the stream told of; `users` None where it does not say for whom it counts."""

    stream: int
    thread_id: str
    users: dict[str, int] | None


class _News:
    """The last events of the server, as far as they concern counts: everything after position `complete_after`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._order: deque[str] = deque()
        self._rooms: dict[str, deque[_New]] = {}
        self.complete_after: int | None = None

    def start(self, position: int) -> None:
        self._order.clear()
        self._rooms.clear()
        self.complete_after = position

    def add(self, stream: int, row: EventRow) -> None:
        users = None if row.unread is None else dict(row.unread)
        room = self._rooms.get(row.room_id)
        if room is None:
            room = self._rooms[row.room_id] = deque()
        room.append(_New(stream, row.thread_id, users))
        self._order.append(row.room_id)
        if len(self._order) > self._size:
            oldest = self._order.popleft()
            self.complete_after = self._rooms[oldest].popleft().stream
            if not self._rooms[oldest]:
                del self._rooms[oldest]

    def of(self, user_id: str, room_id: str, after: int, until: int) -> list[Unread] | None:
        """What counts for the user at `after` < position ≤ `until`; None where that is not known."""
        if self.complete_after is None or after < self.complete_after:
            return None
        found: list[Unread] = []
        for stream, thread_id, users in reversed(self._rooms.get(room_id, ())):
            if stream <= after:
                break
            if users is None:
                return None
            flags = users.get(user_id)
            if flags is not None and stream <= until:
                notifies, highlights = int(flags & NOTIFIES > 0), int(flags & HIGHLIGHTS > 0)
                found.append(Unread(room_id, thread_id, notifies, highlights, stream))
        return found


class UnreadCounts:
    """Counts in one statement, however many rooms there are; in none where it has counted lately.

    :param cache: by user and room.
    """

    def __init__(self, store: UnreadStore, cache: LruCache[tuple[str, str], Counted]) -> None:
        self._store = store
        self._cache = cache
        self._settled: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._redacted: OrderedDict[str, int] = OrderedDict()
        self._news = _News(_NEWS)

    def follow(self, notifier: Notifier) -> None:
        """Listens to what makes counts wrong."""
        notifier.subscribe("events", self.events, self.start)
        notifier.subscribe("receipts", self.receipts, lambda _: self._cache.clear())

    def start(self, position: int) -> None:
        """The events stream starts (anew) here."""
        self._cache.clear()
        self._news.start(position)

    def events(self, position: int, rows: Rows) -> None:
        for stream, row in rows:
            if isinstance(row, EventRow):
                self._news.add(stream, row)
                self._forget(row.sender, row.room_id, stream)
                if row.state_key is not None:
                    self._forget(row.state_key, row.room_id, stream)
                if row.redacts is not None:
                    self._redacted[row.room_id] = stream
                    if len(self._redacted) > _REMEMBERED:
                        self._redacted.clear()
                        self._cache.clear()

    def receipts(self, position: int, rows: Rows) -> None:
        for _, row in rows:
            self._cache.invalidate((row.user_id, row.room_id))

    def changed_since(self, user_id: str, room_id: str, unread: Collection[Unread], after: int) -> bool:
        """Whether these counts, which are the present ones, are others than those of that position, as far as this
        process knows.
        """
        settled = max(self._settled.get((user_id, room_id), 0), self._redacted.get(room_id, 0))
        return settled > after or any(thread.last > after for thread in unread)

    async def of(self, user_id: str, room_ids: Collection[str], until: int) -> dict[str, Collection[Unread]]:
        """By room, for each thread in which there is anything to count."""
        before = {room_id: self._before(user_id, room_id, until) for room_id in room_ids}
        found = {room_id: dict(counted.threads) for room_id, counted in before.items()}
        asked: dict[str, int] = {}
        for room_id, counted in before.items():
            news = self._news.of(user_id, room_id, counted.position, until) if counted.position else None
            if news is None:
                asked[room_id] = counted.position
            for new in news or ():
                _add(found[room_id], new)
        for new in await self._store.counts(user_id, asked, until):
            _add(found[new.room_id], new)
        for room_id, counted in before.items():
            # Somebody may have read meanwhile; then what we have counted on is not there any more.
            if self._cache.peek((user_id, room_id)) is counted:
                self._cache.set((user_id, room_id), Counted(until, found[room_id]))
        return {room_id: threads.values() for room_id, threads in found.items()}

    def _forget(self, user_id: str, room_id: str, stream: int) -> None:
        """Counts of a user's that an event of their own, or about them, makes wrong."""
        key = (user_id, room_id)
        counted = self._cache.peek(key)
        if counted is None:
            return
        self._cache.invalidate(key)
        if counted.threads:
            self._settled[key] = stream
            if len(self._settled) > _REMEMBERED:
                self._settled.popitem(last=False)

    def _before(self, user_id: str, room_id: str, until: int) -> Counted:
        """What is known and no newer than `until`. Of what is not known, that nothing was there in the beginning."""
        counted = self._cache.get((user_id, room_id))
        if counted is None or counted.position < self._redacted.get(room_id, 0) <= until:
            counted = Counted(0, {})  # an object of its own, to be recognized by
            self._cache.set((user_id, room_id), counted)
        return counted if counted.position <= until else _NOTHING


def _add(threads: Threads, new: Unread) -> None:
    old = threads.get(new.thread_id)
    if old is not None:
        new = new._replace(
            notifications=old.notifications + new.notifications,
            highlights=old.highlights + new.highlights,
            last=max(old.last, new.last),
        )
    threads[new.thread_id] = new
