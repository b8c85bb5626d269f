"""One connection of a client or a proxy: requests in, answers out, one after the other.

Theory of operation. A connection is in one of four states. In HEAD it waits for the head of a request; in BODY it
reads the body (or passes it on to a handler that runs already); in ANSWERING the handler has the request and what else
arrives is kept, up to a bound, because clients may send the next request before they have the answer (pipelining);
CLOSED only drops what still arrives. `_advance` moves on as far as the bytes at hand allow. Writing has its own brake:
while the client does not take what it was sent, no further request is begun.

`synapse.http.wire` knows HTTP, `synapse.http.router` what to answer; this is the part between them and the socket.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from synapse.api.errors import too_large, unknown
from synapse.api.routes import SAFE_METHODS
from synapse.http.answers import Answer, FileAnswer, error_answer
from synapse.http.reply import answer_head
from synapse.http.request import RawRequest
from synapse.http.routing import Match
from synapse.http.upload import ChannelBody
from synapse.http.wire import Body, RequestHead, WireError, end_of_head, parse_request
from synapse.metrics import table
from synapse.util.transports import write_at_once

if TYPE_CHECKING:
    from synapse.http.site import Site
    from synapse.util.clock import Timer

logger = logging.getLogger(__name__)

# Seconds: without a request, for a head, without progress within a body or an answer.
IDLE, HEAD_TIME, STALLED = 90.0, 30.0, 60.0
LINGER = 5.0  # how long the rest of a refused request is listened to, so that the answer is not lost
MAX_PIPELINED = 64 * 1024
# A body that is too large is still read when no more than this is left of it: the connection stays usable.
MAX_DISCARDED = 1024 * 1024
_PIECE = 64 * 1024


class _State(Enum):
    HEAD = "head"
    BODY = "body"
    ANSWERING = "answering"
    CLOSED = "closed"


class HttpChannel(Protocol):
    """See the module. Made by a `Site`. To its transport it is a push producer."""

    transport: Any  # TCP, TLS or a unix socket: all have more than the interface of transports says

    def __init__(self, site: Site) -> None:
        self._site = site
        self._state = _State.HEAD
        self._buffer = b""
        self._searched = 0
        self._advancing = False
        self._since = self._active = site.clock.seconds()
        self._connected = False
        self._write_paused = False
        self._read_paused = False
        self._file: FileAnswer | None = None
        self._linger: Timer | None = None
        self._reset()

    def _reset(self) -> None:
        self._head: RequestHead | None = None
        self._match = Match()
        self._body: Body | None = None
        self._unread = False  # whether some of the body is still to come
        self._parts: list[bytes] = []
        self._size = 0
        self._stream: ChannelBody | None = None
        self._continue_due = False
        self._pending: Deferred[Any] | None = None
        self._held_answer: Answer | None = None

    # -- what the transport calls -----------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self._connected = True
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)
        self._site.opened(self)

    def dataReceived(self, data: bytes) -> None:
        self._active = self._site.clock.seconds()
        if self._state is _State.CLOSED:
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._advance()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connected = False
        complete = self._state is not _State.BODY
        self._state = _State.CLOSED
        self._buffer = b""
        self._close_file()
        if isinstance(self._held_answer, FileAnswer):
            self._held_answer.file.close()
        self._site.lost(self)
        if self._linger is not None and self._linger.active():
            self._linger.cancel()
        # What changes something runs to its end, once it is complete; what only reads or waits has nobody to read to.
        if self._pending is not None and (not complete or self._head is None or self._head.method in SAFE_METHODS):
            self._pending.cancel()

    def pauseProducing(self) -> None:
        self._write_paused = True

    def resumeProducing(self) -> None:
        self._write_paused = False
        self._active = self._site.clock.seconds()
        if self._file is not None:
            self._send_file()
        elif self._state is _State.HEAD:
            self._hold_reading(False)
        self._advance()

    def stopProducing(self) -> None:
        self._close_file()

    # -- requests in ------------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        try:
            while self._step():
                pass
        except WireError as e:
            self._refuse(e)
        finally:
            self._advancing = False

    def _step(self) -> bool:
        """Does the next thing that the bytes at hand allow; whether there was one."""
        if self._state is _State.HEAD and not self._write_paused:
            return self._read_head()
        if self._state is _State.BODY:
            return bool(self._buffer) and self._read_body()
        if len(self._buffer) > MAX_PIPELINED:
            self._hold_reading(True)
        return False

    def _read_head(self) -> bool:
        if self._buffer.startswith(b"\r\n"):
            # RFC 9112, 2.2: an empty line before a request is to be ignored.
            self._buffer = self._buffer.lstrip(b"\r\n")
        if not self._buffer:
            return False
        if not self._searched:
            self._since = self._active
        end = end_of_head(self._buffer, self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            return False
        head, self._buffer, self._searched = self._buffer[:end], self._buffer[end:], 0
        self._begin(parse_request(head))
        return True

    def _begin(self, head: RequestHead) -> None:
        self._head = head
        self._match = match = self._site.match(head)
        if head.length == 0:
            self._state = _State.ANSWERING
            self._handle(b"")
            return
        self._state = _State.BODY
        self._body = head.body()
        self._unread = True
        if match.streams_body and match.error is None:
            self._continue_due = head.expects_continue
            self._stream = ChannelBody(head.length, self._hold_reading, self._send_continue)
            self._handle(b"")
        elif head.length is not None and head.length > match.max_body:
            self._too_large(at_once=head.expects_continue or head.length > match.max_body + MAX_DISCARDED)
        elif head.expects_continue:
            self._continue_due = True
            self._send_continue()

    def _read_body(self) -> bool:
        assert self._body is not None
        data, self._buffer = self._buffer, b""
        payload, rest = self._body.feed(data)
        self._size += len(payload)
        self._take(payload)
        if rest is None or self._state is not _State.BODY:
            return False
        self._buffer = rest
        self._body_complete()
        return True

    def _take(self, payload: bytes) -> None:
        limit = self._match.max_body
        if self._held_answer is not None:
            if self._size > MAX_DISCARDED:
                self._send_last(self._held_answer)
        elif self._stream is not None:
            self._stream.feed(payload)
        elif self._size <= limit:
            self._parts.append(payload)
        else:
            self._too_large(at_once=self._size > limit + MAX_DISCARDED)

    def _body_complete(self) -> None:
        self._state = _State.ANSWERING
        self._unread = False
        if self._held_answer is not None:
            self._send(self._held_answer)
        elif self._stream is not None:
            self._stream.end()
        else:
            body, self._parts = b"".join(self._parts), []
            self._handle(body)

    def _too_large(self, at_once: bool) -> None:
        """Leads the request to its refusal, after the rest of its body or `at_once`, which ends the connection."""
        limit = self._match.max_body
        if self._match.error is None:
            error = too_large(f"The body of this request may have at most {limit} bytes.")
            self._match = Match(self._match.name, error=error, max_body=limit)
        self._parts = []
        if at_once and self._head is not None:
            self._head.keep_alive = False
            self._handle(b"")

    def _send_continue(self) -> None:
        if self._continue_due and self._connected:
            self._continue_due = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _hold_reading(self, hold: bool) -> None:
        if hold != self._read_paused and self._connected:
            self._read_paused = hold
            if hold:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    # -- the handler ------------------------------------------------------------------------------------------------

    def _handle(self, body: bytes) -> None:
        assert self._head is not None
        raw = RawRequest(
            self._head.method,
            self._head.target,
            self._head.headers,
            body,
            client_ip=self._site.client_ip(self._head, self.transport),
            stream=self._stream,
            compress=self._site.compresses(self._match),
            secure=self._site.is_secure(self._head, self.transport),
        )
        self._pending = Deferred.fromCoroutine(self._site.router.handle(raw, self._match))
        self._pending.addCallbacks(self._answered, self._failed)

    def _answered(self, answer: Answer) -> None:
        self._pending = None
        if self._state is _State.CLOSED:
            if isinstance(answer, FileAnswer):
                answer.file.close()
        elif self._state is _State.BODY:
            self._answer_early(answer)
        else:
            self._send(answer)
            self._advance()

    def _failed(self, failure: Failure) -> None:
        """The router raises nothing but CancelledError; anything else is a fault in it or in what follows."""
        self._pending = None
        if not isinstance(failure.value, CancelledError):
            logger.error("The answer to a request was lost", exc_info=failure.value)
        if self._state is not _State.CLOSED:
            self._send_last(error_answer(unknown("The server gave up answering the request.", 503)))

    def _answer_early(self, answer: Answer) -> None:
        """There is an answer before the body is complete."""
        assert self._head is not None
        length = self._head.length
        left_too_much = length is not None and length - self._size > MAX_DISCARDED
        if self._continue_due or left_too_much or not self._head.keep_alive:
            self._send_last(answer)
            return
        if self._stream is not None:
            self._stream.abandon()
        self._held_answer = answer
        self._size = 0
        self._advance()

    # -- answers out ------------------------------------------------------------------------------------------------

    def _send(self, answer: Answer) -> None:
        assert self._head is not None
        keep_alive = self._head.keep_alive and not self._site.leaving
        try:
            head = answer_head(answer, keep_alive)
        except ValueError as e:
            logger.error("The answer to %s %s could not be sent: %s", self._head.method, self._match.name, e)
            answer = error_answer(unknown("The server failed to answer the request.", 500))
            head = answer_head(answer, keep_alive)
        self._head.keep_alive = keep_alive
        bodyless = self._head.method == "HEAD" or answer.code in (204, 304)
        if isinstance(answer, FileAnswer) and not bodyless:
            self._file = answer
            self._size = answer.length
            self.transport.write(head)
            self._send_file()
            return
        if isinstance(answer, FileAnswer):
            answer.file.close()
        write_at_once(self.transport, head if bodyless else head + answer.body)
        self._sent()

    def _send_last(self, answer: Answer) -> None:
        """Sends an answer and ends the connection, listening for a while so that the client gets to read it."""
        if self._head is not None:
            self._head.keep_alive = False
        self._state = _State.ANSWERING
        self._send(answer)

    def _send_file(self) -> None:
        """Sends as much of the file as the client takes."""
        while self._file is not None and not self._write_paused and self._connected:
            if not self._size:
                self._close_file()
                self._sent()
                return
            piece = self._file.file.read(min(_PIECE, self._size))
            if not piece:
                # It was promised to be longer; ending the connection is the only way left to say so.
                logger.error("A file that was being sent is shorter than expected")
                self._close_file()
                self.transport.abortConnection()
                return
            self._size -= len(piece)
            self.transport.write(piece)

    def _sent(self) -> None:
        keep_alive = self._head is not None and self._head.keep_alive
        unread = self._unread
        self._reset()
        if not keep_alive:
            self._close(linger=unread)
            return
        self._state = _State.HEAD
        self._since = self._site.clock.seconds()
        self._hold_reading(False)
        self._advance()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.file.close()
            self._file = None

    # -- the end ----------------------------------------------------------------------------------------------------

    def _refuse(self, error: WireError) -> None:
        """What arrived is not HTTP: says so, and ends the connection."""
        table.HTTP_MALFORMED.child(error.reason).inc()
        if self._state is _State.CLOSED:
            return
        pending = self._pending
        self.transport.write(_plain(error_answer(unknown(error.message, error.status))))
        self._close(linger=True)
        if pending is not None:
            # A handler was reading this body; it gets no more of it.
            pending.cancel()

    def _close(self, linger: bool = False) -> None:
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self._buffer = b""
        self._hold_reading(False)
        self.transport.unregisterProducer()
        if linger:
            self._linger = self._site.clock.callLater(LINGER, self._abort)
        # Closing while bytes arrive that nobody reads makes the system reset the connection, and the answer is lost.
        # TLS has its own way to close and goes on reading; a closing of the socket beneath would only break it.
        if linger and not speaks_tls(self.transport):
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def _abort(self) -> None:
        if self._connected:
            self.transport.abortConnection()

    def close_if_idle(self) -> None:
        """Ends the connection when there is no request on it."""
        if self._state is _State.HEAD and not self._buffer:
            self._close()

    def check(self, now: float) -> None:
        """Ends the connection when nothing has happened on it for too long."""
        if self._state is _State.HEAD:
            if self._buffer and now - self._since > HEAD_TIME:
                self._refuse(WireError(408, "slow_head", "The head of the request did not arrive in time."))
            elif now - self._active > IDLE:
                self._close()
        elif self._state is _State.BODY:
            if now - self._active > STALLED and not self._read_paused:
                self._refuse(WireError(408, "slow_body", "The body of the request did not arrive in time."))
        elif self._write_paused and now - self._active > STALLED:
            self._abort()


def speaks_tls(transport: Any) -> bool:
    """Whether the transport encrypts. (Twisted's TLS layer does not say so by an interface.)"""
    return hasattr(transport, "getPeerCertificate")


def _plain(answer: Answer) -> bytes:
    return answer_head(answer, keep_alive=False) + answer.body
