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

REMEMBERED: Final = 1_000
"""Servers beyond these are forgotten as soon as nothing of them is under way."""


class TurnSettings(NamedTuple):
    """Times are seconds. Of more than `sleep_limit` requests in a `window`, each waits for `delay`; of those that wait,
    `most_waiting` are not refused; `concurrent` are worked on at once."""

    window: float = 1.0
    sleep_limit: int = 10
    delay: float = 0.5
    most_waiting: int = 50
    concurrent: int = 3


class _Origin:
    def __init__(self, settings: TurnSettings) -> None:
        self.times: deque[float] = deque(maxlen=settings.sleep_limit + 1)
        self.slots = Slots(settings.concurrent, settings.most_waiting)
        self.waiting = 0
        self.present = 0


class Turns:
    """The turns of all other servers."""

    def __init__(self, settings: TurnSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._origins: dict[str, _Origin] = {}

    @asynccontextmanager
    async def turn(self, origin: str) -> AsyncIterator[None]:
        """Waits until a request of the server may be worked on, which happens within.

        Raises MatrixError (429 M_LIMIT_EXCEEDED) where too many wait already.
        """
        state = self._origins.get(origin)
        if state is None:
            state = self._origins[origin] = _Origin(self._settings)
        if state.waiting >= self._settings.most_waiting:
            table.HTTP_RATE_LIMITED.child("rc_federation").inc()
            raise limit_exceeded(max(1, int(self._settings.delay * 1000)), "Too many requests of this server wait.")
        state.present += 1
        try:
            state.waiting += 1
            try:
                await self._wait(state)
                slot = state.slots.taken()
                await slot.__aenter__()
            finally:
                state.waiting -= 1
            try:
                yield
            finally:
                await slot.__aexit__(None, None, None)
        finally:
            state.present -= 1
            self._forget(origin, state)

    async def _wait(self, state: _Origin) -> None:
        now = self._clock.seconds()
        state.times.append(now)
        if len(state.times) > self._settings.sleep_limit and state.times[0] > now - self._settings.window:
            await pause(self._clock, self._settings.delay)

    def _forget(self, origin: str, state: _Origin) -> None:
        if not state.present and len(self._origins) > REMEMBERED:
            self._origins.pop(origin, None)
