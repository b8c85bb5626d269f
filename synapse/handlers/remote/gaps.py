"""Which rooms lack something of their history, known without asking the database: pages are read all the time, and few
rooms have gaps.

A room is looked up once. The events stream tells of new gaps; what fills them is not announced, so a room that lacked
something once is asked for again, until all of it is there (`forget`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING

from synapse.replication.event_rows import EventRow, Row
from synapse.storage.awaited import Stretch

if TYPE_CHECKING:
    from synapse.storage.awaited import AwaitedStore
    from synapse.util.caches import Cache


class Told(Enum):
    """What has come of asking others for a stretch of a room's history."""

    WHOLE = "whole"
    """Nothing is missing there."""

    MORE = "more"
    """Some of it has come, perhaps not all."""

    NOTHING = "nothing"
    """Something is missing, and nobody tells any of it now."""


class Gaps:
    """Knows them, in any process.

    :ivar filled: how often something has come into any room by way of this process.
    """

    def __init__(self, ends: AwaitedStore, cache: Cache[str, bool]) -> None:
        self._ends = ends
        self._cache = cache
        self._filling: Counter[str] = Counter()
        self.filled = 0

    async def any_in(self, room_id: str) -> bool:
        """Whether something of the room is missing. No statement when warm, else one."""
        return await self._cache.fetch(room_id, self._load)

    async def _load(self, room_id: str) -> bool:
        return bool(await self._ends.missing(room_id, Stretch(), 1))

    @contextmanager
    def filling(self, room_id: str) -> Iterator[None]:
        """Something that was missing is written within."""
        self._filling[room_id] += 1
        try:
            yield
        finally:
            self._filling[room_id] -= 1
            if not self._filling[room_id]:
                del self._filling[room_id]
            self.filled += 1

    def may_lack(self, room_id: str, filled: int) -> bool:
        """Whether what was read of the room when `filled` was that may lack what is here by now."""
        return self.filled != filled or room_id in self._filling

    def forget(self, room_id: str) -> None:
        """Some of it may have come."""
        self._cache.invalidate(room_id)

    def learn(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Rows of the events stream with their positions, as they come."""
        for _, row in rows:
            if isinstance(row, EventRow) and row.after_gap:
                self._cache.invalidate(row.room_id)

    def forget_all(self) -> None:
        """Rows of the stream may have been missed."""
        self._cache.clear()
