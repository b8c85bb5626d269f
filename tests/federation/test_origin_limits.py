"""The requests of one other server: a few at a time, and the eager wait."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.api.errors import MatrixError
from synapse.federation.origin_limits import REMEMBERED, LimitSettings, OriginLimits


class Work:
    """Requests that are worked on until `end` is called."""

    def __init__(self, **settings: float) -> None:
        self.clock = Clock()
        self.limits = OriginLimits(LimitSettings(**settings), self.clock)  # type: ignore[arg-type]
        self.under_way: list[Deferred[None]] = []
        self.refused = 0

    def ask(self, origin: str = "a.org") -> Deferred[None]:
        return Deferred.fromCoroutine(self._work(origin))

    async def _work(self, origin: str) -> None:
        try:
            async with self.limits.admitted(origin):
                working: Deferred[None] = Deferred()
                self.under_way.append(working)
                await working
        except MatrixError as error:
            self.refused += (error.code, error.errcode, error.fields["retry_after_ms"]) == (
                429,
                "M_LIMIT_EXCEEDED",
                500,
            )

    def end(self) -> None:
        self.under_way.pop(0).callback(None)


def test_a_few_are_worked_on_at_a_time() -> None:
    work = Work(concurrent=2)
    for _ in range(4):
        work.ask()
    assert len(work.under_way) == 2
    work.ask("b.org")
    assert len(work.under_way) == 3, "another server has turns of its own"
    work.end()
    assert len(work.under_way) == 3
    for _ in range(3):
        work.end()
    assert len(work.under_way) == 1


def test_the_eager_wait() -> None:
    work = Work(sleep_limit=3, delay=0.5, window=1.0, concurrent=100)
    for _ in range(5):
        work.ask()
    assert len(work.under_way) == 3
    work.clock.advance(0.5)
    assert len(work.under_way) == 5
    work.clock.advance(1.0)
    work.ask()
    assert len(work.under_way) == 6, "the window is over"


def test_too_many_that_wait_are_refused() -> None:
    work = Work(sleep_limit=100, most_waiting=2, concurrent=1)
    for _ in range(5):
        work.ask()
    assert (len(work.under_way), work.refused) == (1, 2)
    work.end()
    assert len(work.under_way) == 1
    work.ask()
    assert work.refused == 2, "there is room again"


@pytest.mark.parametrize("asleep", [True, False])
def test_one_that_goes_away_gives_its_place_free(asleep: bool) -> None:
    work = Work(sleep_limit=1, most_waiting=2, concurrent=100 if asleep else 1, delay=5.0)
    work.ask()
    second = work.ask()
    if not asleep:
        work.clock.advance(5.0)
    third = work.ask()
    second.addErrback(lambda _: None)
    third.addErrback(lambda _: None)
    second.cancel()
    third.cancel()
    assert not asleep or not work.clock.getDelayedCalls()
    work.end()
    work.clock.advance(60.0)
    work.ask()
    assert (len(work.under_way), work.refused) == (1, 0)


def test_servers_that_are_gone_are_forgotten() -> None:
    work = Work()
    for n in range(REMEMBERED + 10):
        work.ask(f"{n}.org")
        work.end()
    assert len(work.limits._absent) == REMEMBERED
    assert not work.limits._present
    work.clock.advance(1.0)
    work.ask()
    work.end()
    assert len(work.limits._absent) == 1, "what they asked does not count any more"


def test_however_many_servers_there_are_the_eager_wait() -> None:
    work = Work(sleep_limit=3)
    for n in range(REMEMBERED):
        work.ask(f"{n}.org")
        work.end()
    for _ in range(3):
        work.ask("eager.org")
        work.end()
    work.ask("eager.org")
    assert not work.under_way
