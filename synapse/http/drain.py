"""Leaving in good order: which requests are still being answered, and waking those that only wait.

A process that is told to stop answers what is in flight. Long polls could last half a minute, so whoever makes
requests wait for news registers a hook, by which they are answered at once with what there is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from twisted.internet.defer import Deferred

from synapse.metrics import table
from synapse.util.clock import Clock

logger = logging.getLogger(__name__)


class Drain:
    """Counts the requests in flight; `begin` once, then `idle`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hooks: list[Callable[[], None]] = []
        self._waiting: list[Deferred[bool]] = []
        self._gauge = table.HTTP_IN_FLIGHT.child()
        self.in_flight = 0
        self.leaving = False
        self.on_work: Callable[[], None] = lambda: None
        """Is told when a request comes while none is in flight."""

    def on_begin(self, hook: Callable[[], None]) -> None:
        """Has `hook` called when the process begins to leave; at once if it is leaving already."""
        self._hooks.append(hook)
        if self.leaving:
            hook()

    def begin(self) -> None:
        """From now on answers end their connections, and nobody waits for news any more."""
        if self.leaving:
            return
        self.leaving = True
        for hook in self._hooks:
            try:
                hook()
            except Exception:
                logger.exception("A hook failed while the process was leaving")

    def entered(self) -> None:
        self.in_flight += 1
        self._gauge.value = self.in_flight
        if self.in_flight == 1:
            try:
                self.on_work()
            except Exception:
                logger.exception("A hook failed when a request came")

    def left(self) -> None:
        self.in_flight -= 1
        self._gauge.value = self.in_flight
        if not self.in_flight:
            waiting, self._waiting = self._waiting, []
            for deferred in waiting:
                deferred.callback(True)

    async def idle(self, seconds: float) -> bool:
        """Waits until no request is in flight, that many seconds at most; whether there is none."""
        if not self.in_flight:
            return True
        waiting: Deferred[bool] = Deferred()
        self._waiting.append(waiting)
        timer = self._clock.callLater(seconds, self._give_up, waiting)
        try:
            return await waiting
        finally:
            if timer.active():
                timer.cancel()

    def _give_up(self, waiting: Deferred[bool]) -> None:
        self._waiting.remove(waiting)
        waiting.callback(False)
