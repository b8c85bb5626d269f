"""Changes of the database that take long: done by the main process while it serves, in small batches.

A migration puts a row into `background_updates`; whoever owns the table registers the function that does a batch:

    def fill_words(txn: Transaction, progress: dict[str, Any], size: int) -> Batch | None:
        ...                                # change at most `size` rows, beginning where `progress` says
        return Batch({"last": user_id}, done=count)      # or None: nothing is left to do

    updates.register("fill_words", fill_words)

A batch and its progress are one transaction, so a process may be killed at any moment and the next one goes on.
Batches are made so large that each takes about a tenth of a second, and the database has as long to itself in
between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson
from twisted.internet.defer import Deferred

from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.storage.database import Database
    from synapse.storage.transaction import Transaction
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

FIRST_SIZE: Final = 100
LARGEST_SIZE: Final = 10_000
BATCH_SECONDS: Final = 0.1
SHORTEST_PAUSE: Final = 0.1
RETRY_SECONDS: Final = 10.0


class Batch(NamedTuple):
    """What a batch leaves behind: where the next one begins, and how many items it did."""

    progress: dict[str, Any]
    done: int


DoBatch = Callable[["Transaction", dict[str, Any], int], Batch | None]


class Pending(NamedTuple):
    """An update that is not finished."""

    name: str
    depends_on: str | None


class BackgroundUpdates:
    """Does what is in the table `background_updates`; in the main process."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._functions: dict[str, DoBatch] = {}
        self._sizes: dict[str, int] = {}
        self._told: set[str] = set()
        self._timer: Any = None
        self._waiting: Deferred[None] | None = None
        self._stopped = False
        self.running: str | None = None
        """The update that is being done, for whoever wants to show it."""

    def register(self, name: str, function: DoBatch) -> None:
        """Says how a batch of this update is done. It runs on a database thread and may be called again."""
        self._functions[name] = function

    async def run(self) -> None:
        """Does all updates that this release knows, one after another; returns when none is left, or after `stop`."""
        while not self._stopped:
            name = self._next(await self.pending())
            if name is None:
                return
            self.running = name
            try:
                pause = await self._do_batch(name)
            except Exception as error:
                log_failure(logger, error, "The background update %s failed and is tried again", name)
                pause = RETRY_SECONDS
            finally:
                self.running = None
            await self._pause(pause)

    def stop(self) -> None:
        """Lets `run` return after the batch at hand."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._waiting is not None:
            self._waiting.callback(None)

    async def pending(self) -> list[Pending]:
        """What is not finished, in the order of doing."""
        return await self._db.read("background_updates.pending", _pending)

    def _next(self, pending: list[Pending]) -> str | None:
        unfinished = {each.name for each in pending}
        for each in pending:
            if each.depends_on in unfinished:
                continue
            if each.name in self._functions:
                return each.name
            if each.name not in self._told:
                self._told.add(each.name)
                logger.warning("The background update %s is not known to this release and stays undone", each.name)
        return None

    async def _do_batch(self, name: str) -> float:
        """Does one batch; returns how long to pause after it."""
        size = self._sizes.get(name, FIRST_SIZE)
        began = self._clock.seconds()
        batch = await self._db.write(f"background_updates.{name}", _do_batch, name, self._functions[name], size)
        took = self._clock.seconds() - began
        if batch is None:
            logger.info("The background update %s is finished", name)
            return 0.0
        logger.debug("The background update %s did %d items in %.3f s", name, batch.done, took)
        self._sizes[name] = _next_size(size, took)
        return max(took, SHORTEST_PAUSE)

    async def _pause(self, seconds: float) -> None:
        if self._stopped or not seconds:
            return
        self._waiting = Deferred()
        self._timer = self._clock.callLater(seconds, self._waiting.callback, None)
        await self._waiting
        self._waiting = None


def _next_size(size: int, took: float) -> int:
    """A size that should take a tenth of a second, not more than twice or less than half of the last one."""
    wanted = size * BATCH_SECONDS / took if took > 0 else size * 2
    return max(1, min(LARGEST_SIZE, int(min(max(wanted, size / 2), size * 2))))


def _pending(txn: Transaction) -> list[Pending]:
    txn.execute("SELECT name, depends_on FROM background_updates ORDER BY ordering, name")
    return [Pending(*row) for row in txn.rows()]


def _do_batch(txn: Transaction, name: str, function: DoBatch, size: int) -> Batch | None:
    # Locked, so that a main process that is just being replaced cannot do the same batch.
    txn.execute("SELECT progress FROM background_updates WHERE name = %s FOR UPDATE", (name,))
    row = txn.one_or_none()
    if row is None:
        return None
    batch = function(txn, orjson.loads(row[0]), size)
    if batch is None:
        txn.later("DELETE FROM background_updates WHERE name = %s", (name,))
    else:
        progress = orjson.dumps(batch.progress).decode()
        txn.later("UPDATE background_updates SET progress = %s WHERE name = %s", (progress, name))
    return batch
