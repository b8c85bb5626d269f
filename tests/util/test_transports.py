"""Writing at once: order and completeness over a real socket, however slowly the other side reads; and reading."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
import termios
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport

from synapse.util.transports import read_at_once, write_at_once

CHUNKS = [os.urandom(size) for size in (10, 1, 3_000_000, 20, 500_000, 7)]


class Writer(Protocol):
    transport: Any

    def connectionMade(self) -> None:
        for chunk in CHUNKS:
            write_at_once(self.transport, chunk)
        self.transport.loseConnection()


class Reader(Protocol):
    def __init__(self) -> None:
        self.received = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.done.callback(self.received)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest_twisted.ensureDeferred
async def test_everything_arrives_in_order(kind: str) -> None:
    from twisted.internet import reactor

    twisted: Any = reactor
    factory, reader = Factory.forProtocol(Writer), Reader()
    connecting = ClientFactory()
    connecting.buildProtocol = lambda addr: reader  # type: ignore[method-assign]  # it needs no more of a factory
    with tempfile.TemporaryDirectory() as directory:
        if kind == "unix":
            port = twisted.listenUNIX(f"{directory}/s", factory)
            twisted.connectUNIX(f"{directory}/s", connecting)
        else:
            port = twisted.listenTCP(0, factory, interface="127.0.0.1")
            twisted.connectTCP("127.0.0.1", port.getHost().port, connecting)
        assert await reader.done == b"".join(CHUNKS)
        await port.stopListening()


def test_other_transports_are_written_to_as_ever() -> None:
    transport: Any = StringTransport()  # type: ignore[no-untyped-call]  # Twisted's is not annotated
    write_at_once(transport, b"one")
    write_at_once(transport, b"two")
    read_at_once(transport)
    assert transport.value() == b"onetwo"


@asynccontextmanager
async def paused(reader: Reader) -> AsyncIterator[tuple[Any, socket.socket]]:
    """A connection that Twisted does not read: its transport, and the other end, which is closed in the end."""
    from twisted.internet import reactor

    twisted: Any = reactor
    connected: Deferred[None] = Deferred()
    reader.connectionMade = lambda: connected.callback(None)  # type: ignore[method-assign]  # where the test goes on
    connecting = ClientFactory()
    connecting.buildProtocol = lambda addr: reader  # type: ignore[method-assign]  # it needs no more of a factory
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        twisted.connectTCP(*listening.getsockname(), connecting)
        await connected
        other, _ = listening.accept()
    with other:
        transport: Any = reader.transport
        transport.pauseProducing()
        transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # as much as there may be
        yield transport, other


async def come(transport: Any, size: int) -> None:
    """Returns once so many bytes wait to be read, on whichever processor the system carries them over."""
    from twisted.internet import reactor

    count = array("i", [0])
    while count[0] < size:
        await deferLater(cast(Any, reactor), 0.0)
        fcntl.ioctl(transport.socket, termios.FIONREAD, count)


@pytest_twisted.ensureDeferred
async def test_what_has_come_is_read_at_once() -> None:
    reader = Reader()
    async with paused(reader) as (transport, other):
        other.send(b"news")
        await come(transport, 4)
        read_at_once(transport)
        assert reader.received == b"news"
        read_at_once(transport)  # nothing more has come
        assert reader.received == b"news"
        much = os.urandom(transport.bufferSize * 3 // 2)  # more than Twisted reads in one turn
        other.sendall(much)
        await come(transport, len(much))
        read_at_once(transport)
        assert reader.received == b"news" + much
    read_at_once(transport)
    transport.resumeProducing()
    assert await reader.done == b"news" + much
    read_at_once(transport)  # it is over


@pytest_twisted.ensureDeferred
async def test_a_protocol_that_fails_over_what_has_come_loses_its_connection() -> None:
    from twisted.internet import reactor

    reader = Reader()
    reader.dataReceived = lambda data: {}[data]  # type: ignore[method-assign]  # what it has not heard is not lost unseen
    async with paused(reader) as (transport, other):
        other.send(b"news")
        await come(transport, 4)
        with pytest.raises(KeyError):
            read_at_once(transport)
        reader.done.addTimeout(60, cast(Any, reactor))
        assert await reader.done == b""


class Socket:
    """Takes a few bytes each time, or none."""

    def __init__(self, takes: int | None) -> None:
        self.takes = takes
        self.sent = b""

    def send(self, data: bytes) -> int:
        if self.takes is None:
            raise BlockingIOError
        self.sent += data[: self.takes]
        return len(data[: self.takes])


class Transport:
    """As much of a socket's transport as is looked at."""

    connected, disconnecting, TLS, dataBuffer = True, False, False, b""

    def __init__(self, takes: int | None, **state: Any) -> None:
        self._tempDataBuffer: list[bytes] = []
        self.socket = Socket(takes)
        self.written = b""
        vars(self).update(state)

    def write(self, data: bytes) -> None:
        self.written += data


@pytest.mark.parametrize(
    ("transport", "at_once"),
    [
        (Transport(100), b"message"),
        (Transport(3), b"mes"),
        (Transport(None), b""),
        (Transport(100, dataBuffer=b"before"), b""),
        (Transport(100, _tempDataBuffer=[b"before"]), b""),
        (Transport(100, TLS=True), b""),
        (Transport(100, connected=False), b""),
        (Transport(100, disconnecting=True), b""),
    ],
)
def test_only_what_nothing_waits_before_goes_directly(transport: Transport, at_once: bytes) -> None:
    write_at_once(transport, b"message")
    assert transport.socket.sent == at_once
    assert transport.socket.sent + transport.written == b"message"
