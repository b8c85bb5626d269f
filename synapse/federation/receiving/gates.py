"""How much is fetched at the same time for the sake of what other servers send, and how often whole states are.

All of it counts against the server that has sent the event, whoever is asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.federation.receiving.faults import Unfit
from synapse.http.ratelimit import Buckets
from synapse.util.concurrency import QueueFull, Slots, SlotsByKey

if TYPE_CHECKING:
    from synapse.util.clock import Clock

PER_ORIGIN: Final = 5
"""Requests at a time for one origin."""

IN_ALL: Final = 40
"""Requests at a time in one process."""

LARGE: Final = 1
"""Of these, for whole states and auth chains, whose answers may be large."""

MAX_WAITING: Final = 200


class _Rate(NamedTuple):
    per_second: float
    burst_count: int


STATES: Final = _Rate(per_second=0.1, burst_count=30)
"""How often the state of a room at some event is asked for, for one origin."""

WHOLE: Final = _Rate(per_second=0.05, burst_count=10)
"""How often it, or an auth chain, is asked for with all of its events."""


class Gates:
    """Lets requests through."""

    def __init__(self, clock: Clock) -> None:
        self._all = Slots(IN_ALL, MAX_WAITING)
        self._large = Slots(LARGE, MAX_WAITING)
        self._origins: SlotsByKey[str] = SlotsByKey(lambda _: Slots(PER_ORIGIN, MAX_WAITING))
        self._states = Buckets(STATES, clock)
        self._whole = Buckets(WHOLE, clock)

    @asynccontextmanager
    async def passed(self, origin: str, *, large: bool = False) -> AsyncIterator[None]:
        """Waits until one more request may be made for an origin. Raises Unfit where too many wait already."""
        # In this order: large ones, which wait long, are not to take the places of others meanwhile.
        try:
            async with (
                self._origins.taken(origin),
                self._large.taken() if large else nullcontext(),
                self._all.taken(),
            ):
                yield
        except QueueFull:
            raise Unfit("This server fetches as much as it can. Please send the event again later.") from None

    def state(self, origin: str) -> None:
        """A state is about to be asked for. Raises Unfit where that happens too often."""
        _count(self._states, origin)

    def whole(self, origin: str) -> None:
        """A state or an auth chain is about to be asked for with all of its events. Raises Unfit likewise."""
        _count(self._whole, origin)


def _count(buckets: Buckets, origin: str) -> None:
    if buckets.wait(origin):
        raise Unfit("This server has fetched too much for yours of late. Please send the event again later.")
    buckets.add(origin)
