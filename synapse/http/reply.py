"""The head of an answer: its status, the headers that every answer has, and its own."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Final

from synapse.http.answers import JSON_TYPE, Answer
from synapse.http.wire import encode_head, status_line

# Client-server API, "Web Browser Clients": on every answer.
CORS: Final = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),
    ("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization, Date"),
)
_ALWAYS: Final = "\r\n".join(f"{name}: {value}" for name, value in (("Server", "Synapse"), *CORS))
_JSON: Final = f"{_ALWAYS}\r\nCache-Control: no-store\r\nContent-Type: {JSON_TYPE}\r\nX-Content-Type-Options: nosniff"

_date = (0, "")


def answer_head(answer: Answer, keep_alive: bool) -> bytes:
    """The head of an answer, to the empty line. Raises ValueError for a header that would break out of its line."""
    first = (
        f"{status_line(answer.code)}\r\n{_JSON if answer.content_type == JSON_TYPE else _ALWAYS}\r\n{_date_header()}"
    )
    headers = answer.headers
    if answer.content_type is not None and answer.content_type != JSON_TYPE:
        headers = (("Content-Type", answer.content_type), *headers)
    if answer.code != 204:
        headers = (*headers, ("Content-Length", str(answer.length)))
    if not keep_alive:
        headers = (*headers, ("Connection", "close"))
    return encode_head(first, headers)


def _date_header() -> str:
    """The header Date, which a server with a clock must send (RFC 9110, 6.6.1); made once a second."""
    global _date
    now = int(time.time())
    if _date[0] != now:
        _date = (now, f"Date: {formatdate(now, usegmt=True)}")
    return _date[1]
