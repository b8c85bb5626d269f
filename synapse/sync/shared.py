"""Doing a piece of work once for all who ask for it at the same time, or shortly after.

Clients retry a sync whose answer they lost, and some ask twice at once. The key says everything that the answer
depends on. Who goes away is forgotten; when nobody waits any more, the work is cancelled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from synapse.util.clock import Clock

T = TypeVar("T")


class SharedWork(Generic[T]):
    """Results are kept for `seconds`, where `keep` says so, and at most `size` of them."""

    def __init__(self, clock: Clock, keep: Callable[[T], bool], seconds: float, size: int = 500) -> None:
        self._clock = clock
        self._keep = keep
        self._seconds = seconds
        self._size = size
        self._running: dict[Hashable, _Running[T]] = {}
        self._kept: OrderedDict[Hashable, tuple[float, T]] = OrderedDict()

    async def do(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        """The result of `work()`, or of the same work done for somebody else."""
        kept = self._fresh(key)
        if kept is not None:
            return kept[1]
        running = self._running.get(key)
        if running is None:
            running = self._running[key] = _Running()
            running.start(work, self._done_with(key, running))
        return await running.wait()

    def forget(self, key: Hashable) -> None:
        """What is known of it is not true any more. Who waits already is answered as they would have been."""
        self._kept.pop(key, None)
        self._running.pop(key, None)

    def forget_all(self) -> None:
        """The same of everything."""
        self._kept.clear()
        self._running.clear()

    def _done_with(self, key: Hashable, running: _Running[T]) -> Callable[[T | None], None]:
        return lambda result: self._done(key, running, result)

    def _done(self, key: Hashable, running: _Running[T], result: T | None) -> None:
        if self._running.get(key) is not running:
            return  # it was forgotten
        del self._running[key]
        if result is not None and self._keep(result):
            self._kept[key] = (self._clock.seconds() + self._seconds, result)
            self._kept.move_to_end(key)
        self._fresh(None)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def _fresh(self, key: Hashable) -> tuple[float, T] | None:
        """What is kept under the key; whatever is too old goes."""
        now = self._clock.seconds()
        while self._kept and next(iter(self._kept.values()))[0] <= now:
            self._kept.popitem(last=False)
        return self._kept.get(key)


class _Running(Generic[T]):
    def __init__(self) -> None:
        self._waiting: set[Deferred[T]] = set()
        self._work: Deferred[T] | None = None
        self._outcome: T | Failure | None = None

    def start(self, work: Callable[[], Awaitable[T]], done: Callable[[T | None], None]) -> None:
        async def run() -> T:
            return await work()

        def finish(outcome: T | Failure) -> None:
            self._outcome = outcome
            done(None if isinstance(outcome, Failure) else outcome)
            for waiting in list(self._waiting):
                waiting.callback(outcome)  # a Failure given to callback() is an errback

        self._work = Deferred.fromCoroutine(run())
        self._work.addBoth(finish)

    async def wait(self) -> T:
        if self._outcome is not None:
            if isinstance(self._outcome, Failure):
                self._outcome.raiseException()
            else:
                return self._outcome
        waiting: Deferred[T] = Deferred()
        self._waiting.add(waiting)
        try:
            return await waiting
        except CancelledError:
            self._waiting.discard(waiting)
            if not self._waiting and self._work is not None and self._outcome is None:
                self._work.cancel()
            raise
        finally:
            self._waiting.discard(waiting)
