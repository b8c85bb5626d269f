"""The errors that the Matrix APIs answer with, as values: an HTTP status, an errcode and a sentence.

Everything that goes wrong because of what somebody asked for is raised as a `MatrixError`; the HTTP layer turns it into
an answer, and calls between processes carry it as it is. It is not for faults of our own: those stay ordinary
exceptions, are logged with their traceback, and become a 500 M_UNKNOWN.

The sentence is for the person at the other end: it says what was wrong and, where that helps, what would be right.
It never contains a secret, SQL or a path of the server.

Error codes: client-server API, "Standard error response"; server-server, application-service and key APIs add theirs.
"""

from __future__ import annotations

from typing import Any, Final

_MAX_REASON = 500  # characters


class Codes:
    """The errcodes of the specification (and of sliding sync), by their name without `M_`."""

    APPSERVICE_LOGIN_UNSUPPORTED: Final = "M_APPSERVICE_LOGIN_UNSUPPORTED"
    BAD_ALIAS: Final = "M_BAD_ALIAS"
    BAD_JSON: Final = "M_BAD_JSON"
    BAD_STATE: Final = "M_BAD_STATE"
    BAD_STATUS: Final = "M_BAD_STATUS"
    CANNOT_LEAVE_SERVER_NOTICE_ROOM: Final = "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
    CANNOT_OVERWRITE_MEDIA: Final = "M_CANNOT_OVERWRITE_MEDIA"
    CAPTCHA_INVALID: Final = "M_CAPTCHA_INVALID"
    CAPTCHA_NEEDED: Final = "M_CAPTCHA_NEEDED"
    CONNECTION_FAILED: Final = "M_CONNECTION_FAILED"
    CONNECTION_TIMEOUT: Final = "M_CONNECTION_TIMEOUT"
    CONSENT_NOT_GIVEN: Final = "M_CONSENT_NOT_GIVEN"
    DESTINATION_REJECTED: Final = "M_DESTINATION_REJECTED"
    DUPLICATE_ANNOTATION: Final = "M_DUPLICATE_ANNOTATION"
    EXCLUSIVE: Final = "M_EXCLUSIVE"
    FORBIDDEN: Final = "M_FORBIDDEN"
    GUEST_ACCESS_FORBIDDEN: Final = "M_GUEST_ACCESS_FORBIDDEN"
    INCOMPATIBLE_ROOM_VERSION: Final = "M_INCOMPATIBLE_ROOM_VERSION"
    INVALID_PARAM: Final = "M_INVALID_PARAM"
    INVALID_ROOM_STATE: Final = "M_INVALID_ROOM_STATE"
    INVALID_SIGNATURE: Final = "M_INVALID_SIGNATURE"
    INVALID_USERNAME: Final = "M_INVALID_USERNAME"
    INVITE_BLOCKED: Final = "M_INVITE_BLOCKED"
    KEY_TOO_LARGE: Final = "M_KEY_TOO_LARGE"
    LIMIT_EXCEEDED: Final = "M_LIMIT_EXCEEDED"
    MISSING_PARAM: Final = "M_MISSING_PARAM"
    MISSING_TOKEN: Final = "M_MISSING_TOKEN"
    NOT_FOUND: Final = "M_NOT_FOUND"
    NOT_JSON: Final = "M_NOT_JSON"
    NOT_YET_UPLOADED: Final = "M_NOT_YET_UPLOADED"
    # Of a password policy: kinds of M_WEAK_PASSWORD, which the specification does not have.
    PASSWORD_NO_DIGIT: Final = "M_PASSWORD_NO_DIGIT"
    PASSWORD_NO_LOWERCASE: Final = "M_PASSWORD_NO_LOWERCASE"
    PASSWORD_NO_SYMBOL: Final = "M_PASSWORD_NO_SYMBOL"
    PASSWORD_NO_UPPERCASE: Final = "M_PASSWORD_NO_UPPERCASE"
    PASSWORD_TOO_SHORT: Final = "M_PASSWORD_TOO_SHORT"
    PROFILE_TOO_LARGE: Final = "M_PROFILE_TOO_LARGE"
    RESOURCE_LIMIT_EXCEEDED: Final = "M_RESOURCE_LIMIT_EXCEEDED"
    ROOM_IN_USE: Final = "M_ROOM_IN_USE"
    SERVER_NOT_TRUSTED: Final = "M_SERVER_NOT_TRUSTED"
    SESSION_EXPIRED: Final = "M_SESSION_EXPIRED"
    SESSION_NOT_VALIDATED: Final = "M_SESSION_NOT_VALIDATED"
    TERMS_NOT_SIGNED: Final = "M_TERMS_NOT_SIGNED"
    THREEPID_AUTH_FAILED: Final = "M_THREEPID_AUTH_FAILED"
    THREEPID_DENIED: Final = "M_THREEPID_DENIED"
    THREEPID_IN_USE: Final = "M_THREEPID_IN_USE"
    THREEPID_MEDIUM_NOT_SUPPORTED: Final = "M_THREEPID_MEDIUM_NOT_SUPPORTED"
    THREEPID_NOT_FOUND: Final = "M_THREEPID_NOT_FOUND"
    TOKEN_INCORRECT: Final = "M_TOKEN_INCORRECT"
    TOO_LARGE: Final = "M_TOO_LARGE"
    UNABLE_TO_AUTHORISE_JOIN: Final = "M_UNABLE_TO_AUTHORISE_JOIN"
    UNABLE_TO_GRANT_JOIN: Final = "M_UNABLE_TO_GRANT_JOIN"
    UNAUTHORIZED: Final = "M_UNAUTHORIZED"
    UNKNOWN: Final = "M_UNKNOWN"
    UNKNOWN_DEVICE: Final = "M_UNKNOWN_DEVICE"
    UNKNOWN_POS: Final = "M_UNKNOWN_POS"  # sliding sync: the position is not known any more, start anew
    UNKNOWN_TOKEN: Final = "M_UNKNOWN_TOKEN"
    UNRECOGNIZED: Final = "M_UNRECOGNIZED"
    UNSUPPORTED_ROOM_VERSION: Final = "M_UNSUPPORTED_ROOM_VERSION"
    URL_NOT_SET: Final = "M_URL_NOT_SET"
    USER_DEACTIVATED: Final = "M_USER_DEACTIVATED"
    USER_IN_USE: Final = "M_USER_IN_USE"
    USER_LIMIT_EXCEEDED: Final = "M_USER_LIMIT_EXCEEDED"
    USER_LOCKED: Final = "M_USER_LOCKED"
    USER_SUSPENDED: Final = "M_USER_SUSPENDED"
    WEAK_PASSWORD: Final = "M_WEAK_PASSWORD"
    WRONG_ROOM_KEYS_VERSION: Final = "M_WRONG_ROOM_KEYS_VERSION"


class MatrixError(Exception):
    """An answer that says no.

    `code` is the HTTP status, `errcode` one of `Codes`, `message` the sentence in `error`, and `fields` further keys
    of the JSON body (`retry_after_ms`, `soft_logout`, `room_version`…). An answer with `retry_after_ms` also gets the
    header `Retry-After`; that is the HTTP layer's doing.
    """

    def __init__(self, code: int, errcode: str, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.code = code
        self.errcode = errcode
        self.message = message
        self.fields: dict[str, Any] = fields

    def body(self) -> dict[str, Any]:
        """The JSON body of the answer, a new dict each time."""
        return {**self.fields, "errcode": self.errcode, "error": self.message}

    def __str__(self) -> str:
        return f"{self.code} {self.errcode}: {self.message}"

    def __repr__(self) -> str:
        extra = "".join(f", {name}={value!r}" for name, value in self.fields.items())
        return f"{type(self).__name__}({self.code}, {self.errcode!r}, {self.message!r}{extra})"

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call __init__ with the message alone; copies and pickles must keep all of it.
        return _rebuild, (type(self), self.code, self.errcode, self.message, self.fields)


def _rebuild(kind: type[MatrixError], code: int, errcode: str, message: str, fields: dict[str, Any]) -> MatrixError:
    error = kind.__new__(kind)
    MatrixError.__init__(error, code, errcode, message, **fields)
    return error


class AuthError(MatrixError):
    """An event, or the request for one, that the room's authorisation rules do not allow: 403 M_FORBIDDEN.

    The sentence may quote the event, which may say anything, and is stored with one that is rejected: it is cut to what
    a database takes and a person reads.
    """

    def __init__(self, message: str, *, errcode: str = Codes.FORBIDDEN, **fields: Any) -> None:
        super().__init__(403, errcode, message.replace("\x00", "")[:_MAX_REASON], **fields)


class ImpossibleError(AuthError):
    """An event that the authorisation rules allow nobody in that room, however powerful: 400 M_INVALID_PARAM."""

    def __init__(self, message: str) -> None:
        MatrixError.__init__(self, 400, Codes.INVALID_PARAM, message)


def forbidden(message: str, **fields: Any) -> MatrixError:
    return MatrixError(403, Codes.FORBIDDEN, message, **fields)


def not_found(message: str = "Nothing was found here.") -> MatrixError:
    return MatrixError(404, Codes.NOT_FOUND, message)


def not_json(message: str = "The body of the request is not valid JSON.") -> MatrixError:
    return MatrixError(400, Codes.NOT_JSON, message)


def bad_json(message: str) -> MatrixError:
    return MatrixError(400, Codes.BAD_JSON, message)


def missing_param(name: str) -> MatrixError:
    """`name` is the missing parameter, which the sentence names."""
    return MatrixError(400, Codes.MISSING_PARAM, f"The parameter '{name}' is missing.")


def invalid_param(message: str) -> MatrixError:
    return MatrixError(400, Codes.INVALID_PARAM, message)


def bad_state(message: str) -> MatrixError:
    return MatrixError(400, Codes.BAD_STATE, message)


def too_large(message: str) -> MatrixError:
    return MatrixError(413, Codes.TOO_LARGE, message)


def unknown(message: str, code: int = 400) -> MatrixError:
    return MatrixError(code, Codes.UNKNOWN, message)


def unrecognized(message: str = "The server does not know this endpoint.", code: int = 404) -> MatrixError:
    """404 for an endpoint that does not exist, 405 for a method that an existing endpoint does not have."""
    return MatrixError(code, Codes.UNRECOGNIZED, message)


def missing_token(message: str = "This request needs an access token.") -> MatrixError:
    return MatrixError(401, Codes.MISSING_TOKEN, message)


def unknown_token(soft_logout: bool = False, message: str | None = None) -> MatrixError:
    """The access token means nothing (any more); `soft_logout` says that the device itself still exists."""
    if message is None:
        message = "The access token has expired." if soft_logout else "The access token is not known."
    return MatrixError(401, Codes.UNKNOWN_TOKEN, message, soft_logout=soft_logout)


def unauthorized(message: str) -> MatrixError:
    """A request between servers (or processes) that is not, or not properly, signed."""
    return MatrixError(401, Codes.UNAUTHORIZED, message)


def limit_exceeded(retry_after_ms: int, message: str = "Too many requests.") -> MatrixError:
    """`retry_after_ms`: milliseconds until the same request would be allowed."""
    return MatrixError(429, Codes.LIMIT_EXCEEDED, message, retry_after_ms=retry_after_ms)


def guest_access_forbidden(message: str = "Guests may not do this. Please register first.") -> MatrixError:
    return MatrixError(403, Codes.GUEST_ACCESS_FORBIDDEN, message)


def exclusive(message: str) -> MatrixError:
    return MatrixError(400, Codes.EXCLUSIVE, message)


def unsupported_room_version(version: str) -> MatrixError:
    return MatrixError(
        400, Codes.UNSUPPORTED_ROOM_VERSION, f"This server does not support the room version '{version}'."
    )


def incompatible_room_version(version: str) -> MatrixError:
    """The room exists in a version that the asking server did not list, or that we do not know."""
    return MatrixError(
        400,
        Codes.INCOMPATIBLE_ROOM_VERSION,
        f"The room has version '{version}', which is not supported by the server that asked.",
        room_version=version,
    )
