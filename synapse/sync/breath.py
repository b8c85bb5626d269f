"""Letting others have their turn while a large answer is put together: a first sync may have tens of thousands of
events.
"""

from __future__ import annotations

from typing import Final

from synapse.util.clock import Clock
from synapse.util.concurrency import pause

EVENTS: Final = 1_000
"""Events after which everybody else has a turn: a few milliseconds of work."""


class Breath:
    """Counts the work of one answer."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events = 0

    async def after(self, events: int) -> None:
        """So many events were written; lets the reactor have a turn when there have been many."""
        self._events += events
        if self._events >= EVENTS:
            self._events = 0
            await pause(self._clock)
