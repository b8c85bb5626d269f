"""Work that is ended from outside, and what waits until its token expires."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from synapse.api.errors import MatrixError
from synapse.handlers.waiting import WaitingRequests
from synapse.http.interruptible import Interruptible
from synapse.http.request import RawRequest, Request

STOP = MatrixError(401, "M_UNKNOWN_TOKEN", "enough")


async def two_steps(first: Deferred[str], second: Deferred[str]) -> str:
    return await first + await second


def outcome(deferred: Deferred[Any]) -> Any:
    """The result that is there already, or the exception."""
    results: list[Any] = []
    deferred.addCallbacks(results.append, lambda failure: results.append(failure.value))
    (result,) = results
    return result


def test_uninterrupted_work_is_as_if_awaited() -> None:
    first: Deferred[str] = Deferred()
    second: Deferred[str] = Deferred()
    running = Deferred.fromCoroutine(Interruptible(two_steps(first, second)).run())
    first.callback("a")
    second.callback("b")
    assert outcome(running) == "ab"


def test_exceptions_pass() -> None:
    first: Deferred[str] = Deferred()
    running = Deferred.fromCoroutine(Interruptible(two_steps(first, Deferred())).run())
    first.errback(ValueError("x"))
    assert isinstance(outcome(running), ValueError)


@pytest.mark.parametrize("steps", [0, 1])
def test_an_interruption_cancels_what_is_waited_for(steps: int) -> None:
    waits: list[Deferred[str]] = [Deferred(), Deferred()]
    work = Interruptible(two_steps(*waits))
    running = Deferred.fromCoroutine(work.run())
    if steps:
        waits[0].callback("a")
    work.interrupt(STOP)
    work.interrupt(MatrixError(401, "M_UNKNOWN_TOKEN", "the second reason"))
    assert outcome(running) is STOP
    assert waits[steps].called


def test_work_that_clings_to_life_changes_nothing() -> None:
    async def stubborn() -> str:
        try:
            await Deferred()
        except CancelledError:
            return "an answer nevertheless"
        return "never"

    work = Interruptible(stubborn())
    running = Deferred.fromCoroutine(work.run())
    work.interrupt(STOP)
    assert outcome(running) is STOP


def test_who_interrupts_before_anything_is_waited_for_is_heard() -> None:
    waits: list[Deferred[str]] = [Deferred(), Deferred()]
    work = Interruptible(two_steps(*waits))
    work.interrupt(STOP)
    assert outcome(Deferred.fromCoroutine(work.run())) is STOP


def test_work_that_waits_for_nothing_ends_as_it_begins() -> None:
    first, second = Deferred[str](), Deferred[str]()
    first.callback("a")
    second.callback("b")
    work = Interruptible(two_steps(first, second))
    assert work.begin()
    assert work.result == "ab"


@pytest.mark.parametrize("interrupted", [False, True])
def test_work_that_has_begun_goes_on(interrupted: bool) -> None:
    first, second = Deferred[str](), Deferred[str]()
    work = Interruptible(two_steps(first, second))
    assert not work.begin()
    if interrupted:
        work.interrupt(STOP)
    running = Deferred.fromCoroutine(work.run())
    if not interrupted:
        first.callback("a")
        second.callback("b")
    assert outcome(running) == (STOP if interrupted else "ab")


def test_what_the_work_raises_at_once_is_raised() -> None:
    first = Deferred[str]()
    first.errback(ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        Interruptible(two_steps(first, Deferred())).begin()


def test_a_client_that_leaves_is_no_interruption() -> None:
    running = Deferred.fromCoroutine(Interruptible(two_steps(Deferred(), Deferred())).run())
    running.cancel()
    assert isinstance(outcome(running), CancelledError)


@pytest_twisted.ensureDeferred
async def test_a_wait_ends_with_its_token() -> None:
    clock = Clock()

    async def recheck(key: str, request: Request) -> None:
        raise AssertionError("nobody doubts it")

    requests = WaitingRequests(recheck, clock)
    request = Request(RawRequest("GET", "/sync"))
    done: Deferred[str] = Deferred()
    waits = [
        Deferred.fromCoroutine(requests.run("key", request, expires_ts, Interruptible(work)))
        for expires_ts, work in (
            (5_000, two_steps(Deferred(), Deferred())),
            (None, two_steps(done, Deferred())),
            (10**15, two_steps(Deferred(), Deferred())),
        )
    ]
    assert len(clock.getDelayedCalls()) == 1, "what expires far in the future is not watched"
    clock.advance(4.9)
    assert not any(wait.called for wait in waits)
    clock.advance(0.1)
    error = outcome(waits[0])
    assert (error.code, error.errcode, error.fields) == (401, "M_UNKNOWN_TOKEN", {"soft_logout": True})
    assert not waits[1].called
    for wait in waits[1:]:
        wait.cancel()
        assert isinstance(outcome(wait), CancelledError)
    assert not requests._by_key


def test_news_is_not_told_before_it_is_clear_to_whom() -> None:
    looked: Deferred[None] = Deferred()

    async def recheck(key: str, request: Request) -> None:
        await looked
        raise STOP

    async def once(news: Deferred[str]) -> str:
        return await news

    requests = WaitingRequests(recheck, Clock())
    news: list[Deferred[str]] = [Deferred(), Deferred()]
    request = Request(RawRequest("GET", "/sync"))
    doubted, other = (
        Deferred.fromCoroutine(requests.run(key, request, None, Interruptible(once(each))))
        for key, each in zip(("key", "other"), news, strict=True)
    )
    requests.doubt("key")
    for each in news:
        each.callback("something private")
    assert outcome(other) == "something private"
    assert not doubted.called
    looked.callback(None)
    assert outcome(doubted) is STOP
    assert not requests._doubted
