"""How many requests of each other server are answered: a few at a time, the eager ones later, the too eager not at all.

`rc_federation` of the configuration. Each process counts for itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.api.errors import limit_exceeded
from synapse.metrics import table
from synapse.util.concurrency import Slots, pause

if TYPE_CHECKING:
    from synapse.util.clock import Clock

REMEMBERED: Final = 10_000
"""Servers of which nothing is under way any more, but whose requests still count."""


class LimitSettings(NamedTuple):
    """Times are seconds. Of more than `sleep_limit` requests in a `window`, each waits for `delay`; of those that wait,
    `most_waiting` are not refused; `concurrent` are worked on at once."""

    window: float = 1.0
    sleep_limit: int = 10
    delay: float = 0.5
    most_waiting: int = 50
    concurrent: int = 3


class _Origin:
    def __init__(self, settings: LimitSettings) -> None:
        self.times: deque[float] = deque(maxlen=settings.sleep_limit + 1)
        self.slots = Slots(settings.concurrent)
        self.waiting = 0
        self.present = 0


class OriginLimits:
    """The requests of all other servers."""

    def __init__(self, settings: LimitSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._present: dict[str, _Origin] = {}
        self._absent: dict[str, _Origin] = {}  # who left last is the last

    @asynccontextmanager
    async def admitted(self, origin: str) -> AsyncIterator[None]:
        """Waits until a request of the server may be worked on, which happens within.

        Raises MatrixError (429 M_LIMIT_EXCEEDED) where too many wait already.
        """
        state = self._enter(origin)
        try:
            if state.waiting >= self._settings.most_waiting:
                table.HTTP_RATE_LIMITED.child("rc_federation").inc()
                raise limit_exceeded(max(1, int(self._settings.delay * 1000)), "Too many requests of this server wait.")
            state.waiting += 1
            try:
                await self._wait(state)
                await state.slots.take()
            finally:
                state.waiting -= 1
            try:
                yield
            finally:
                state.slots.give_back()
        finally:
            self._leave(origin, state)

    async def _wait(self, state: _Origin) -> None:
        now = self._clock.seconds()
        state.times.append(now)
        if len(state.times) > self._settings.sleep_limit and state.times[0] > now - self._settings.window:
            await pause(self._clock, self._settings.delay)

    def _enter(self, origin: str) -> _Origin:
        state = self._present.get(origin) or self._absent.pop(origin, _Origin(self._settings))
        self._present[origin] = state
        state.present += 1
        return state

    def _leave(self, origin: str, state: _Origin) -> None:
        state.present -= 1
        if not state.present:
            self._absent[origin] = self._present.pop(origin)
            self._forget()

    def _forget(self) -> None:
        ended = self._clock.seconds() - self._settings.window
        while self._absent:
            origin, state = next(iter(self._absent.items()))
            if len(self._absent) <= REMEMBERED and state.times[-1] > ended:
                break
            del self._absent[origin]
