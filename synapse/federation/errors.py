"""What may come of asking another server, when it is not an answer: it is away, it says no, or it speaks nonsense.

`matrix_error` is what a client is told of it. Nothing here asks anybody.
"""

from __future__ import annotations

from typing import Any, Final

from synapse.api.errors import Codes, MatrixError, forbidden, limit_exceeded

MAX_SENTENCE: Final = 1024  # characters of another server's error that are handed on
_MAX_ERRCODE: Final = 100
_MAX_RETRY_MS: Final = 3_600_000
OF_THE_TOKEN: Final = frozenset({Codes.UNKNOWN_TOKEN, Codes.MISSING_TOKEN, Codes.USER_DEACTIVATED, Codes.USER_LOCKED})
"""Errors that a client would take for its own server's, and log the user out."""
_NOT_OF_OTHERS: Final = OF_THE_TOKEN | {Codes.UNRECOGNIZED}
"""The same, or take it that its own server lacks an endpoint."""


class FederationError(Exception):
    """A request to the server `server` that came to nothing. The text is a sentence for a person."""

    def __init__(self, server: str, message: str) -> None:
        super().__init__(message)
        self.server = server
        self.message = message


class Unreachable(FederationError):
    """No answer: the server is away, backs off, may not be asked, or something in front of it says that it is away.

    `late`: the request was sent, and there was no answer in time. `asked`: whether anything was tried at all. The
    request may have had its effect where it was.
    """

    def __init__(self, server: str, message: str, *, late: bool = False, asked: bool = True) -> None:
        super().__init__(server, message)
        self.late = late
        self.asked = asked


class Denied(Unreachable):
    """The administrator does not want this server to have to do with that one."""

    def __init__(self, server: str) -> None:
        super().__init__(server, f"This server does not federate with {server}.", asked=False)


class Refused(FederationError):
    """The server says no: `code` is the HTTP status, `errcode` the error code (M_UNKNOWN where it gives none that is
    one), `message` its sentence, `fields` whatever else its answer has (`room_version`, `retry_after_ms`)."""

    def __init__(self, server: str, code: int, errcode: str, message: str, fields: dict[str, Any]) -> None:
        super().__init__(server, message)
        self.code = code
        self.errcode = errcode
        self.fields = fields

    @property
    def is_unrecognized(self) -> bool:
        """Whether the server does not know the endpoint at all, so that an older one may serve."""
        return self.code in (404, 405) and self.errcode in (Codes.UNRECOGNIZED, Codes.UNKNOWN)

    @property
    def retry_after_ms(self) -> int:
        """How long it asks to wait, for an hour at most; 0 where it says nothing."""
        found = self.fields.get("retry_after_ms")
        return min(max(found, 0), _MAX_RETRY_MS) if type(found) is int else 0


class BadAnswer(FederationError):
    """An answer that is not as the specification has it, or too large."""


def refused(server: str, code: int, body: dict[str, Any]) -> Refused:
    """The error that the server has answered with. `body` is its JSON object, or {}."""
    errcode, error = body.get("errcode"), body.get("error")
    known = isinstance(errcode, str) and errcode.startswith("M_") and len(errcode) <= _MAX_ERRCODE and errcode.isascii()
    sentence = error[:MAX_SENTENCE] if isinstance(error, str) and error else f"{server} refuses, with status {code}."
    fields = {name: value for name, value in body.items() if name not in ("errcode", "error")}
    return Refused(server, code, str(errcode) if known else Codes.UNKNOWN, sentence, fields)


def matrix_error(error: FederationError) -> MatrixError:
    """What to tell a client whose wish came to nothing.

    A refusal comes in the other server's words, as far as they cannot be mistaken for this server's own; the rest is
    502 M_CONNECTION_FAILED or 504 M_CONNECTION_TIMEOUT, and 403 M_FORBIDDEN for servers that are not to be asked.
    """
    if isinstance(error, Denied):
        return forbidden(error.message)
    if isinstance(error, Unreachable):
        code = Codes.CONNECTION_TIMEOUT if error.late else Codes.CONNECTION_FAILED
        return MatrixError(504 if error.late else 502, code, error.message)
    if not isinstance(error, Refused):
        return MatrixError(502, Codes.CONNECTION_FAILED, error.message)
    if error.code == 429:
        return limit_exceeded(error.retry_after_ms or 1000, error.message)
    if error.code not in (400, 403, 404, 413) or error.errcode in _NOT_OF_OTHERS:
        errcode = Codes.UNKNOWN if error.errcode in _NOT_OF_OTHERS else error.errcode
        return MatrixError(502, errcode, f"{error.server} answers: {error.message}")
    version = error.fields.get("room_version")
    fields = {"room_version": version[:32]} if isinstance(version, str) else {}
    return MatrixError(error.code, error.errcode, error.message, **fields)
