"""Keeping the index of messages up to date with the events stream, in the main process.

It is not told of each event: once in a while, and whenever somebody searches, everything new is taken in at once. So
sending costs nothing, what nobody looks for is indexed by the hundred, and a search finds what was sent before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from synapse.storage.event_search import EventSearchStore
from synapse.util.concurrency import Linearizer

PAGE: Final = 500
"""How many events are taken in at a time."""
PAGES_BEFORE_A_SEARCH: Final = 20
"""For how many pages a search waits: an index that was switched off for a year does not hold it up."""


class SearchIndex:
    """Follows the events stream.

    :param present: how far this process has seen the stream of events.
    """

    def __init__(self, store: EventSearchStore, present: Callable[[], int]) -> None:
        self._store = store
        self._present = present
        self._position: int | None = None  # None: not asked yet
        self._turns: Linearizer[None] = Linearizer()

    async def catch_up(self, pages: int | None = None) -> None:
        """Takes in what has happened until now, or so many pages of it. No statement where nothing has."""
        until = self._present()
        while pages is None or pages > 0:
            async with self._turns.queue(None):
                if self._position is None:
                    self._position = await self._store.position()
                if self._position >= until:
                    return
                self._position = await self._store.follow(self._position, until, PAGE)
            pages = None if pages is None else pages - 1
