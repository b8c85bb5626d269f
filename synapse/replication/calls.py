"""Calls to the main process: what workers ask of the one writer, and how an answer survives a lost connection.

A `Call` is declared once, beside the handler that owns it: name, argument struct, result type. In the main process
`LocalMain` runs its handler directly; elsewhere `RemoteMain` sends it to the replication HTTP API,

    POST /_synapse/replication/<name>/<transaction id>      body: the argument as JSON
    200  {"r": <result>}  or  {"e": {"code", "errcode", "message", "fields"}}

where `CallServer` answers. A call is repeated under its transaction id until it has an answer or its time is up. The
server remembers answers, and a call once begun runs to its end whatever becomes of the connection, so a repetition
does nothing twice. What must hold across the death of the main process too is idempotent in the database.
"""

from __future__ import annotations

import hmac
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from synapse.api.errors import MatrixError, forbidden, not_found, unknown
from synapse.api.identifiers import random_letters
from synapse.http.answers import RawJson
from synapse.http.client import ClientError
from synapse.storage.errors import DatabaseUnavailable, OutcomeUnknown, refusal_of
from synapse.util.clock import Clock

if TYPE_CHECKING:
    from synapse.http.client import ProcessClient
    from synapse.http.request import Request

logger = logging.getLogger(__name__)

A = TypeVar("A")
R = TypeVar("R")

WITHIN: Final = 60.0
"""Seconds for which the main process is asked, unless a call says otherwise."""

PREFIX: Final = "/_synapse/replication/"
MAX_BODY: Final = 64 * 1024 * 1024  # bytes: a batch of events
_REMEMBERED: Final = 10_000  # answers
_REMEMBER_FOR: Final = 300.0  # seconds: far longer than anyone repeats a call
_DELAYS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.0)  # seconds between attempts; the last one goes on
_FAULT: Final = "The server failed to answer the request. Its log says more."


@dataclass(frozen=True)
class Call(Generic[A, R]):
    """One thing that can be asked of the main process.

    `argument` and `result` are types that msgspec can write as JSON; `within` is how many seconds the caller goes on
    trying.
    """

    name: str
    argument: type[A]
    result: type[R]
    within: float = WITHIN

    @cached_property
    def decode_argument(self) -> Callable[[bytes], A]:
        return msgspec.json.Decoder(self.argument).decode

    @cached_property
    def decode_result(self) -> Callable[[bytes], R]:
        return msgspec.json.Decoder(self.result).decode


Handle = Callable[[A], Awaitable[R]]


class MainProcess(Protocol):
    """The main process, as seen from any process."""

    async def __call__(self, call: Call[A, R], argument: A) -> R:
        """Have the main process do something. Raises what its handler raises of MatrixError."""
        ...

    def expose(self, call: Call[A, R], handle: Handle[A, R]) -> None:
        """Say who answers a call; heard in the main process alone."""
        ...


class _Error(msgspec.Struct):
    code: int
    errcode: str
    message: str
    fields: dict[str, Any]


class _Outcome(msgspec.Struct):
    r: msgspec.Raw = msgspec.Raw(b"null")
    e: _Error | None = None


_encode = msgspec.json.Encoder().encode
_decode_outcome = msgspec.json.Decoder(_Outcome).decode


class LocalMain:
    """Calls in the main process itself: the handlers, by name."""

    def __init__(self) -> None:
        self.handlers: dict[str, tuple[Call[Any, Any], Handle[Any, Any]]] = {}

    def expose(self, call: Call[A, R], handle: Handle[A, R]) -> None:
        if call.name in self.handlers:
            raise ValueError(f"two services answer the call {call.name}")
        self.handlers[call.name] = (call, handle)

    async def __call__(self, call: Call[A, R], argument: A) -> R:
        result: R = await self.handlers[call.name][1](argument)
        return result


class RemoteMain:
    """Calls from a worker."""

    def __init__(self, client: ProcessClient, clock: Clock, secret: str | None = None) -> None:
        self._client = client
        self._clock = clock
        self._headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
        if secret is not None:
            self._headers += (("Authorization", f"Bearer {secret}"),)

    def expose(self, call: Call[A, R], handle: Handle[A, R]) -> None:
        """Nothing: workers answer no calls."""

    async def __call__(self, call: Call[A, R], argument: A) -> R:
        path = f"{PREFIX}{call.name}/{random_letters(16)}"
        outcome = _decode_outcome(await self._insist(path, _encode(argument), call.within))
        if outcome.e is not None:
            raise MatrixError(outcome.e.code, outcome.e.errcode, outcome.e.message, **outcome.e.fields)
        return call.decode_result(bytes(outcome.r))

    async def _insist(self, path: str, body: bytes, within: float) -> bytes:
        deadline = self._clock.seconds() + within
        attempt = 0
        while True:
            try:
                left = max(1.0, deadline - self._clock.seconds())
                answer = await self._client.request("POST", path, body, self._headers, within=left)
                if answer.code == 200:
                    return answer.body
                problem = f"it answers {answer.code}: {answer.body[:200].decode(errors='replace')}"
                again = answer.code >= 500
            except ClientError as error:
                problem, again = str(error), True
            delay = _DELAYS[min(attempt, len(_DELAYS) - 1)]
            attempt += 1
            if not again or self._clock.seconds() + delay >= deadline:
                logger.error("The main process at %s could not be asked: %s", self._client.address, problem)
                raise unknown("The main process of the server cannot be reached now. Try again later.", 503)
            await _sleep(self._clock, delay)


def _sleep(clock: Clock, seconds: float) -> Deferred[None]:
    done: Deferred[None] = Deferred(lambda _: timer.cancel())
    timer = clock.callLater(seconds, done.callback, None)
    return done


@dataclass
class _Answered:
    """A call that has begun: its answer, or those who wait for it."""

    since: float
    answer: bytes | None = None
    waiting: list[Deferred[bytes]] = field(default_factory=list)


class CallServer:
    """The replication HTTP API of the main process.

    :param secret: what callers must know; with None, only callers on this machine are answered.
    """

    def __init__(self, main: LocalMain, clock: Clock, secret: str | None = None) -> None:
        self._main = main
        self._clock = clock
        self._secret = secret
        self._answered: OrderedDict[str, _Answered] = OrderedDict()

    async def serve(self, request: Request) -> RawJson:
        """The handler for everything below `PREFIX`. Raises MatrixError (403, 404) for what is no valid call."""
        self._admit(request)
        name, _, txn_id = request.path.removeprefix(PREFIX).partition("/")
        if name not in self._main.handlers or not txn_id:
            raise not_found(f"There is no call '{name}'. Do worker and main process run the same release?")
        request.name = f"replication.{name}"
        request.log_level = logging.DEBUG  # whoever had the worker call has a line in its log
        key = f"{name}/{txn_id}"
        answered = self._answered.get(key)
        if answered is None:
            answered = self._answered[key] = _Answered(self._clock.seconds())
            self._forget()
            Deferred.fromCoroutine(self._run(answered, name, request.body)).addErrback(_log)
        if answered.answer is not None:
            return RawJson(answered.answer)
        waiting: Deferred[bytes] = Deferred(answered.waiting.remove)
        answered.waiting.append(waiting)
        return RawJson(await waiting)

    def _admit(self, request: Request) -> None:
        if self._secret is not None:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._secret.encode()):
                raise forbidden("The worker_replication_secret of the caller is not the one of this server.")
        elif "x-forwarded-for" in request.headers or not _is_local(request.client_ip):
            raise forbidden("Without a worker_replication_secret, replication answers on its own machine only.")

    async def _run(self, answered: _Answered, name: str, body: bytes) -> None:
        answered.answer = await self._outcome(name, body)
        waiting, answered.waiting = answered.waiting, []
        for each in waiting:
            each.callback(answered.answer)

    async def _outcome(self, name: str, body: bytes) -> bytes:
        call, handle = self._main.handlers[name]
        try:
            return b'{"r":' + _encode(await handle(call.decode_argument(body))) + b"}"
        except MatrixError as error:
            refusal = error
        except (DatabaseUnavailable, OutcomeUnknown) as error:
            refusal = refusal_of(error)
        except msgspec.DecodeError as error:
            refusal = unknown(f"The argument of the call {name} is not what it should be: {error}.", 500)
            logger.error("%s", refusal.message)
        except Exception as error:
            logger.error("The call %s failed by a fault of the server", name, exc_info=error)
            refusal = unknown(_FAULT, 500)
        return _encode(_Outcome(e=_Error(refusal.code, refusal.errcode, refusal.message, refusal.fields)))

    def _forget(self) -> None:
        """Let go of the oldest answers that nobody can be asking for any more."""
        horizon = self._clock.seconds() - _REMEMBER_FOR
        while self._answered:
            oldest = next(iter(self._answered.values()))
            if oldest.answer is None or (oldest.since > horizon and len(self._answered) <= _REMEMBERED):
                return
            self._answered.popitem(last=False)


def _is_local(address: str) -> bool:
    return address in ("", "::1") or address.startswith(("127.", "::ffff:127."))


def _log(failure: Failure) -> None:
    logger.error("A call was lost", exc_info=failure.value)
