"""Calls to the main process: answers and errors cross, lost answers are asked for again, and nothing is done twice."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.api.errors import MatrixError
from synapse.http.client import Address, AnswerLost, ClientAnswer, NotSent
from synapse.http.request import RawRequest, Request
from synapse.replication.calls import PREFIX, Call, CallServer, LocalMain, RemoteMain
from synapse.storage.errors import DatabaseUnavailable, OutcomeUnknown


class Numbers(msgspec.Struct):
    one: int
    other: int


ADD = Call("test.add", Numbers, int)
BRIEF = Call("test.brief", Numbers, int, within=5.0)


class Wire:
    """Carries requests to a server; `faults` are what goes wrong with the next ones, before or after their effect."""

    address = Address("127.0.0.1", 1)

    def __init__(self, server: CallServer) -> None:
        self._server = server
        self.faults: list[Exception | None] = []
        self.headers: dict[str, str] = {}
        self.sent = 0

    async def request(
        self, method: str, path: str, body: bytes, headers: tuple[tuple[str, str], ...], *, within: float
    ) -> ClientAnswer:
        self.sent += 1
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, NotSent):
            raise fault
        named = {name.lower(): value for name, value in headers} | self.headers
        request = Request(RawRequest(method, path, named, body, client_ip="127.0.0.1"))
        try:
            answer = await self._server.serve(request)
        except MatrixError as error:
            return ClientAnswer(error.code, {}, msgspec.json.encode(error.body()))
        if fault is not None:
            raise fault
        return ClientAnswer(answer.code, {}, answer.body)


class Both:
    """A main process and a worker."""

    def __init__(self, secret: str | None = None, workers_secret: str | None = None) -> None:
        self.clock = Clock()
        self.local = LocalMain()
        self.wire = Wire(CallServer(self.local, self.clock, secret))
        wire: Any = self.wire
        self.remote = RemoteMain(wire, self.clock, workers_secret)
        self.done: list[Numbers] = []
        self.local.expose(ADD, self._add)
        self.problem: Exception | None = None

    async def _add(self, numbers: Numbers) -> int:
        if self.problem is not None:
            raise self.problem
        self.done.append(numbers)
        return numbers.one + numbers.other

    def call(self, call: Call[Numbers, int] = ADD) -> Deferred[int]:
        return Deferred.fromCoroutine(self.remote(call, Numbers(1, 2)))

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.05] * int(seconds / 0.05))


def result(deferred: Deferred[int]) -> int | BaseException:
    found: list[int | BaseException] = []
    deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
    assert found, "there is no answer yet"
    return found[0]


@pytest.mark.parametrize("ask", [lambda both: both.local, lambda both: both.remote], ids=["in main", "in a worker"])
def test_the_same_answer_everywhere(ask: Callable[[Both], Any]) -> None:
    both = Both()
    assert result(Deferred.fromCoroutine(ask(both)(ADD, Numbers(1, 2)))) == 3


def test_an_error_of_the_handler_crosses_whole() -> None:
    both = Both()
    both.problem = MatrixError(429, "M_LIMIT_EXCEEDED", "Slowly.", retry_after_ms=7)
    error = result(both.call())
    assert isinstance(error, MatrixError)
    assert (error.code, error.body()) == (429, both.problem.body())
    assert both.wire.sent == 1


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (DatabaseUnavailable("It is away."), 503),
        (OutcomeUnknown("The connection broke."), 503),
        (ZeroDivisionError("secret detail"), 500),
    ],
)
def test_faults_become_sentences(problem: Exception, code: int) -> None:
    both = Both()
    both.problem = problem
    error = result(both.call())
    assert isinstance(error, MatrixError)
    assert error.code == code
    assert str(problem) not in error.message


def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice() -> None:
    both = Both()
    both.wire.faults = [NotSent("nobody"), AnswerLost("gone"), AnswerLost("gone")]
    answer = both.call()
    both.pass_time(1)
    assert result(answer) == 3
    assert both.wire.sent == 4
    assert len(both.done) == 1


def test_a_repetition_that_meets_the_first_at_work_waits_for_it() -> None:
    both = Both()
    held: Deferred[int] = Deferred()
    calls = []

    async def slow(numbers: Numbers) -> int:
        calls.append(numbers)
        return await held

    both.local.expose(BRIEF, slow)
    path = f"{PREFIX}{BRIEF.name}/one"
    twice = [
        Deferred.fromCoroutine(both.wire.request("POST", path, b'{"one": 1, "other": 2}', (), within=1.0))
        for _ in range(2)
    ]
    twice[0].addErrback(lambda _: None)
    twice[0].cancel()  # its connection has gone; the call goes on
    held.callback(5)
    answers: list[ClientAnswer] = []
    twice[1].addCallback(answers.append)
    assert answers[0].body == b'{"r":5}'
    assert len(calls) == 1


def test_a_main_process_that_stays_away_is_an_error_in_the_end() -> None:
    both = Both()
    both.wire.faults = [NotSent("nobody")] * 1000
    answer = both.call(BRIEF)
    both.pass_time(6)
    error = result(answer)
    assert isinstance(error, MatrixError)
    assert error.code == 503
    assert both.done == []


@pytest.mark.parametrize(
    ("secret", "workers_secret", "headers"),
    [("right", "wrong", {}), ("right", None, {}), (None, None, {"x-forwarded-for": "127.0.0.1"})],
)
def test_strangers_are_refused_at_once(secret: str | None, workers_secret: str | None, headers: dict[str, str]) -> None:
    both = Both(secret, workers_secret)
    both.wire.headers = headers
    error = result(both.call())
    assert isinstance(error, MatrixError)
    assert error.code == 503
    assert both.done == []
    assert both.wire.sent == 1


def test_those_who_know_the_secret_are_answered() -> None:
    assert result(Both("right", "right").call()) == 3


def test_two_services_may_not_answer_one_call() -> None:
    both = Both()
    with pytest.raises(ValueError, match=r"test\.add"):
        both.local.expose(ADD, both._add)


def test_a_call_that_nobody_answers_is_not_retried() -> None:
    both = Both()
    error = result(both.call(Call("test.unknown", Numbers, int)))
    assert isinstance(error, MatrixError)
    assert both.wire.sent == 1


def test_only_calls_that_are_none_are_logged_for_everybody() -> None:
    both = Both()
    server = CallServer(both.local, both.clock)
    levels = {}
    for name in ("test.add/1", "test.nonsense/1"):
        request = Request(RawRequest("POST", PREFIX + name, {}, b'{"one": 1, "other": 2}', client_ip="127.0.0.1"))
        Deferred.fromCoroutine(server.serve(request)).addErrback(lambda failure: None)
        levels[name] = request.log_level
    assert levels == {"test.add/1": logging.DEBUG, "test.nonsense/1": logging.INFO}
