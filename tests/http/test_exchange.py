"""Who waits for one of few connections hears what comes of it, also when there are no connections any more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection

from synapse.http.exchange import AnswerLost, ClientError, Connections, NotSent
from tests.support.deferreds import started

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Far:
    """Another process, to which one connection at a time is made, as the test says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.dialled: list[Any] = []
        self.outcomes: list[Any] = []
        self.connections = Connections(self.clock, "far", lambda factory, _: self.dialled.append(factory), 1)

    def ask(self) -> None:
        asking = started(self.connections.exchange(b"GET / HTTP/1.1\r\n\r\n", 60.0))
        asking.addCallbacks(
            lambda answer: self.outcomes.append(answer.body), lambda failure: self.outcomes.append(type(failure.value))
        )

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
