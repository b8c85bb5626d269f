"""Notes down how far servers have come, for many of them with one statement: a transaction is noted before it is sent,
so that another process which takes over sends it again under its id, and when it has been acknowledged.

Nobody waits for the latter, which is noted down with what is next to be sent, or a moment later. Who takes over before
that repeats transactions that have been acknowledged, under their ids.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from synapse.storage.federation_queue import Fenced, Progress, Told
from synapse.util.concurrency import pause, spawn
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.storage.federation_queue import FederationQueueStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

SOON: Final = 0.5  # seconds
RETRY_SECONDS: Final = 2.0
_OVER: Final = "This process does not send to other servers any more."


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
        self._timer: Any = None
        self._running: Deferred[None] | None = None
        self._closing = False
        self._closed = False

    async def note(self, progress: Iterable[Progress], told: Sequence[Told] = ()) -> None:
        """Returns when it is noted down. Raises Fenced."""
        if self._closed:
            raise Fenced(_OVER)
        self._progress.update((each.destination, each) for each in progress)
        self._told.extend(told)
        noted: Deferred[None] = Deferred()
        self._waiters.append(noted)
        self._write(0.0)
        await noted

    def note_soon(self, progress: Progress) -> None:
        """The same for who does not wait."""
        self._progress[progress.destination] = progress
        self._write(SOON)

    async def close(self) -> None:
        """Notes down what is still to be, if the database takes it, and no more from then on. Never raises."""
        self._closing = True
        if self._progress or self._told:
            self._write(0.0)
        if self._running is not None:
            ended: Deferred[None] = Deferred()
            self._running.addBoth(lambda _: ended.callback(None))
            await ended
        self.abandon()

    def abandon(self) -> None:
        """Notes down nothing more, and lets nobody wait for it."""
        self._closed = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.errback(Fenced(_OVER))

    def _write(self, delay: float) -> None:
        if self._running is not None or self._closed:
            return
        if self._timer is not None and self._timer.active():
            if delay:
                return
            self._timer.cancel()
        if delay:
            self._timer = self._clock.callLater(delay, self._write, 0.0)
        else:
            self._running = spawn(self._run())

    async def _run(self) -> None:
        await pause(self._clock)  # for others to come along
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
                if self._closing:
                    break
                await pause(self._clock, RETRY_SECONDS)
            else:
                for waiter in waiters:
                    waiter.callback(None)
                if not self._waiters and not self._told and self._progress and not self._closing:
                    break  # later, with others
        self._running = None
        if self._progress and not self._closed:
            self._write(SOON)
