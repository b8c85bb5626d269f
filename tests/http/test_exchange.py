"""Who waits for one of few connections hears what comes of it, also when there are no connections any more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection

from synapse.http.exchange import IDLE, AnswerLate, AnswerLost, ClientError, Connections, NotSent
from tests.support.deferreds import started

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Far:
    """Another process, to which one connection at a time is made, as the test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.dialled: list[Any] = []
        self.outcomes: list[Any] = []
        self.told: list[tuple[int, int]] = []
        self.connections = Connections(
            self.clock,
            "far",
            lambda factory, _: self.dialled.append(factory),
            1,
            tell=lambda idle, busy: self.told.append((idle, busy)),
        )

    def ask(self) -> Deferred[Any]:
        asking = started(self.connections.exchange(b"GET / HTTP/1.1\r\n\r\n", 60.0))
        asking.addCallbacks(
            lambda answer: self.outcomes.append(answer.body), lambda failure: self.outcomes.append(type(failure.value))
        )
        return asking

    def connect(self) -> Any:
        transport: Any = StringTransportWithDisconnection()
        transport.protocol = self.dialled.pop(0).buildProtocol(None)
        transport.abortConnection = transport.loseConnection
        transport.protocol.makeConnection(transport)
        return transport

    def refuse(self) -> None:
        reason: Any = SimpleNamespace(value=ConnectionRefusedError())
        self.dialled.pop(0).clientConnectionFailed(None, reason)
        self.clock.advance(0)


def test_all_who_wait_are_told_that_nobody_answers() -> None:
    far = Far()
    for _ in range(4):
        far.ask()
    far.connect().loseConnection()
    expected: list[type[ClientError]] = [AnswerLost]
    while far.dialled:
        assert far.outcomes == expected
        far.refuse()
        expected.append(NotSent)
    assert far.outcomes == [AnswerLost, NotSent, NotSent, NotSent]
    assert not far.connections.in_use


def test_who_waits_behind_one_who_was_not_connected_is_served() -> None:
    far = Far()
    for _ in range(3):
        far.ask()
    far.connect().loseConnection()
    far.refuse()
    transport = far.connect()
    transport.protocol.dataReceived(OK)
    assert far.outcomes == [AnswerLost, NotSent, b"ok"]


def test_who_waits_behind_the_first_which_is_not_connected_is_served() -> None:
    far = Far()
    far.ask()
    far.ask()
    far.refuse()
    far.connect().protocol.dataReceived(OK)
    assert far.outcomes == [NotSent, b"ok"]


def test_that_nobody_answered_is_told_when_nothing_is_under_way_any_more() -> None:
    far = Far()
    far.ask()
    far.refuse()
    assert far.told == [(0, 0)]
    assert not far.connections.in_use


def test_waiting_for_a_connection_counts() -> None:
    far = Far()
    far.ask()
    far.ask()
    transport = far.connect()
    far.clock.advance(50.0)
    transport.protocol.dataReceived(OK)
    far.clock.advance(11.0)
    assert far.outcomes == [b"ok", AnswerLate]


def test_any_number_of_interim_answers_is_passed_over() -> None:
    far = Far()
    far.ask()
    far.connect().protocol.dataReceived(b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000 + OK)
    assert far.outcomes == [b"ok"]


def test_a_connection_that_comes_when_nobody_wants_it_any_more_does_not_stay() -> None:
    far = Far()
    far.ask()
    waiting = far.ask()
    far.connect().loseConnection()
    waiting.cancel()
    far.connect()
    assert (far.outcomes, far.connections.idle) == ([AnswerLost, CancelledError], 1)
    far.clock.advance(IDLE)
    assert far.connections.idle == 0
