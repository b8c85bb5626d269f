"""HTTP/1.1 on the wire (RFC 9112), as functions over bytes: no sockets, no clock.

Theory of operation. A message is a head, up to the first empty line, and a body whose framing the head announces: a
length, chunks, or (answers only) everything until the connection closes. Whoever reads from a socket collects bytes
until `end_of_head` finds the empty line, parses them with `parse_request` or `parse_answer`, and feeds what follows to
the body reader that comes with the head. A reader gives back the payload, and once the body is complete also the bytes
beyond it, which begin the next message.

Servers and proxies that disagree about where a message ends can be made to see different requests. Therefore whatever
could be read in two ways is refused: bare CR or LF, folded lines, white space around names, a length beside chunks,
repeated lengths or hosts, any other transfer coding. Everything is bounded: head, number of headers, chunk lines,
trailers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

MAX_HEAD: Final = 32 * 1024  # bytes, request line and headers together
MAX_HEADERS: Final = 128
_MAX_CHUNK_LINE: Final = 256
_MAX_TRAILERS: Final = 8 * 1024

_REQUEST_LINE: Final = re.compile(r"([A-Z]{1,16}) ([\x21-\x7e\x80-\xff]+) HTTP/(\d)\.(\d)")
_STATUS_LINE: Final = re.compile(r"HTTP/1\.([01]) (\d{3})(?: [^\x00-\x08\x0a-\x1f\x7f]*)?")
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)
_DIGITS: Final = re.compile(r"[0-9]{1,18}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?[ \t]*")
_UNSAFE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Headers of which there may be only one, because two would say two things.
_SINGLE: Final = frozenset(("content-length", "transfer-encoding", "host", "content-type"))

REASONS: Final = {
    100: "Continue",
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    206: "Partial Content",
    301: "Moved Permanently",
    302: "Found",
    304: "Not Modified",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    416: "Range Not Satisfiable",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


class WireError(Exception):
    """What arrived is not HTTP as it should be. `status` is what to answer, `reason` a word for the metrics."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


class LengthBody:
    """A body of so many bytes."""

    __slots__ = ("remaining",)

    def __init__(self, length: int) -> None:
        self.remaining = length

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """The payload in `data`, and what follows the body once it is complete."""
        if len(data) < self.remaining:
            self.remaining -= len(data)
            return data, None
        payload, rest = data[: self.remaining], data[self.remaining :]
        self.remaining = 0
        return payload, rest


class ChunkedBody:
    """A body in chunks. Trailers are read and dropped. Raises WireError when it is malformed."""

    __slots__ = ("_at", "_buffer", "_left", "_state", "_trailers")

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0  # what stands before this is done with: cutting it off at each chunk would cost far too much
        self._left = 0  # of the present chunk
        self._trailers = 0  # bytes of trailers so far
        # A function of the class, not a bound method: that would be a reference to itself.
        self._state: Callable[[ChunkedBody, list[bytes]], bool] = ChunkedBody._size

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        """The payload in `data`, and what follows the body once it is complete."""
        self._buffer = self._buffer[self._at :] + data
        self._at = 0
        payload: list[bytes] = []
        while self._state(self, payload):
            if self._state is ChunkedBody._done:
                return b"".join(payload), self._buffer[self._at :]
        return b"".join(payload), None

    def _line(self, limit: int) -> bytes | None:
        end = self._buffer.find(b"\r\n", self._at, self._at + limit + 2)
        if end < 0:
            if len(self._buffer) - self._at > limit:
                raise WireError(400, "chunk", "A line between the chunks of the body is too long.")
            return None
        line, self._at = self._buffer[self._at : end], end + 2
        return line

    # Each state does what the bytes at hand allow, and says whether it did anything.

    def _size(self, _payload: list[bytes]) -> bool:
        line = self._line(_MAX_CHUNK_LINE)
        if line is None:
            return False
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise WireError(400, "chunk", "The size of a chunk of the body is not a hexadecimal number.")
        self._left = int(match[1], 16)
        self._state = ChunkedBody._data if self._left else ChunkedBody._trailer
        return True

    def _data(self, payload: list[bytes]) -> bool:
        taken = self._buffer[self._at : self._at + self._left]
        payload.append(taken)
        self._at += len(taken)
        self._left -= len(taken)
        if self._left:
            return False
        self._state = ChunkedBody._end
        return True

    def _end(self, _payload: list[bytes]) -> bool:
        if len(self._buffer) - self._at < 2:
            return False
        if not self._buffer.startswith(b"\r\n", self._at):
            raise WireError(400, "chunk", "A chunk of the body is longer than its size says.")
        self._at += 2
        self._state = ChunkedBody._size
        return True

    def _trailer(self, _payload: list[bytes]) -> bool:
        line = self._line(_MAX_TRAILERS)
        if line is None:
            return False
        self._trailers += len(line) + 2
        if self._trailers > _MAX_TRAILERS:
            raise WireError(400, "trailers", "The trailers of the body are too long.")
        if not line:
            self._state = ChunkedBody._done
        return True

    def _done(self, _payload: list[bytes]) -> bool:
        return False


class EndlessBody:
    """A body that ends with the connection; answers only."""

    __slots__ = ()

    def feed(self, data: bytes) -> tuple[bytes, bytes | None]:
        return data, None


Body = LengthBody | ChunkedBody | EndlessBody


class RequestHead:
    """The head of a request. Header names are in lower case; values of repeated headers are joined with ", ".

    `target` is as the client sent it, without scheme and host; `length` is None for a chunked body.
    """

    __slots__ = ("expects_continue", "headers", "keep_alive", "length", "method", "target")

    def __init__(self, method: str, target: str, minor: int, headers: dict[str, str]) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.length = _request_length(headers, minor)
        connection = headers.get("connection")
        if minor == 0:
            # A client of 1.0 would have to ask for it, and proxies pass that header on without understanding it.
            self.keep_alive = False
        else:
            self.keep_alive = connection is None or "close" not in _tokens(connection)
        self.expects_continue = minor > 0 and headers.get("expect", "").lower() == "100-continue"

    def body(self) -> LengthBody | ChunkedBody:
        return ChunkedBody() if self.length is None else LengthBody(self.length)


class AnswerHead:
    """The head of an answer, with the body that it announces."""

    __slots__ = ("body", "headers", "keep_alive", "status")

    def __init__(self, status: int, headers: dict[str, str], body: Body, keep_alive: bool) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive


def end_of_head(buffer: bytes | bytearray, searched: int = 0) -> int:
    """Where the body begins in `buffer`, or -1 as long as the head is incomplete.

    `searched` bytes were looked at before and hold no end. Raises WireError when the head grows too long.
    """
    end = buffer.find(b"\r\n\r\n", max(0, searched - 3))
    if end > MAX_HEAD or (end < 0 and len(buffer) > MAX_HEAD):
        raise WireError(431, "head_too_large", f"The head of a request may have {MAX_HEAD} bytes.")
    return end if end < 0 else end + 4


def parse_request(head: bytes) -> RequestHead:
    """The head of a request, from its first byte to its empty line. Raises WireError."""
    lines = head.decode("latin-1").split("\r\n")
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise WireError(400, "request_line", "The first line is not that of an HTTP request.")
    method, target, major, minor = match.groups()
    if major != "1":
        raise WireError(505, "version", "This server speaks HTTP/1.1.")
    headers = _headers(lines)
    if minor != "0" and "host" not in headers:
        raise WireError(400, "host", "A request must have the header Host.")
    return RequestHead(method, _origin_form(target), int(minor), headers)


def parse_answer(head: bytes, *, to_head: bool = False) -> AnswerHead:
    """The head of an answer; `to_head`: it is one to a HEAD request, and has no body. Raises WireError."""
    lines = head.decode("latin-1").split("\r\n")
    match = _STATUS_LINE.fullmatch(lines[0])
    if match is None:
        raise WireError(502, "status_line", "The first line is not that of an HTTP answer.")
    status, headers = int(match[2]), _headers(lines)
    closes = match[1] == "0" or "close" in _tokens(headers.get("connection", ""))
    if to_head or status in (204, 304) or status < 200:
        return AnswerHead(status, headers, LengthBody(0), not closes)
    if "transfer-encoding" in headers or "content-length" in headers:
        length = _request_length(headers, 1)
        return AnswerHead(status, headers, ChunkedBody() if length is None else LengthBody(length), not closes)
    return AnswerHead(status, headers, EndlessBody(), False)


def encode_head(first_line: str, headers: Iterable[tuple[str, str]]) -> bytes:
    """The bytes of a head. Raises ValueError for a header that would break out of its line."""
    parts = [first_line]
    for name, value in headers:
        if _UNSAFE.search(value) or _UNSAFE.search(name):
            raise ValueError(f"the header {name!r} has a control character in it")
        parts.append(f"{name}: {value}")
    parts.append("\r\n")
    return "\r\n".join(parts).encode("latin-1")


def status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}"


def _headers(lines: list[str]) -> dict[str, str]:
    # The last two are empty: the head ends with an empty line.
    if len(lines) - 3 > MAX_HEADERS:
        raise WireError(431, "headers", f"A request may have {MAX_HEADERS} headers.")
    found: dict[str, str] = {}
    for line in lines[1:-2]:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise WireError(400, "header", "A header is malformed.")
        name = match[1].lower()
        if name not in found:
            found[name] = match[2]
        elif name in _SINGLE:
            raise WireError(400, "repeated", f"The header {name} is there twice.")
        else:
            found[name] += ", " + match[2]
    return found


def _request_length(headers: dict[str, str], minor: int) -> int | None:
    """How long the body is; None when it comes in chunks."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is None:
        if length is None:
            return 0
        if not _DIGITS.fullmatch(length):
            raise WireError(400, "length", "Content-Length is not a number.")
        return int(length)
    if length is not None or minor == 0:
        raise WireError(400, "length", "Transfer-Encoding must not come with Content-Length, nor with HTTP/1.0.")
    if coding.lower() != "chunked":
        raise WireError(501, "coding", "The only transfer coding that this server knows is chunked.")
    return None


def _tokens(value: str) -> list[str]:
    return [token.strip().lower() for token in value.split(",")]


def _origin_form(target: str) -> str:
    if target[0] == "/":
        return target
    path = _ABSOLUTE.sub("", target, count=1)
    return path if path.startswith("/") else "/" + path if path.startswith("?") or not path else path
