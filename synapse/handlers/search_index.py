"""Keeping the index of messages up to date with the events stream, in the main process.

It is not told of each event: once in a while, and whenever somebody searches, everything new is taken in at once. So
sending costs nothing, what nobody looks for is indexed by the hundred, and a search finds what was sent before it.
No search waits for history that was fetched from other servers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
    :param past: how far history has come, downwards.
    """

    def __init__(self, store: EventSearchStore, present: Callable[[], int], past: Callable[[], Awaitable[int]]) -> None:
        self._store = store
        self._present = present
        self._past = past
        self._position: int | None = None  # None: not asked yet
        self._lowest: int | None = None  # the same of history
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

    async def look_back(self) -> None:
        """Takes in what has been fetched until now. No statement where nothing has."""
        until = await self._past()
        if self._lowest is None:
            self._lowest = await self._store.past()
        while self._lowest > until:
            self._lowest = await self._store.look_back(self._lowest, until, PAGE)

    async def keep_up(self) -> None:
        """Both, once in a while."""
        await self.catch_up()
        await self.look_back()
