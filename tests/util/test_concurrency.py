"""Queues by key, bounded queues, and doing things at the same time."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from synapse.util.concurrency import Linearizer, gather, pause, spawn


@ensureDeferred
async def test_one_at_a_time_for_each_key() -> None:
    linearizer: Linearizer[str] = Linearizer()
    log: list[str] = []
    gates = {name: Deferred[None]() for name in "abc"}

    async def work(name: str, key: str) -> None:
        async with linearizer.queue(key):
            log.append(name)
            await gates[name]

    running = [spawn(work("a", "x")), spawn(work("b", "x")), spawn(work("c", "y"))]
    assert log == ["a", "c"]
    gates["a"].callback(None)
    assert log == ["a", "c", "b"]
    gates["b"].callback(None)
    gates["c"].callback(None)
    for each in running:
        await each
    assert not len(linearizer)


@ensureDeferred
async def test_one_who_gives_up_leaves_the_queue() -> None:
    linearizer: Linearizer[str] = Linearizer()
    gate: Deferred[None] = Deferred()

    async def work(wait: Deferred[None] | None) -> str:
        async with linearizer.queue("x"):
            if wait is not None:
                await wait
            return "done"

    first, second, third = spawn(work(gate)), spawn(work(None)), spawn(work(None))
    second.cancel()
    with pytest.raises(CancelledError):
        await second
    gate.callback(None)
    assert (await first, await third) == ("done", "done")
    assert not len(linearizer)


@ensureDeferred
async def test_a_queue_may_be_as_long_as_it_likes() -> None:
    linearizer: Linearizer[str] = Linearizer()
    gate: Deferred[None] = Deferred()
    done: list[int] = []

    async def work(number: int) -> None:
        async with linearizer.queue("x"):
            if number == 0:
                await gate
            done.append(number)

    running = [spawn(work(number)) for number in range(5_000)]
    gate.callback(None)
    for each in running:
        await each
    assert done == list(range(5_000))
    assert not len(linearizer)


@ensureDeferred
async def test_a_failure_lets_the_next_one_in() -> None:
    linearizer: Linearizer[str] = Linearizer()
    with pytest.raises(ZeroDivisionError):
        async with linearizer.queue("x"):
            raise ZeroDivisionError
    assert not len(linearizer)


@ensureDeferred
async def test_gather_waits_for_all_and_raises_the_first_failure() -> None:
    done: list[int] = []

    async def work(number: int) -> int:
        if number == 1:
            raise ValueError(number)
        done.append(number)
        return number

    with pytest.raises(ValueError, match="1"):
        await gather(work(n) for n in range(3))
    assert done == [0, 2]
    assert await gather(work(n) for n in (5, 6)) == [5, 6]


@ensureDeferred
async def test_a_pause_lets_others_go_first_and_leaves_no_timer_behind() -> None:
    clock, done = Clock(), list[str]()
    for name, seconds in (("turn", 0.0), ("minute", 60.0)):
        spawn(pause(clock, seconds)).addCallback(lambda _, name=name: done.append(name))
    assert done == []
    clock.advance(0)
    assert done == ["turn"]
    clock.advance(60)
    assert done == ["turn", "minute"]
    given_up = spawn(pause(clock, 60.0))
    given_up.cancel()
    with pytest.raises(CancelledError):
        await given_up
    assert clock.getDelayedCalls() == []
