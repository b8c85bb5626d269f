"""Something that is done again and again, with a pause in between, until it is told to stop."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred

from synapse.util.clock import Clock
from synapse.util.problems import log_failure

logger = logging.getLogger(__name__)


class Repeating:
    """Calls `work` every so many seconds; never twice at a time. What it raises is logged, and it goes on."""

    def __init__(self, clock: Clock, seconds: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._name = name
        self._work = work
        self._running = False
        self._timer: Any = None

    def start(self) -> None:
        """The first time is after the first pause."""
        self._running = True
        self._timer = self._clock.callLater(self._seconds, self._due)

    def stop(self) -> None:
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _due(self) -> None:
        Deferred.fromCoroutine(self._once())

    async def _once(self) -> None:
        try:
            await self._work()
        except Exception as error:
            log_failure(logger, error, "%s failed; it is tried again in %s seconds", self._name, self._seconds)
        if self._running:
            self._timer = self._clock.callLater(self._seconds, self._due)
