"""Notes down how far servers have come, for many of them with one statement: a transaction is noted before it is sent,
so that another process which takes over sends it again under its id, and when it has been acknowledged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from synapse.storage.federation_queue import Fenced, Progress, Told
from synapse.util.concurrency import spawn
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.storage.federation_queue import FederationQueueStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 2.0


class Ledger:
    """The notes of one time that this process has the duty.

    :param fenced: is called when another process has it.
    """

    def __init__(self, store: FederationQueueStore, epoch: int, clock: Clock, fenced: Callable[[Fenced], None]) -> None:
        self._store = store
        self._epoch = epoch
        self._clock = clock
        self._fenced = fenced
        self._progress: dict[str, Progress] = {}
        self._told: list[Told] = []
        self._waiters: list[Deferred[None]] = []
        self._running: Deferred[None] | None = None
        self._closed = False

    async def note(self, progress: Progress) -> None:
        """Returns when it is noted down. Raises Fenced."""
        if self._closed:
            raise Fenced("This process does not send to other servers any more.")
        noted: Deferred[None] = Deferred()
        self._waiters.append(noted)
        self.note_soon(progress)
        await noted

    def note_soon(self, progress: Progress | None, told: Sequence[Told] = ()) -> None:
        """The same for who does not wait."""
        if progress is not None:
            self._progress[progress.destination] = progress
        self._told.extend(told)
        if self._running is None:
            self._running = spawn(self._run())

    async def close(self) -> None:
        """Notes down what is still to be, and no more from then on. Never raises."""
        running = self._running
        if running is not None:
            ended: Deferred[None] = Deferred()
            running.addBoth(lambda _: ended.callback(None))
            await ended
        self._closed = True

    def abandon(self) -> None:
        """Notes down nothing more, and lets nobody wait for it."""
        self._closed = True
        self._fail(Fenced("This process does not send to other servers any more."))

    async def _run(self) -> None:
        await self._turn()
        while (self._progress or self._told or self._waiters) and not self._closed:
            progress, told, waiters = self._progress, self._told, self._waiters
            self._progress, self._told, self._waiters = {}, [], []
            try:
                await self._store.note(self._epoch, list(progress.values()), told)
            except Fenced as error:
                self._waiters = waiters + self._waiters
                self.abandon()
                self._fenced(error)
            except Exception as error:
                log_failure(logger, error, "What was sent to other servers could not be noted down; it is tried again")
                self._progress = {**progress, **self._progress}
                self._told = told + self._told
                self._waiters = waiters + self._waiters
                await self._turn(RETRY_SECONDS)
            else:
                for waiter in waiters:
                    waiter.callback(None)
        self._running = None

    def _fail(self, error: Fenced) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.errback(error)

    async def _turn(self, seconds: float = 0.0) -> None:
        """For others to come along."""
        passed: Deferred[None] = Deferred()
        self._clock.callLater(seconds, passed.callback, None)
        await passed
