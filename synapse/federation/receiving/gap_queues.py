"""Who fetches what is missing in a room, one after another.

Several servers send what comes after the same gap, and it is to be filled once. So those wait whose events lack
something, in the order in which they came; events that lack nothing wait for nobody. A server whose gaps could not be
filled lately is no reason for the others to wait: it has a queue of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from synapse.federation.receiving.faults import Unfit
from synapse.util.concurrency import Linearizer

if TYPE_CHECKING:
    from synapse.util.clock import Clock

MAX_WAITING: Final = 500
"""Events that may wait for their turn in one room."""

MAX_WAITING_IN_ALL: Final = 10_000
"""Events that may wait in all rooms."""

REMEMBERED_SECONDS: Final = 600.0
"""How long it is remembered that a server's gaps could not be filled."""

MAX_REMEMBERED: Final = 10_000


class GapQueues:
    """The queues of all rooms, in one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queues: Linearizer[tuple[str, str]] = Linearizer()
        self._waiting: dict[str, int] = {}
        self._vain: dict[tuple[str, str], float] = {}

    @asynccontextmanager
    async def turn(self, origin: str, room_id: str, events: int) -> AsyncIterator[None]:
        """Waits for the turn of so many events that `origin` has sent, which is within. Raises Unfit where too many
        wait already."""
        waiting = self._waiting.get(room_id, 0)
        if waiting and (waiting + events > MAX_WAITING or sum(self._waiting.values()) > MAX_WAITING_IN_ALL):
            raise Unfit("Too many events of this room wait here. Please send it again later.")
        self._waiting[room_id] = waiting + events
        own = origin if self._vain.get((room_id, origin), 0.0) > self._clock.seconds() else ""
        try:
            async with self._queues.queue((room_id, own)):
                yield
        finally:
            self._waiting[room_id] -= events
            if not self._waiting[room_id]:
                del self._waiting[room_id]

    def was_vain(self, origin: str, room_id: str) -> None:
        """What `origin` has sent lacked something that could not be had."""
        self._vain.pop((room_id, origin), None)
        self._vain[(room_id, origin)] = self._clock.seconds() + REMEMBERED_SECONDS
        if len(self._vain) > MAX_REMEMBERED:
            del self._vain[next(iter(self._vain))]
