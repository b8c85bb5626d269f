"""The body of a request that its handler reads as it arrives: bounded in memory, whoever is faster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred

from synapse.api.errors import MatrixError, too_large

# As much waits for the handler before the client is held up.
HIGH_WATER = 256 * 1024


class ChannelBody:
    """What a channel feeds and a handler reads (see `BodyStream`).

    :param length: as the head announced it; None when the body comes in chunks.
    :param hold: told True when the client has to wait, False when it may go on.
    :param wanted: called when the handler reads for the first time.
    """

    def __init__(self, length: int | None, hold: Callable[[bool], None], wanted: Callable[[], None]) -> None:
        self.length = length
        self._hold = hold
        self._wanted: Callable[[], None] | None = wanted
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._taken = 0
        self._limit: int | None = None
        self._held = False
        self._ended = False
        self._error: MatrixError | None = None
        self._reader: Deferred[bytes] | None = None

    # -- the handler's side -----------------------------------------------------------------------------------------

    def limit(self, length: int) -> None:
        """See `BodyStream.limit`."""
        self._limit = length
        if self.length is not None and self.length > length:
            raise self._refusal()

    async def read(self) -> bytes:
        """See `BodyStream.read`."""
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            wanted()
        if self._pieces:
            return self._next()
        if self._error is not None:
            raise self._error
        if self._ended:
            return b""
        self._reader = Deferred()
        try:
            return await self._reader
        finally:
            self._reader = None

    def _next(self) -> bytes:
        piece = self._pieces.popleft()
        self._buffered -= len(piece)
        if self._held and self._buffered < HIGH_WATER // 2:
            self._held = False
            self._hold(False)
        return piece

    def _refusal(self) -> MatrixError:
        return too_large(f"The body of the request may have at most {self._limit} bytes.")

    # -- the channel's side -----------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self._taken += len(data)
        if self._limit is not None and self._taken > self._limit and self._error is None:
            self._fail(self._refusal())
        if self._error is not None or not data:
            return
        if self._reader is not None and not self._reader.called:
            self._reader.callback(data)
            return
        self._pieces.append(data)
        self._buffered += len(data)
        if self._buffered > HIGH_WATER and not self._held:
            self._held = True
            self._hold(True)

    def end(self) -> None:
        """The body is complete."""
        self._ended = True
        if self._reader is not None and not self._reader.called:
            self._reader.callback(b"")

    def abandon(self) -> None:
        """Nobody reads any more: what is still to come is dropped."""
        self._pieces.clear()
        self._buffered = 0
        self._limit = None
        self._error = self._error or too_large("The body of the request is not read any further.")
        if self._held:
            self._held = False
            self._hold(False)

    def _fail(self, error: MatrixError) -> None:
        self._error = error
        self._pieces.clear()
        self._buffered = 0
        if self._held:
            self._held = False
            self._hold(False)
        if self._reader is not None and not self._reader.called:
            self._reader.errback(error)


class BytesBody:
    """A body that is there already, for whoever wants to read it as a stream."""

    def __init__(self, body: bytes) -> None:
        self.length: int | None = len(body)
        self._body = body

    def limit(self, length: int) -> None:
        """See `BodyStream.limit`."""
        if len(self._body) > length:
            raise too_large(f"The body of the request may have at most {length} bytes.")

    async def read(self) -> bytes:
        """See `BodyStream.read`."""
        body, self._body = self._body, b""
        return body
