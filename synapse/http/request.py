"""A request as handlers see it: what was asked for, by whom, with what.

Nothing here knows sockets; `RawRequest` is what the channel (or a test) makes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload
from urllib.parse import parse_qs

from synapse.api.errors import invalid_param, missing_param
from synapse.api.standing import GOOD, Standing
from synapse.http import body as json_body
from synapse.http.upload import BytesBody

if TYPE_CHECKING:
    from synapse.api.routes import Endpoint

T = TypeVar("T")

MAX_QUERY_FIELDS = 200
_MAX_DIGITS = 18  # such numbers fit into the database's


@dataclass(frozen=True, slots=True)
class Requester:
    """Who sends a request, as its access token says."""

    user_id: str
    device_id: str | None = None
    token_id: int | None = None
    is_guest: bool = False
    is_admin: bool = False
    app_service: str | None = None  # the id of the application service that acts for the user
    rate_limited: bool = True
    standing: Standing = GOOD
    via_oauth: bool = False  # whether the token is the OAuth 2.0 authorization server's

    def __str__(self) -> str:
        return self.user_id


class BodyStream(Protocol):
    """A body that is read as it arrives."""

    length: int | None  # as announced; None when it comes in chunks

    async def read(self) -> bytes:
        """The next piece, b"" at the end. Raises MatrixError (M_TOO_LARGE) beyond the limit given with `limit`."""

    def limit(self, length: int) -> None:
        """Sets the most bytes to accept. Raises MatrixError (M_TOO_LARGE) at once when more were announced."""


class RawRequest:
    """A request as it arrived. `target` is path and query, still encoded; header names are in lower case."""

    __slots__ = ("body", "client_ip", "compress", "headers", "method", "secure", "stream", "target")

    def __init__(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        *,
        client_ip: str = "127.0.0.1",
        stream: BodyStream | None = None,
        compress: bool = False,
        secure: bool = False,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers if headers is not None else {}
        self.body = body
        self.client_ip = client_ip
        self.stream = stream
        self.compress = compress  # whether the listener may compress the answer
        self.secure = secure

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


class Request:
    """A request on its way to a handler. `name` is what metrics and log lines call it: the endpoint's name; `params`
    are those of its path, decoded."""

    __slots__ = ("_query", "endpoint", "log_level", "name", "params", "raw", "requester", "server", "token_key")

    def __init__(
        self,
        raw: RawRequest,
        endpoint: Endpoint | None = None,
        name: str = "",
        params: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.raw = raw
        self.endpoint = endpoint
        self.params = params
        self.name = name or (endpoint.name if endpoint is not None else "unknown")
        self.requester: Requester | None = None
        self.server: str | None = None  # the other server that signed it
        self.token_key = ""  # by which the authenticator knows the token again
        self.log_level = logging.INFO  # of the line that says how it was answered
        self._query: dict[str, list[str]] | None = None

    @property
    def method(self) -> str:
        return self.raw.method

    @property
    def path(self) -> str:
        """The path as it arrived, percent-encoded."""
        return self.raw.path

    @property
    def headers(self) -> dict[str, str]:
        return self.raw.headers

    @property
    def body(self) -> bytes:
        return self.raw.body

    @property
    def client_ip(self) -> str:
        return self.raw.client_ip

    @property
    def user_agent(self) -> str:
        return self.raw.headers.get("user-agent", "")

    @property
    def user(self) -> Requester:
        """The requester of an endpoint that wants an access token. (Elsewhere, look at `requester`.)"""
        if self.requester is None:
            raise RuntimeError(f"the endpoint {self.name} has no requester")
        return self.requester

    @property
    def origin(self) -> str:
        """The server that signed the request, of an endpoint that wants that."""
        if self.server is None:
            raise RuntimeError(f"the endpoint {self.name} is not asked by servers")
        return self.server

    @property
    def stream(self) -> BodyStream:
        """The body of an endpoint that reads it as it comes."""
        if self.raw.stream is None:
            # There was none, or it came at once.
            self.raw.stream = BytesBody(self.raw.body)
        return self.raw.stream

    # -- the body ---------------------------------------------------------------------------------------------------

    def json_object(self, *, allow_empty: bool = False) -> dict[str, Any]:
        """The body's JSON object; {} for no body where that is allowed. Raises MatrixError."""
        if allow_empty and not self.raw.body:
            return {}
        return json_body.decode_object(self.raw.body)

    def body_as(self, kind: type[T], *, allow_empty: bool = False) -> T:
        """The body as a msgspec Struct; of no body, where that is allowed, the struct of {}. Raises MatrixError."""
        if allow_empty and not self.raw.body:
            return json_body.convert({}, kind)
        return json_body.decode_as(self.raw.body, kind)

    # -- the query --------------------------------------------------------------------------------------------------

    @property
    def query(self) -> dict[str, list[str]]:
        """Every value of every parameter. Raises MatrixError (M_INVALID_PARAM) when it is not UTF-8."""
        if self._query is None:
            self._query = parse_query(self.raw.target.partition("?")[2])
        return self._query

    @overload
    def arg(self, name: str) -> str | None: ...

    @overload
    def arg(self, name: str, default: str) -> str: ...

    def arg(self, name: str, default: str | None = None) -> str | None:
        """The first value of a parameter."""
        values = self.query.get(name)
        return values[0] if values else default

    def args(self, name: str) -> list[str]:
        """All values of a parameter that may be repeated."""
        return self.query.get(name, [])

    def required_arg(self, name: str) -> str:
        """Raises MatrixError (M_MISSING_PARAM) when it is not there."""
        value = self.arg(name)
        if value is None:
            raise missing_param(name)
        return value

    def choice_arg(self, name: str, choices: tuple[str, ...], default: str | None = None) -> str:
        """One of `choices`. Raises MatrixError (M_INVALID_PARAM; M_MISSING_PARAM where there is no default)."""
        value = self.required_arg(name) if default is None else self.arg(name, default)
        if value not in choices:
            raise invalid_param(f"The parameter '{name}' must be one of {', '.join(choices)}.")
        return value

    @overload
    def int_arg(self, name: str, default: int, minimum: int = ..., maximum: int | None = ...) -> int: ...

    @overload
    def int_arg(self, name: str, default: None = ..., minimum: int = ..., maximum: int | None = ...) -> int | None: ...

    def int_arg(
        self, name: str, default: int | None = None, minimum: int = 0, maximum: int | None = None
    ) -> int | None:
        """A whole number of at least `minimum`; more than `maximum` counts as `maximum`.

        Raises MatrixError (M_INVALID_PARAM).
        """
        text = self.arg(name)
        if text is None:
            return default
        if not text.lstrip("-").isascii() or not text.lstrip("-").isdigit():
            raise invalid_param(f"The parameter '{name}' must be a whole number.")
        if len(text) > _MAX_DIGITS:
            raise invalid_param(f"The parameter '{name}' may have {_MAX_DIGITS} digits at most.")
        value = int(text) if text.count("-") <= 1 else minimum - 1
        if value < minimum:
            raise invalid_param(f"The parameter '{name}' must be at least {minimum}.")
        return value if maximum is None else min(value, maximum)

    def bool_arg(self, name: str, default: bool = False) -> bool:
        """`true` or `false`. Raises MatrixError (M_INVALID_PARAM)."""
        text = self.arg(name)
        if text is None:
            return default
        if text not in ("true", "false"):
            raise invalid_param(f"The parameter '{name}' must be true or false.")
        return text == "true"


Handler = Callable[..., Coroutine[Any, Any, Any]]


def parse_query(query: str) -> dict[str, list[str]]:
    """The parameters of a query string. Raises MatrixError (M_INVALID_PARAM)."""
    if not query:
        return {}
    try:
        # A client may send UTF-8 without encoding it; on the wire it was bytes.
        found = parse_qs(
            query.encode("latin-1").decode("utf-8"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MAX_QUERY_FIELDS,
        )
    except UnicodeDecodeError:
        raise invalid_param("The query of the request is not valid UTF-8.") from None
    except ValueError:
        raise invalid_param(f"The query of the request has more than {MAX_QUERY_FIELDS} parameters.") from None
    if "\0" in query or "%00" in query:
        raise invalid_param("The query of the request must not contain the character NUL.")
    return found
