"""Requests to other processes of this server: connections that are kept, TCP or unix sockets, bytes in and out.

Not for the world outside: no redirects, no address filter, no proxies. Half the cost of a general client matters here,
because every event that a worker creates takes this way. Whether a request may be repeated is known to those who send
it, so the errors tell whether it can have had an effect: `NotSent` cannot, `AnswerLost` and `AnswerLate` may.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from synapse.http.wire import AnswerHead, EndlessBody, WireError, encode_head, end_of_head, parse_answer
from synapse.metrics import table
from synapse.util.transports import write_at_once

IDLE = 60.0  # seconds; our servers keep idle connections longer, so that it is the client who ends them
CONNECT = 5.0
MAX_CONNECTIONS = 100
MAX_ANSWER = 64 * 1024 * 1024


class ClientError(Exception):
    """A request that got no answer."""

    outcome = "failed"


class NotSent(ClientError):
    """No connection came about; the request had no effect."""

    outcome = "refused"


class AnswerLost(ClientError):
    """The connection broke before the answer was complete; the request may have had its effect."""

    outcome = "lost"


class AnswerTooLarge(AnswerLost):
    """The answer has more bytes than whoever asked wants."""


class AnswerLate(ClientError):
    """There was no answer in time; the request may have had its effect, or may still have it."""

    outcome = "timeout"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a process listens: a host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> Address:
        """`http://127.0.0.1:9093`, `https://…`, or `unix:/path`. Raises ValueError."""
        if url.startswith("unix:"):
            return cls(path=url.removeprefix("unix:"))
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"'{url}' is not of the form http://HOST:PORT or unix:PATH")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls=tls)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ClientAnswer:
    """An answer, whatever its status. Header names are in lower case."""

    code: int
    headers: dict[str, str]
    body: bytes

    def json_object(self) -> dict[str, Any]:
        """The object that the body is; an empty one where it is anything else."""
        try:
            value = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}


class ProcessClient:
    """Requests to one process.

    :param reactor: connects and tells the time.
    """

    def __init__(self, reactor: Any, address: Address, max_connections: int = MAX_CONNECTIONS) -> None:
        self._reactor = reactor
        self.address = address
        self._max = max_connections
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._connecting = 0
        self._queue: deque[Deferred[_Connection]] = deque()
        self._host = "localhost" if address.path else str(address)
        self._idle_gauge = table.CALL_CONNECTIONS.child(str(address), "idle")
        self._busy_gauge = table.CALL_CONNECTIONS.child(str(address), "busy")

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
        *,
        within: float = 60.0,
        repeatable: bool = False,
    ) -> ClientAnswer:
        """Sends a request and waits for the answer, `within` so many seconds. Raises ClientError.

        With `repeatable`, a request that meets a connection which the other side has just ended is sent once more.
        """
        first = f"{method} {path} HTTP/1.1\r\nHost: {self._host}"
        length = (("Content-Length", str(len(body))),) if body or method not in ("GET", "HEAD") else ()
        message = encode_head(first, (*headers, *length)) + body
        began = self._reactor.seconds()
        try:
            answer = await self._exchange(message, method == "HEAD", within, repeatable)
        except ClientError as e:
            table.CALLS.child(e.outcome).inc()
            raise
        table.CALLS.child(str(answer.code)).inc()
        table.CALL_SECONDS.child().observe(self._reactor.seconds() - began)
        return answer

    async def _exchange(self, message: bytes, to_head: bool, within: float, repeatable: bool) -> ClientAnswer:
        connection = await self._acquire(within)
        reused = connection.used
        try:
            return await connection.exchange(message, to_head, within)
        except AnswerLost:
            if not (repeatable and reused and connection.silent):
                raise
        connection = await self._acquire(within, fresh=True)
        return await connection.exchange(message, to_head, within)

    def close(self) -> None:
        """Ends idle connections; those in use end with their answer."""
        self._max = 0
        for connection in list(self._idle):
            connection.close()

    # -- connections ------------------------------------------------------------------------------------------------

    async def _acquire(self, within: float, fresh: bool = False) -> _Connection:
        if not self._max:
            raise NotSent(f"This process is leaving and sends nothing to {self.address} any more.")
        if self._idle and not fresh:
            connection = self._idle.pop()
        elif len(self._busy) + self._connecting < self._max or fresh:
            connection = await self._connect(within)
        else:
            connection = await self._queued(within)
        self._busy.add(connection)
        self._tell()
        return connection

    async def _queued(self, within: float) -> _Connection:
        waiting: Deferred[_Connection] = Deferred(self._unqueue)
        self._queue.append(waiting)
        timer = self._reactor.callLater(within, self._give_up, waiting)
        try:
            return await waiting
        finally:
            if timer.active():
                timer.cancel()

    def _unqueue(self, waiting: Deferred[_Connection]) -> None:
        if waiting in self._queue:
            self._queue.remove(waiting)

    def _give_up(self, waiting: Deferred[_Connection]) -> None:
        self._unqueue(waiting)
        if not waiting.called:
            waiting.errback(NotSent(f"All connections to {self.address} are in use."))

    def _hand_over(self, connection: _Connection, waiting: Deferred[_Connection]) -> None:
        if waiting.called:
            self.released(connection)
        else:
            waiting.callback(connection)

    async def _connect(self, within: float) -> _Connection:
        self._connecting += 1
        connected: Deferred[_Connection] = Deferred()
        factory = _Factory(self, connected)
        self._dial(factory, min(CONNECT, within))
        try:
            return await connected
        finally:
            self._connecting -= 1

    def _dial(self, factory: _Factory, within: float) -> None:
        address = self.address
        if address.path:
            self._reactor.connectUNIX(address.path, factory, timeout=within)
        elif address.tls:
            from twisted.internet.ssl import optionsForClientTLS

            self._reactor.connectSSL(address.host, address.port, factory, optionsForClientTLS(address.host), within)
        else:
            self._reactor.connectTCP(address.host, address.port, factory, timeout=within)

    def released(self, connection: _Connection) -> None:
        """A connection has its answer and can take the next request."""
        self._busy.discard(connection)
        if self._queue:
            self._queue.popleft().callback(connection)
        elif self._max:
            self._idle.append(connection)
        else:
            connection.close()
        self._tell()

    def ended(self, connection: _Connection) -> None:
        """A connection is no more."""
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._queue and len(self._busy) + self._connecting < self._max:
            # Somebody waits for a connection to become free; this one will not.
            waiting = self._queue.popleft()
            connecting = Deferred.fromCoroutine(self._connect(CONNECT))
            connecting.addCallback(self._hand_over, waiting)
            connecting.addErrback(lambda failure: None if waiting.called else waiting.errback(failure))
        self._tell()

    def _tell(self) -> None:
        self._idle_gauge.set(len(self._idle))
        self._busy_gauge.set(len(self._busy))


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, client: ProcessClient, connected: Deferred[_Connection]) -> None:
        self._client = client
        self._connected = connected

    def buildProtocol(self, addr: IAddress | None) -> _Connection:
        return _Connection(self._client, self._connected)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        address = self._client.address
        why = reason.value.osError if isinstance(reason.value, ConnectError) and reason.value.osError else reason.value
        if not self._connected.called:
            self._connected.errback(NotSent(f"Nobody answers at {address}: {why}"))


class _Connection(Protocol):
    """One connection, with one request at a time."""

    transport: Any

    def __init__(self, client: ProcessClient, connected: Deferred[_Connection]) -> None:
        self._client = client
        self._connected = connected
        self._reactor = client._reactor
        self._answer: Deferred[ClientAnswer] | None = None
        self._timer: Any = None
        self._idle_timer: Any = None
        self._lost = False
        self.used = False  # whether it has carried a request before
        self._begin(False)

    def _begin(self, to_head: bool) -> None:
        self._to_head = to_head
        self._buffer = b""
        self._head: AnswerHead | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self.silent = True  # whether nothing of the answer has come

    async def exchange(self, message: bytes, to_head: bool, within: float) -> ClientAnswer:
        """Sends a request and waits for its answer. Raises ClientError."""
        if self._lost:
            raise AnswerLost(f"{self._client.address} has ended the connection.")
        self._begin(to_head)
        self._cancel_idle_timer()
        self._answer = Deferred(lambda _: self.close())
        self._timer = self._reactor.callLater(within, self._late, within)
        write_at_once(self.transport, message)
        return await self._answer

    def close(self) -> None:
        """Ends the connection at once."""
        if not self._lost:
            self.transport.abortConnection()

    # -- what the transport calls -----------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        if self._connected.called:
            # Whoever wanted it has given up.
            self.close()
        else:
            self._connected.callback(self)

    def dataReceived(self, data: bytes) -> None:
        if self._answer is None:
            # Nobody asked. Whatever it is, it must not be taken for the next answer.
            self.close()
            return
        self.silent = False
        try:
            self._receive(data)
        except WireError as e:
            self._fail(AnswerLost(f"{self._client.address} does not answer in HTTP: {e.message}"))
            self.close()

    def _receive(self, data: bytes) -> None:
        if self._head is None:
            self._buffer += data
            end = end_of_head(self._buffer)
            if end < 0:
                return
            head, data, self._buffer = self._buffer[:end], self._buffer[end:], b""
            self._head = parse_answer(head, to_head=self._to_head)
            if self._head.status < 200:
                self._head = None
                self._receive(data)
                return
        payload, rest = self._head.body.feed(data)
        self._size += len(payload)
        if self._size > MAX_ANSWER:
            raise WireError(502, "answer_too_large", "the answer is too large.")
        self._parts.append(payload)
        if rest is not None:
            self._complete(reusable=self._head.keep_alive and not rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._cancel_idle_timer()
        self._client.ended(self)
        if self._head is not None and not self._head.keep_alive and _ends_with_connection(self._head):
            self._complete(reusable=False)
        self._fail(AnswerLost(f"{self._client.address} has ended the connection."))

    # -- the end of an exchange -------------------------------------------------------------------------------------

    def _complete(self, reusable: bool) -> None:
        answer, head = self._taken(), self._head
        if answer is None or head is None:
            return
        # Put together before the connection goes to the next one who waits for it.
        result = ClientAnswer(head.status, head.headers, b"".join(self._parts))
        self._head = None
        self.used = True
        if reusable:
            self._idle_timer = self._reactor.callLater(IDLE, self.close)
            self._client.released(self)
        elif not self._lost:
            self.transport.loseConnection()
        answer.callback(result)

    def _fail(self, error: ClientError) -> None:
        answer = self._taken()
        if answer is not None and not answer.called:
            answer.errback(error)

    def _late(self, within: float) -> None:
        self._fail(AnswerLate(f"{self._client.address} did not answer within {within:g} seconds."))
        self.close()

    def _taken(self) -> Deferred[ClientAnswer] | None:
        answer, self._answer = self._answer, None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        return answer

    def _cancel_idle_timer(self) -> None:
        if self._idle_timer is not None and self._idle_timer.active():
            self._idle_timer.cancel()
        self._idle_timer = None


def _ends_with_connection(head: AnswerHead) -> bool:
    return isinstance(head.body, EndlessBody)
