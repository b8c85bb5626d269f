"""Which other servers are left alone because they did not answer: known to all processes, through the database.

`check` before a request, `succeeded` or `failed` after it; `federation.client` does all three. Whoever has something to
send listens by `on_change` and asks `retry_at`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final

from synapse.federation.backoff import Failing, Schedule, failed, heard_from
from synapse.federation.errors import Unreachable
from synapse.storage.destinations import DestinationRow
from synapse.util.concurrency import spawn
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.storage.destinations import DestinationsStore
    from synapse.util.caches import Cache
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

CACHE: Final = "destinations"
HEARD_AGAIN_MS: Final = 10_000
"""A server that speaks to us, but does not answer, is tried once in so long because of what it says."""
KEPT_MS: Final = 30 * 86_400_000
STRANGER_KEPT_MS: Final = 3_600_000
STRANGERS: Final = 10_000
"""Servers that are in no room of ours and do not answer, of which that is kept: any user may name some."""

Tell = Callable[[str, list[str]], Awaitable[None]]
"""Has every process forget keys of a cache: `hs.invalidate`."""


class Destinations:
    """The standing of other servers.

    :param cache: the shared cache of the name CACHE.
    """

    def __init__(
        self,
        store: DestinationsStore,
        cache: Cache[str, DestinationRow | None],
        tell: Tell,
        schedule: Schedule,
        clock: Clock,
    ) -> None:
        self._store = store
        self._cache = cache
        self._tell = tell
        self._schedule = schedule
        self._clock = clock
        self._listeners: list[Callable[[str | None], None]] = []
        cache.on_forget = self._changed

    async def retry_at(self, destination: str) -> int | None:
        """When (milliseconds) a server may be asked again; None where it may be asked now."""
        row = await self._cache.fetch(destination, self._store.get)
        return row.retry_at if row is not None and row.retry_at > self._now() else None

    async def left_alone(self, destinations: Iterable[str]) -> dict[str, int]:
        """Those of many that may not be asked now, with when (milliseconds) they may be asked again. One statement for
        all that are not remembered."""
        found = await self._cache.fetch_many(destinations, self._store.get_many)
        now = self._now()
        return {name: row.retry_at for name, row in found.items() if row is not None and row.retry_at > now}

    async def ready(self, destinations: Collection[str]) -> list[str]:
        """The others of them, which may be asked now."""
        left_alone = await self.left_alone(destinations)
        return [name for name in destinations if name not in left_alone]

    async def check(self, destination: str) -> None:
        """Raises Unreachable while the server is left alone."""
        retry_at = await self.retry_at(destination)
        if retry_at is not None:
            seconds = max(1, (retry_at - self._now() + 999) // 1_000)
            wait = f"{seconds} s" if seconds < 120 else f"{-(-seconds // 60)} min"
            sentence = f"{destination} does not answer; it is tried again in {wait}."
            raise Unreachable(destination, sentence, asked=False)

    async def succeeded(self, destination: str) -> None:
        """The server has answered. Costs nothing while it is known to answer."""
        if await self._cache.fetch(destination, self._store.get) is not None:
            logger.info("%s answers again", destination)
            await self._change(destination, lambda _: None)

    async def failed(self, destination: str, *, insisted: bool = True) -> None:
        """The server has not answered, although somebody `insisted` for a while."""
        now = self._now()

        def change(before: DestinationRow | None) -> DestinationRow:
            after = failed(before and Failing(*before), now, self._schedule, insisted=insisted)
            return DestinationRow(*after)

        await self._change(destination, change)

    def heard_from(self, destination: str) -> None:
        """The server has sent something by itself: it may be there again, and is tried as soon as there is reason to.

        What is to be written is written later.
        """
        if destination not in self._cache or self._cache.peek(destination) is not None:
            spawn(self._heard_from(destination))

    async def try_again(self, destination: str) -> bool:
        """Ends the pause of a server that is left alone; False where it is not. For administrators."""
        now, pausing = self._now(), False

        def change(before: DestinationRow | None) -> DestinationRow | None:
            nonlocal pausing
            pausing = before is not None and before.retry_at > now
            return before._replace(retry_at=now) if before is not None and pausing else before

        await self._change(destination, change)
        return pausing

    def on_change(self, listener: Callable[[str | None], None]) -> None:
        """Has `listener(destination)` told when a server's standing changes, in whichever process; None: of any."""
        self._listeners.append(listener)

    async def forget_old(self) -> None:
        """Forgets the servers that nobody wants to reach any more. (In the main process, once in a while.)"""
        await self._tell_all(await self._store.forget_before(self._now() - KEPT_MS))

    async def forget_strangers(self) -> None:
        """Forgets servers that are in no room of ours, soon and where they are too many. (In the main process, every
        hour.)"""
        await self._tell_all(await self._store.forget_strangers(self._now() - STRANGER_KEPT_MS, STRANGERS))

    async def _tell_all(self, forgotten: list[str]) -> None:
        for start in range(0, len(forgotten), 100):
            await self._tell(CACHE, forgotten[start : start + 100])

    async def _heard_from(self, destination: str) -> None:
        now = self._now()

        def change(before: DestinationRow | None) -> DestinationRow | None:
            return before and DestinationRow(*heard_from(Failing(*before), now, HEARD_AGAIN_MS))

        try:
            row = await self._cache.fetch(destination, self._store.get)
            if change(row) != row:
                await self._change(destination, change)
        except Exception as error:
            log_failure(logger, error, "It was not written down that %s is there again", destination)

    async def _change(self, destination: str, change: Callable[[DestinationRow | None], DestinationRow | None]) -> None:
        if await self._store.change(destination, change):
            await self._tell(CACHE, [destination])

    def _changed(self, destination: str | None) -> None:
        for listener in self._listeners:
            listener(destination)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
