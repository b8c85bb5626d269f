"""Leads a request to its handler: who asks, may they, how often; and makes an answer of whatever comes of it.

Knows no sockets: `Router.handle` takes a `RawRequest` and returns an `Answer`, always. Errors that somebody asked for
come back in the spec's words; faults of our own become a 500 that names the request, and their traceback is logged.
"""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from time import monotonic
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import CancelledError

from synapse.api.errors import MatrixError, forbidden, guest_access_forbidden, missing_token, unknown
from synapse.api.routes import DEFAULT_MAX_BODY, Auth, Endpoint, find
from synapse.http.answers import Answer, FileAnswer, as_answer, error_answer
from synapse.http.costs import measured
from synapse.http.drain import Drain
from synapse.http.record import Recorder
from synapse.http.request import Handler, RawRequest, Request, Requester
from synapse.http.routing import Match, Prefix, RouteTree
from synapse.logging.context import RequestContext, current_request, new_request_id

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_MIN_COMPRESSED = 1024  # bytes; less is not worth the header
_COMPRESSION_LEVEL = 3
# Beyond this the reactor would be held up; nginx in front can do it better.
_MAX_COMPRESSED = 2 * 1024 * 1024
LEFT = 499  # what a request counts as whose client did not wait for the answer


class Authenticator(Protocol):
    """Knows access tokens."""

    async def authenticate(self, token: str, request: Request) -> Requester:
        """Whose token it is. Raises MatrixError (M_UNKNOWN_TOKEN, M_USER_LOCKED…)."""

    def app_service(self, token: str) -> Requester | None:
        """The own user of the application service whose token it is."""

    async def while_valid(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work` for a request that was authenticated; raises what `authenticate` would, as soon as it
        would, and ends `work` then."""


class ServerAuthenticator(Protocol):
    """Knows the signatures of other servers."""

    async def origin_of(self, request: Request) -> str:
        """The server that has signed the request for this one. Raises MatrixError (401, 403)."""

    def turn(self, origin: str) -> AbstractAsyncContextManager[None]:
        """Waits until a request of that server may be worked on, which happens within. Raises MatrixError (429)."""


class RateLimiter(Protocol):
    """Counts what users and addresses do."""

    def check(self, limit: str, key: str) -> None:
        """Counts one action of `key`. Raises MatrixError (M_LIMIT_EXCEEDED)."""


def serves(*names: str) -> Callable[[F], F]:
    """Binds a method to the endpoints of these names in the route table."""

    def bind(method: F) -> F:
        method.__serves__ = names  # type: ignore[attr-defined]  # functions take attributes, their type does not say so
        return method

    return bind


def served_by(kind: type) -> Iterable[tuple[str, str]]:
    """The endpoint names that a class's methods are bound to, each with the method's name."""
    for attribute in dir(kind):
        for name in getattr(getattr(kind, attribute, None), "__serves__", ()):
            yield name, attribute


class Router:
    """What one process serves, over whichever listener.

    :param drain: is told of every request; `drain.leaving` ends connections.
    :param authenticator: needed for every endpoint that wants to know who asks.
    :param ratelimiter: None where nothing is limited.
    :param servers: needed for every endpoint that other servers sign their requests to.
    """

    def __init__(
        self,
        drain: Drain,
        authenticator: Authenticator | None = None,
        ratelimiter: RateLimiter | None = None,
        servers: ServerAuthenticator | None = None,
    ) -> None:
        self.drain = drain
        self.routes = RouteTree()
        self._authenticator = authenticator
        self._ratelimiter = ratelimiter
        self._servers = servers
        self._translations: list[tuple[type[Exception], Callable[[Any], MatrixError]]] = []
        self._recorder = Recorder()

    # -- mounting ---------------------------------------------------------------------------------------------------

    def mount(self, endpoint: Endpoint | str, handler: Handler) -> None:
        """Has `handler(request, **parameters)` serve an endpoint of the table."""
        endpoint = find(endpoint) if isinstance(endpoint, str) else endpoint
        if endpoint.auth is Auth.SECRET:
            raise ValueError(f"the endpoint {endpoint.name} needs {endpoint.auth.value}, which no router here checks")
        self.routes.add(endpoint, handler)

    def mount_object(self, owner: object, only: Collection[str] | None = None) -> None:
        """Mounts what the object's methods serve; of several endpoints those whose names are in `only`."""
        for name, method in served_by(type(owner)):
            if only is None or name in only:
                self.mount(name, getattr(owner, method))

    def mount_prefix(
        self, path: str, resource: str, name: str, handler: Handler, max_body: int = DEFAULT_MAX_BODY
    ) -> None:
        """Has `handler(request)` serve everything below a path. It checks who asks, and may set `request.name`."""
        self.routes.add_prefix(Prefix(path, resource, name, handler, max_body))

    def mount_fallback(self, handler: Handler, resource: str = "client", max_body: int = DEFAULT_MAX_BODY) -> None:
        """Has `handler(request)` take whatever nothing else serves, other methods of known paths excepted."""
        self.routes.fallback = Prefix("/", resource, "fallback", handler, max_body)

    def translate(self, kind: type[Exception], to: Callable[[Any], MatrixError]) -> None:
        """Answers exceptions of this kind as errors of the spec rather than as faults of our own."""
        self._translations.append((kind, to))

    # -- serving ----------------------------------------------------------------------------------------------------

    def match(self, method: str, path: str, resources: Collection[str] | None = None) -> Match:
        """Where a request will lead, once it is there completely."""
        return self.routes.match(method, path, resources)

    async def handle(self, raw: RawRequest, match: Match | None = None) -> Answer:
        """The answer to a request. Raises nothing but CancelledError, when it is cancelled."""
        if raw.method == "OPTIONS":
            # Browsers ask beforehand; no endpoint's logic may run (client-server API, "Web Browser Clients").
            return Answer(204, content_type=None)
        match = match or self.match(raw.method, raw.path)
        request = Request(raw, match.endpoint, match.name, match.params)
        context = RequestContext(new_request_id(raw.method), match.name)
        self.drain.entered()  # what that sets in motion is not this request's
        current_request.set(context)
        began = monotonic()
        try:
            answer = await measured(self._answer(request, match), context)
            if raw.compress:
                answer = _compressed(raw, answer)
            self._recorder.record(request, context, answer.code, answer.length, monotonic() - began)
            return answer
        except CancelledError:
            self._recorder.record(request, context, LEFT, 0, monotonic() - began)
            raise
        finally:
            self.drain.left()

    async def _answer(self, request: Request, match: Match) -> Answer:
        try:
            if match.handler is None:
                raise match.error or unknown("The request leads nowhere.")
            if match.endpoint is not None:
                await self._admit(request, match.endpoint)
            if request.server is not None and self._servers is not None:
                async with self._servers.turn(request.server):
                    return as_answer(await match.handler(request, **match.params))
            return as_answer(await self._result(request, match, match.handler))
        except MatrixError as e:
            answer = error_answer(e)
            if match.allow:
                answer.headers += (("Allow", match.allow),)
            return answer
        except CancelledError:
            raise
        except Exception as e:
            return error_answer(self._translated(e))

    async def _result(self, request: Request, match: Match, handler: Handler) -> Any:
        work = handler(request, **match.params)
        if match.endpoint is None or not match.endpoint.long_poll or request.requester is None:
            return await work
        assert self._authenticator is not None  # who else would have said who asks?
        return await self._authenticator.while_valid(request, work)

    def _translated(self, error: Exception) -> MatrixError:
        for kind, to in self._translations:
            if isinstance(error, kind):
                translated = to(error)
                logger.warning("%s: %s", translated, error)
                return translated
        context = current_request.get()
        logger.error("The request failed by a fault of the server", exc_info=error)
        where = f" (request {context.id})" if context is not None else ""
        return unknown(f"The server failed to answer the request. Its log says more{where}.", 500)

    async def _admit(self, request: Request, endpoint: Endpoint) -> None:
        if endpoint.auth is Auth.SERVER:
            await self._identify(request, endpoint)
        elif endpoint.auth is not Auth.NONE:
            await self._authenticate(request, endpoint)
        if endpoint.ratelimit is not None and self._ratelimiter is not None:
            requester = request.requester
            who = request.server or (requester.user_id if requester else request.client_ip)
            self._ratelimiter.check(endpoint.ratelimit, who)

    async def _identify(self, request: Request, endpoint: Endpoint) -> None:
        if self._servers is None:
            raise RuntimeError(f"the endpoint {endpoint.name} needs to know other servers' signatures")
        request.server = await self._servers.origin_of(request)
        context = current_request.get()
        if context is not None:
            context.user = request.server

    async def _authenticate(self, request: Request, endpoint: Endpoint) -> None:
        token = access_token(request)
        if token is None:
            if endpoint.auth in (Auth.OPTIONAL, Auth.SERVICE):
                return
            raise missing_token()
        if self._authenticator is None:
            raise RuntimeError(f"the endpoint {endpoint.name} needs an authenticator")
        if endpoint.auth is Auth.SERVICE:
            if (service := self._authenticator.app_service(token)) is not None:
                self._admitted(request, service)
            return
        requester = await self._authenticator.authenticate(token, request)
        if requester.is_guest and not endpoint.guests:
            raise guest_access_forbidden()
        if endpoint.auth is Auth.ADMIN and not requester.is_admin:
            raise forbidden("Only an administrator of the server may do this.")
        self._admitted(request, requester)

    def _admitted(self, request: Request, requester: Requester) -> None:
        request.requester = requester
        context = current_request.get()
        if context is not None:
            context.user = requester.user_id
            context.rate_limited = requester.rate_limited


def access_token(request: Request) -> str | None:
    """The access token in the header or, as older clients have it, in the query; None where there is none."""
    header = request.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return token.strip()
    if "access_token" in request.raw.target:
        return request.arg("access_token") or None
    return None


def _compressed(raw: RawRequest, answer: Answer) -> Answer:
    if isinstance(answer, FileAnswer) or not _MIN_COMPRESSED <= len(answer.body) <= _MAX_COMPRESSED:
        return answer
    headers = (*answer.headers, ("Vary", "Accept-Encoding"))
    if not accepts_gzip(raw.headers.get("accept-encoding", "")):
        return Answer(answer.code, answer.body, headers, answer.content_type)
    body = gzip.compress(answer.body, _COMPRESSION_LEVEL, mtime=0)
    return Answer(answer.code, body, (*headers, ("Content-Encoding", "gzip")), answer.content_type)


def accepts_gzip(header: str) -> bool:
    """Whether an Accept-Encoding header allows gzip."""
    for part in header.split(","):
        coding, _, parameter = part.strip().partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return parameter.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
