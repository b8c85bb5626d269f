"""How much people have not read, from memory as far as it goes: a room where thousands of messages wait unread is
counted once, and then only what has come since.

A count holds as of a position. The streams say when it does not any more: when the user has read something (a receipt,
an event of their own) or has come or gone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.replication.event_rows import EventRow
from synapse.storage.unread import Unread, UnreadStore

if TYPE_CHECKING:
    from synapse.replication.notifier import Notifier
    from synapse.replication.streams import Rows
    from synapse.util.caches import LruCache

CACHE: Final = "unread_counts"

Threads = dict[str, Unread]


class Counted(NamedTuple):
    """What a user had not read of a room up to and including `position`, by thread."""

    position: int
    threads: Threads


_NOTHING: Final = Counted(0, {})


class UnreadCounts:
    """Counts in one statement, however many rooms there are.

    :param cache: by user and room.
    """

    def __init__(self, store: UnreadStore, cache: LruCache[tuple[str, str], Counted]) -> None:
        self._store = store
        self._cache = cache

    def follow(self, notifier: Notifier) -> None:
        """Listens to what makes counts wrong."""
        notifier.subscribe("events", self.events, lambda _: self._cache.clear())
        notifier.subscribe("receipts", self.receipts, lambda _: self._cache.clear())

    def events(self, position: int, rows: Rows) -> None:
        for _, row in rows:
            if isinstance(row, EventRow):
                self._cache.invalidate((row.sender, row.room_id))
                if row.state_key is not None:
                    self._cache.invalidate((row.state_key, row.room_id))

    def receipts(self, position: int, rows: Rows) -> None:
        for _, (room_id, user_id) in rows:
            self._cache.invalidate((user_id, room_id))

    async def of(self, user_id: str, room_ids: Collection[str], until: int) -> dict[str, Collection[Unread]]:
        """By room, for each thread in which there is anything to count."""
        before = {room_id: self._before(user_id, room_id, until) for room_id in room_ids}
        found = {room_id: dict(counted.threads) for room_id, counted in before.items()}
        after = {room_id: counted.position for room_id, counted in before.items()}
        for new in await self._store.counts(user_id, after, until):
            _add(found[new.room_id], new)
        for room_id, counted in before.items():
            # Somebody may have read meanwhile; then what we have counted on is not there any more.
            if self._cache.peek((user_id, room_id)) is counted:
                self._cache.set((user_id, room_id), Counted(until, found[room_id]))
        return {room_id: threads.values() for room_id, threads in found.items()}

    def _before(self, user_id: str, room_id: str, until: int) -> Counted:
        """What is known and no newer than `until`. Of what is not known, that nothing was there in the beginning."""
        counted = self._cache.get((user_id, room_id))
        if counted is None:
            counted = Counted(0, {})  # an object of its own, to be recognized by
            self._cache.set((user_id, room_id), counted)
        return counted if counted.position <= until else _NOTHING


def _add(threads: Threads, new: Unread) -> None:
    old = threads.get(new.thread_id)
    if old is not None:
        new = new._replace(
            notifications=old.notifications + new.notifications, highlights=old.highlights + new.highlights
        )
    threads[new.thread_id] = new
