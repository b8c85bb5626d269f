"""Calls between processes, over real sockets: connections are kept; errors tell whether requests may have counted."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol

from synapse.api.routes import Auth, find
from synapse.http.client import Address, AnswerLate, AnswerLost, ClientAnswer, NotSent, ProcessClient
from synapse.http.server import Drain, RawJson, Request, Router
from synapse.http.site import Site
from synapse.metrics import table
from tests.support.deferreds import started

CALL = "/_synapse/replication/echo"


class Ours:
    """One of our servers, on a TCP port and a unix socket."""

    def __init__(self, reactor: Any) -> None:
        self.drain = Drain(reactor)
        router = Router(self.drain)
        router.mount_prefix("/_synapse/replication/", "replication", "replication", self._echo, 10**7)
        router.mount(replace(find("versions"), auth=Auth.NONE), self._versions)
        self.site = Site(router, reactor, {"replication", "client"})
        self.waiting: list[Deferred[None]] = []
        self.hold = False
        self.directory = tempfile.TemporaryDirectory()
        path = os.path.join(self.directory.name, "s")
        self._ports = [reactor.listenTCP(0, self.site, interface="127.0.0.1"), reactor.listenUNIX(path, self.site)]
        self.tcp = Address("127.0.0.1", self._ports[0].getHost().port)
        self.unix = Address(path=path)

    async def _echo(self, request: Request) -> dict[str, Any]:
        if self.hold:
            waiting: Deferred[None] = Deferred()
            self.waiting.append(waiting)
            await waiting
        return {"method": request.method, "length": len(request.body), "x": request.headers.get("x")}

    async def _versions(self, request: Request) -> RawJson:
        return RawJson(b"v" * 500_000)

    @property
    def connections(self) -> int:
        return len(self.site._channels)

    async def stop(self) -> None:
        for waiting in self.waiting:
            if not waiting.called:
                waiting.callback(None)
        for port in self._ports:
            await port.stopListening()
        self.directory.cleanup()


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


async def _until(reactor: Any, condition: Callable[[], bool]) -> None:
    """Lets the reactor turn until something has happened."""
    while not condition():
        turn: Deferred[None] = Deferred()
        reactor.callLater(0, turn.callback, None)
        await turn


@pytest_twisted.async_yield_fixture
async def ours(reactor: Any) -> AsyncIterator[Ours]:
    server = Ours(reactor)
    yield server
    await server.stop()


@pytest_twisted.async_yield_fixture
async def client(ours: Ours, reactor: Any) -> AsyncIterator[ProcessClient]:
    client = ProcessClient(reactor, ours.tcp)
    yield client
    client.close()
    await _until(reactor, lambda: ours.connections == 0)


def _json(answer: ClientAnswer) -> Any:
    return orjson.loads(answer.body)


@pytest_twisted.ensureDeferred
async def test_requests_are_answered_over_one_connection(ours: Ours, client: ProcessClient) -> None:
    for number in range(5):
        answer = await client.request("POST", CALL, b"x" * number, (("X", "y"),))
        assert (answer.code, _json(answer)) == (200, {"method": "POST", "length": number, "x": "y"})
    assert (await client.request("GET", "/nowhere")).code == 404
    assert (await client.request("HEAD", "/_matrix/client/versions")).body == b""
    assert len((await client.request("GET", "/_matrix/client/versions")).body) == 500_000
    assert (await client.request("POST", CALL, b"x" * 3_000_000)).code == 200
    assert ours.connections == 1


@pytest_twisted.ensureDeferred
async def test_unix_sockets_carry_requests_too(ours: Ours, reactor: Any) -> None:
    client = ProcessClient(reactor, ours.unix)
    assert _json(await client.request("PUT", CALL, b"abc"))["length"] == 3
    client.close()
    await _until(reactor, lambda: ours.connections == 0)


@pytest_twisted.ensureDeferred
async def test_requests_at_once_share_a_bounded_pool(ours: Ours, reactor: Any) -> None:
    client = ProcessClient(reactor, ours.tcp, max_connections=3)
    ours.hold = True
    calls = [started(client.request("POST", CALL, b"x" * n)) for n in range(8)]
    await _until(reactor, lambda: len(ours.waiting) == 3)
    ours.hold = False
    for waiting in list(ours.waiting):
        waiting.callback(None)
    answers = await gatherResults(calls)
    assert [_json(answer)["length"] for answer in answers] == list(range(8))
    assert ours.connections == 3
    assert table.CALL_CONNECTIONS.child(str(ours.tcp), "idle").value == 3
    client.close()
    with pytest.raises(NotSent, match="leaving"):
        await client.request("GET", CALL)
    await _until(reactor, lambda: ours.connections == 0)


@pytest_twisted.ensureDeferred
async def test_who_waits_too_long_for_a_connection_sends_nothing(ours: Ours, reactor: Any) -> None:
    client = ProcessClient(reactor, ours.tcp, max_connections=1)
    ours.hold = True
    first = started(client.request("POST", CALL))
    await _until(reactor, lambda: len(ours.waiting) == 1)
    with pytest.raises(NotSent, match="in use"):
        await client.request("POST", CALL, within=0.01)
    ours.waiting[0].callback(None)
    assert (await first).code == 200
    client.close()


@pytest_twisted.ensureDeferred
async def test_nobody_there_means_nothing_sent(reactor: Any) -> None:
    table.CALLS.clear()
    port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
    address = Address("127.0.0.1", port.getHost().port)
    await port.stopListening()
    for nobody in (address, Address(path="/nonexistent/socket")):
        with pytest.raises(NotSent, match="Nobody answers at"):
            await ProcessClient(reactor, nobody).request("GET", "/")
    assert table.CALLS.child("refused").value == 2


@pytest_twisted.ensureDeferred
async def test_an_answer_may_come_too_late(ours: Ours, client: ProcessClient, reactor: Any) -> None:
    table.CALLS.clear()
    ours.hold = True
    with pytest.raises(AnswerLate, match=r"within 0\.01 seconds"):
        await client.request("POST", CALL, within=0.01)
    assert table.CALLS.child("timeout").value == 1
    await _until(reactor, lambda: ours.connections == 0)
    ours.hold = False
    assert (await client.request("POST", CALL)).code == 200


@pytest_twisted.ensureDeferred
async def test_a_cancelled_request_gives_up_its_connection(ours: Ours, client: ProcessClient, reactor: Any) -> None:
    ours.hold = True
    call = started(client.request("GET", CALL))
    await _until(reactor, lambda: len(ours.waiting) == 1)
    call.cancel()
    with pytest.raises(CancelledError):
        await call
    await _until(reactor, lambda: ours.connections == 0)
    assert ours.drain.in_flight == 0


# -- servers that misbehave ------------------------------------------------------------------------------------------


class _Scripted(Protocol):
    """Answers each piece it receives with the next line of the script; None ends the connection."""

    def __init__(self, script: list[list[bytes | None]]) -> None:
        self._lines = script.pop(0) if script else []

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        line = self._lines.pop(0) if self._lines else None
        if line is not None:
            transport.write(line)
        if line is None or (self._lines and self._lines[0] is None):
            transport.loseConnection()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Scripted:
    """A server that plays one script per connection."""

    def __init__(self, reactor: Any, *scripts: list[bytes | None]) -> None:
        script = list(scripts)
        factory = Factory()
        factory.buildProtocol = lambda addr: _Scripted(script)  # type: ignore[method-assign]
        self.script = script
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.client = ProcessClient(reactor, Address("127.0.0.1", self._port.getHost().port))

    async def stop(self) -> None:
        self.client.close()
        await self._port.stopListening()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 20",
    ],
)
@pytest_twisted.ensureDeferred
async def test_half_an_answer_is_none(reactor: Any, answer: bytes) -> None:
    server = Scripted(reactor, [answer, None])
    with pytest.raises(AnswerLost):
        await server.client.request("GET", "/", repeatable=True)
    await server.stop()


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\n\r\nok",
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_ends_as_it_says(reactor: Any, answer: bytes) -> None:
    server = Scripted(reactor, [answer, None])
    assert (await server.client.request("GET", "/")).body == b"ok"
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_what_may_be_repeated_survives_a_connection_that_has_just_ended(reactor: Any) -> None:
    server = Scripted(reactor, [OK], [OK])
    await server.client.request("GET", "/")
    # The second request on the first connection finds it closed; a new connection answers.
    assert (await server.client.request("GET", "/", repeatable=True)).body == b"ok"
    assert server.script == []
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_what_may_not_be_repeated_is_not(reactor: Any) -> None:
    server = Scripted(reactor, [OK], [OK])
    await server.client.request("POST", "/")
    with pytest.raises(AnswerLost):
        await server.client.request("POST", "/")
    assert len(server.script) == 1
    await server.stop()


@pytest_twisted.ensureDeferred
async def test_words_that_nobody_asked_for_end_the_connection(reactor: Any) -> None:
    server = Scripted(reactor, [OK + OK], [OK])
    for _ in range(2):
        assert (await server.client.request("GET", "/")).body == b"ok"
    assert server.script == []
    await server.stop()


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address", "text"),
    [
        ("http://127.0.0.1:9093", Address("127.0.0.1", 9093), "127.0.0.1:9093"),
        ("http://localhost/", Address("localhost", 80), "localhost:80"),
        ("https://[::1]:8448", Address("::1", 8448, tls=True), "[::1]:8448"),
        ("unix:/run/synapse/main.sock", Address(path="/run/synapse/main.sock"), "unix:/run/synapse/main.sock"),
    ],
)
def test_addresses_are_read_and_written(url: str, address: Address, text: str) -> None:
    assert Address.parse(url) == address
    assert str(address) == text


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "ftp://x", "http://", "http://x/path", "http://x:99999"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the library words it for ports
        Address.parse(url)
