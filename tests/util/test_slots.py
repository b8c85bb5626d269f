"""So many at a time."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred

from synapse.util.concurrency import QueueFull, Slots


class Work:
    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.held: Deferred[None] | None = Deferred()
        self.begun = self.ended = 0

    def start(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._work())

    async def _work(self) -> None:
        async with self.slots.taken():
            self.begun += 1
            if self.held is not None:
                await self.held
            self.ended += 1

    def let_go(self) -> None:
        held, self.held = self.held, None
        assert held is not None
        held.callback(None)


def test_so_many_at_a_time_and_so_many_wait() -> None:
    work = Work(Slots(2, 3))
    for _ in range(5):
        work.start()
    assert work.begun == 2
    failures: list[object] = []
    work.start().addErrback(lambda failure: failures.append(failure.check(QueueFull)))
    assert failures == [QueueFull]
    work.let_go()
    assert (work.begun, work.ended) == (5, 5)


def test_a_long_queue_is_worked_off_without_growing_the_stack() -> None:
    work = Work(Slots(1, 100_000))
    for _ in range(5_000):
        work.start()
    work.let_go()
    assert work.ended == 5_000


def test_one_that_gives_up_leaves_the_queue() -> None:
    work = Work(Slots(1, 1))
    work.start()
    second = work.start().addErrback(lambda _: None)
    second.cancel()
    work.start()
    work.let_go()
    assert work.ended == 2


def test_a_failure_gives_the_slot_back() -> None:
    slots = Slots(1, 0)

    async def fail() -> None:
        async with slots.taken():
            raise ValueError

    for _ in range(2):
        failed = Deferred.fromCoroutine(fail())
        with pytest.raises(ValueError):  # noqa: PT011  # not QueueFull
            raise failed.result.value  # type: ignore[attr-defined]
        failed.addErrback(lambda _: None)


def test_who_asks_again_waits_behind_those_who_asked_before() -> None:
    slots, order = Slots(1), []

    async def take(name: str, times: int) -> None:
        for _ in range(times):
            async with slots.taken():
                order.append(name)

    work = Work(slots)
    work.start()
    Deferred.fromCoroutine(take("a", 2))
    Deferred.fromCoroutine(take("b", 1))
    work.let_go()
    assert order == ["a", "b", "a"]
