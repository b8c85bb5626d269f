"""Requests and answers over kept connections: how HTTP/1.1 is spoken by those who ask.

`Connections` are those to one place; whoever makes them says how to connect (`Dial`). A request goes out at once, on a
connection that is free, on a new one while there are not too many, or when one becomes free. Who sends it has to know
whether it can have had an effect, so the errors tell: `NotSent` cannot, `AnswerLost` and `AnswerLate` may.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress, IHandshakeListener
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from synapse.http.wire import AnswerHead, EndlessBody, WireError, end_of_head, parse_answer
from synapse.util.problems import why_not_connected
from synapse.util.transports import write_at_once

IDLE = 60.0  # seconds; our servers keep idle connections longer, so that it is the client who ends them
CONNECT = 5.0
MAX_ANSWER = 64 * 1024 * 1024

Dial = Callable[[ClientFactory, float], None]
"""Connects the factory's protocol within so many seconds; or calls its `clientConnectionFailed`."""


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


class Connections:
    """The connections to one place.

    :param reactor: tells the time.
    :param name: what errors call the place.
    :param secure: whether a connection is one only when TLS has proved who is there.
    :param tell: is told how many connections are idle and how many in use.
    :param connect_within: seconds.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        dial: Dial,
        max_connections: int,
        *,
        secure: bool = False,
        tell: Callable[[int, int], None] = lambda idle, busy: None,
        connect_within: float = CONNECT,
    ) -> None:
        self.reactor = reactor
        self.name = name
        self.secure = secure
        self._dial = dial
        self._max = max_connections
        self._told = tell
        self._connect_within = connect_within
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._connecting = 0
        self._queue: deque[Deferred[_Connection]] = deque()

    async def exchange(
        self,
        message: bytes,
        within: float,
        *,
        to_head: bool = False,
        repeatable: bool = False,
        max_answer: int = MAX_ANSWER,
    ) -> ClientAnswer:
        """Sends a request and waits for the answer, `within` so many seconds. Raises ClientError.

        With `repeatable`, a request that meets a connection which the other side has just ended is sent once more.
        """
        deadline = self.reactor.seconds() + within
        connection = await self._acquire(within)
        reused = connection.used
        try:
            return await connection.exchange(message, to_head, within, deadline, max_answer)
        except AnswerLost:
            if not (repeatable and reused and connection.silent):
                raise
        connection = await self._acquire(max(0.0, deadline - self.reactor.seconds()), fresh=True)
        return await connection.exchange(message, to_head, within, deadline, max_answer)

    def close(self) -> None:
        """Ends idle connections; those in use end with their answer."""
        self._max = 0
        self.close_idle()

    def close_idle(self) -> None:
        """Ends the connections that are not in use now; from now on, they do not count."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        self._tell()

    @property
    def idle(self) -> int:
        """How many connections are not in use."""
        return len(self._idle)

    @property
    def in_use(self) -> bool:
        """Whether anybody uses a connection, or waits for one."""
        return bool(self._busy or self._connecting or self._queue)

    # -- connections ------------------------------------------------------------------------------------------------

    async def _acquire(self, within: float, fresh: bool = False) -> _Connection:
        if not self._max:
            raise NotSent(f"This process is leaving and sends nothing to {self.name} any more.")
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
        timer = self.reactor.callLater(within, self._give_up, waiting)
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
            waiting.errback(NotSent(f"All connections to {self.name} are in use."))

    def _hand_over(self, connection: _Connection, waiting: Deferred[_Connection]) -> None:
        if waiting.called:
            self.released(connection)
        else:
            waiting.callback(connection)

    async def _connect(self, within: float) -> _Connection:
        self._connecting += 1
        connected: Deferred[_Connection] = Deferred()
        factory = _Factory(self, connected)
        seconds = min(self._connect_within, within)
        # Dialling has a limit of its own, which does not cover what follows it: the handshake of TLS.
        timer = self.reactor.callLater(2 * seconds, self._not_connected, connected) if self.secure else None
        try:
            self._dial(factory, seconds)
            return await connected
        except BaseException:
            self.reactor.callLater(0, self._was_in_vain)
            raise
        finally:
            self._connecting -= 1
            if timer is not None and timer.active():
                timer.cancel()

    def _was_in_vain(self) -> None:
        """A connection has not come about. Nobody else would look after those who wait for one."""
        self._serve_queue()
        self._tell()

    def _not_connected(self, connected: Deferred[_Connection]) -> None:
        if not connected.called:
            connected.errback(NotSent(f"{self.name} does not take the connection."))

    def released(self, connection: _Connection) -> None:
        """A connection has its answer and can take the next request."""
        self._busy.discard(connection)
        if self._queue:
            self._queue.popleft().callback(connection)
        elif self._max:
            self._idle.append(connection)
            connection.rest()
        else:
            connection.close()
        self._tell()

    def ended(self, connection: _Connection) -> None:
        """A connection is no more."""
        self._busy.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._serve_queue()
        self._tell()

    def _serve_queue(self) -> None:
        """Somebody may wait for a connection to become free that will not."""
        if self._queue and len(self._busy) + self._connecting < self._max:
            waiting = self._queue.popleft()
            connecting = Deferred.fromCoroutine(self._connect(self._connect_within))
            connecting.addCallback(self._hand_over, waiting)
            connecting.addErrback(self._not_handed_over, waiting)

    def _not_handed_over(self, failure: Failure, waiting: Deferred[_Connection]) -> None:
        if not waiting.called:
            waiting.errback(failure)

    def _tell(self) -> None:
        self._told(len(self._idle), len(self._busy))


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, pool: Connections, connected: Deferred[_Connection]) -> None:
        self._pool = pool
        self._connected = connected

    def buildProtocol(self, addr: IAddress | None) -> _Connection:
        return _Connection(self._pool, self._connected)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if not self._connected.called:
            self._connected.errback(NotSent(f"Nobody answers at {self._pool.name}: {_why_nobody(reason.value)}"))


@implementer(IHandshakeListener)
class _Connection(Protocol):
    """One connection, with one request at a time."""

    transport: Any

    def __init__(self, pool: Connections, connected: Deferred[_Connection]) -> None:
        self._pool = pool
        self._connected = connected
        self._reactor = pool.reactor
        self._answer: Deferred[ClientAnswer] | None = None
        self._timer: Any = None
        self._idle_timer: Any = None
        self._lost = False
        self.used = False  # whether it has carried a request before
        self._begin(False, MAX_ANSWER)

    def _begin(self, to_head: bool, max_answer: int) -> None:
        self._to_head = to_head
        self._max_answer = max_answer
        self._buffer = b""
        self._head: AnswerHead | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self.silent = True  # whether nothing of the answer has come

    async def exchange(
        self, message: bytes, to_head: bool, within: float, deadline: float, max_answer: int
    ) -> ClientAnswer:
        """Sends a request and waits for its answer, until the deadline: `within` seconds of when that was set. Raises
        ClientError."""
        if self._lost:
            raise AnswerLost(f"{self._pool.name} has ended the connection.")
        self._begin(to_head, max_answer)
        self._cancel_idle_timer()
        self._answer = Deferred(lambda _: self.close())
        self._timer = self._reactor.callLater(max(0.0, deadline - self._reactor.seconds()), self._late, within)
        write_at_once(self.transport, message)
        return await self._answer

    def rest(self) -> None:
        """Nobody needs the connection now; it ends if that lasts."""
        self._idle_timer = self._reactor.callLater(IDLE, self.close)

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
        elif not self._pool.secure:
            self._connected.callback(self)

    def handshakeCompleted(self) -> None:
        if self._pool.secure and not self._connected.called:
            self._connected.callback(self)
        elif self._pool.secure:
            self.close()

    def dataReceived(self, data: bytes) -> None:
        if self._answer is None:
            # Nobody asked. Whatever it is, it must not be taken for the next answer.
            self.close()
            return
        self.silent = False
        try:
            self._receive(data)
        except WireError as e:
            self._fail(AnswerLost(f"{self._pool.name} does not answer in HTTP: {e.message}"))
            self.close()

    def _receive(self, data: bytes) -> None:
        while self._head is None:
            self._buffer += data
            end = end_of_head(self._buffer)
            if end < 0:
                return
            head, data, self._buffer = self._buffer[:end], self._buffer[end:], b""
            found = parse_answer(head, to_head=self._to_head)
            if found.status >= 200:  # others say that the answer is still to come
                self._head = found
        payload, rest = self._head.body.feed(data)
        self._size += len(payload)
        if self._size > self._max_answer:
            self._fail(AnswerTooLarge(f"The answer of {self._pool.name} has more than {self._max_answer} bytes."))
            self.close()
            return
        self._parts.append(payload)
        if rest is not None:
            self._complete(reusable=self._head.keep_alive and not rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._cancel_idle_timer()
        if not self._connected.called:
            self._connected.errback(NotSent(f"{self._pool.name} does not take the connection: {self._why(reason)}"))
        self._pool.ended(self)
        if self._head is not None and not self._head.keep_alive and _ends_with_connection(self._head):
            self._complete(reusable=False)
        self._fail(AnswerLost(f"{self._pool.name} has ended the connection."))

    def _why(self, reason: Failure) -> str:
        """What ended a connection before it was one. What is wrong with a certificate `http.tls` has noted down."""
        handle = self.transport.getHandle() if self._pool.secure else None
        noted = handle.get_app_data() if handle is not None else None
        return noted if isinstance(noted, str) else _why(reason)

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
            self._pool.released(self)
        elif not self._lost:
            self.transport.loseConnection()
        answer.callback(result)

    def _fail(self, error: ClientError) -> None:
        answer = self._taken()
        if answer is not None and not answer.called:
            answer.errback(error)

    def _late(self, within: float) -> None:
        self._fail(AnswerLate(f"{self._pool.name} did not answer within {within:g} seconds."))
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


def _why_nobody(error: BaseException | None) -> str:
    """What a connection that was not begun failed of. A name that does not exist and one that only leads to where this
    server may not go look alike: whoever names hosts is told nothing of the network here."""
    if isinstance(error, DNSLookupError):
        return "the name has no address, or none that this server may connect to (ip_range_blacklist)."
    return f"{why_not_connected(error).rstrip('.')}."


def _why(reason: Failure) -> str:
    """What ended a connection before it was one: mostly TLS, whose errors are lists of tuples."""
    error = reason.value
    details = getattr(error, "args", ())
    if details and isinstance(details[0], list) and details[0]:
        return str(details[0][0][-1])
    return f"{type(error).__name__} {error}".strip()[:200]
