"""Requests to other servers, signed as this server's: may they be asked now, and what does it mean how they answer?

Where a server is and how to get there is the business of a `Transport`; what is asked and answered, that of
`synapse.federation.api`.

Server-server API, "Request Authentication".
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from unpaddedbase64 import encode_base64

from synapse.api.errors import MatrixError
from synapse.events import canonical
from synapse.events.signing import key_id_of
from synapse.federation.errors import BadAnswer, Denied, FederationError, Unreachable
from synapse.http.exchange import AnswerLate, AnswerTooLarge, ClientError
from synapse.metrics import table
from synapse.util.concurrency import pause

if TYPE_CHECKING:
    from signedjson.types import SigningKey

    from synapse.federation.destinations import Destinations
    from synapse.http.exchange import ClientAnswer
    from synapse.util.clock import Clock

MAX_ANSWER: Final = 8 << 20  # bytes, where nobody says otherwise
_AWAY: Final = frozenset({502, 503, 504})
"""Statuses by which something in front of a server says that the server is away."""
_FIRST_DELAY: Final = 0.5  # seconds


class Canonical(bytes):
    """JSON that is in canonical form already: it is signed and sent as it is."""


class Transport(Protocol):
    """The way to other servers."""

    async def send(
        self,
        destination: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: tuple[tuple[str, str], ...],
        *,
        within: float,
        max_answer: int,
    ) -> ClientAnswer:
        """The answer of a server, whatever its status. Raises ClientError."""


class Retries(NamedTuple):
    """How often a request that got no answer is made again, and the longest pause before it, in seconds. The first is
    half a second, and each is twice the one before."""

    times: int
    longest: float


class Insistence(Enum):
    """How much trouble to take over a request."""

    NONE = "none"
    """It is made once."""

    SHORT = "short"
    """It is made again a few times within seconds."""


class Settings(NamedTuple):
    """What the configuration says of requests to other servers. Times are seconds."""

    timeout: float = 60.0
    short: Retries = Retries(3, 2.0)
    long: Retries = Retries(10, 60.0)
    """Of transactions, whose queues see to it by themselves."""
    allowed: frozenset[str] | None = None
    """The servers that may be asked; None: all."""

    def retries(self, insistence: Insistence) -> Retries:
        """How often to ask again."""
        return self.short if insistence is Insistence.SHORT else Retries(0, 0.0)


class FederationClient:
    """Sends requests in the name of this server.

    :param destinations: which servers are left alone for now; None where that is not kept.
    """

    def __init__(
        self,
        server_name: str,
        key: SigningKey,
        transport: Transport,
        clock: Clock,
        destinations: Destinations | None = None,
        settings: Settings = Settings(),  # noqa: B008  # it is immutable
    ) -> None:
        self._server_name = server_name
        self._key = key
        self.transport = transport
        self._clock = clock
        self._destinations = destinations
        self._settings = settings

    def is_allowed(self, server: str) -> bool:
        """Whether this server has to do with that other one at all (`federation_domain_whitelist`)."""
        return self._settings.allowed is None or server in self._settings.allowed

    async def request(
        self,
        destination: str,
        method: str,
        path: str,
        content: dict[str, Any] | Canonical | None = None,
        *,
        within: float | None = None,
        max_answer: int = MAX_ANSWER,
        insistence: Insistence = Insistence.NONE,
        despite_backoff: bool = False,
        signed: bool = True,
        noted: bool = True,
    ) -> ClientAnswer:
        """The answer of the server `destination`, whatever its status but 502, 503 and 504.

        `path` begins with `/_matrix/`, its query included, as it is to be on the wire. `within` seconds, retries not
        included. With `despite_backoff` the server is asked though it has not answered of late: a user waits for it.
        That it does not answer is `noted`, unless whoever asks keeps that by itself. Raises Unreachable; BadAnswer
        where the answer is too large.
        """
        await self._admit(destination, despite_backoff)
        body = _encoded(content)
        headers = _headers(self._server_name, self._key, destination, method, path, body, signed)
        seconds = self._settings.timeout if within is None else within
        retries = self._settings.retries(insistence)
        for attempt in range(retries.times + 1):
            if attempt:
                await pause(self._clock, min(_FIRST_DELAY * 2 ** (attempt - 1), retries.longest))
            try:
                return await self._attempt(destination, method, path, body, headers, seconds, max_answer)
            except Unreachable as error:
                # Who was late may be slow; somebody waits, and not for as long again.
                if attempt == retries.times or (error.late and insistence is Insistence.SHORT):
                    if self._destinations is not None and noted:
                        await self._destinations.failed(destination, insisted=False)
                    raise
        raise AssertionError("the last attempt returns or raises")

    async def _admit(self, destination: str, despite_backoff: bool) -> None:
        if destination == self._server_name:
            raise Unreachable(destination, f"{destination} is this server itself.", asked=False)
        if not self.is_allowed(destination):
            raise Denied(destination)
        if self._destinations is not None and not despite_backoff:
            await self._destinations.check(destination)

    async def _attempt(
        self,
        destination: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: tuple[tuple[str, str], ...],
        within: float,
        max_answer: int,
    ) -> ClientAnswer:
        began = self._clock.seconds()
        try:
            answer = await self.transport.send(
                destination, method, path, body, headers, within=within, max_answer=max_answer
            )
        except ClientError as error:
            table.FEDERATION_REQUESTS.child(error.outcome).inc()
            raise _problem(destination, error) from error
        table.FEDERATION_REQUESTS.child(str(answer.code)).inc()
        table.FEDERATION_REQUEST_SECONDS.child().observe(self._clock.seconds() - began)
        if answer.code in _AWAY:
            raise Unreachable(destination, f"{destination} is away: it answers with status {answer.code}.")
        if self._destinations is not None and answer.code < 500:
            await self._destinations.succeeded(destination)
        return answer


def _problem(destination: str, error: ClientError) -> FederationError:
    if isinstance(error, AnswerTooLarge):
        return BadAnswer(destination, f"The answer of {destination} is too large.")
    if isinstance(error, AnswerLate):
        return Unreachable(destination, f"{destination} does not answer in time.", late=True)
    return Unreachable(destination, f"{destination} cannot be reached: {error}")


def _headers(
    server_name: str,
    key: SigningKey,
    destination: str,
    method: str,
    path: str,
    body: bytes | None,
    signed: bool,
) -> tuple[tuple[str, str], ...]:
    kind = (("Content-Type", "application/json"),) if body is not None else ()
    if not signed:
        return kind
    return (("Authorization", _authorization(server_name, key, destination, method, path, body)), *kind)


def _encoded(content: dict[str, Any] | Canonical | None) -> bytes | None:
    if content is None:
        return None
    if isinstance(content, Canonical):
        return bytes(content)
    try:
        canonical.check(content)
    except MatrixError:
        # Events of old rooms may have numbers that only the slow encoder writes.
        return canonical.encode_lenient(content)
    return canonical.encode(content)


def authorization(
    server_name: str, key: SigningKey, destination: str, method: str, path: str, content: dict[str, Any] | None
) -> str:
    """The header `Authorization` of a request that `server_name` signs, to another server or an identity server."""
    return _authorization(server_name, key, destination, method, path, _encoded(content))


def _authorization(
    server_name: str, key: SigningKey, destination: str, method: str, path: str, body: bytes | None
) -> str:
    # The canonical JSON of what is signed, around that of the content, which is large and the same for many servers.
    rest = {"destination": destination, "method": method, "origin": server_name, "uri": path}
    signed = canonical.encode(rest)
    if body is not None:
        signed = b'{"content":%s,%s' % (body, signed[1:])
    signature = encode_base64(key.sign(signed).signature)
    return f'X-Matrix origin="{server_name}",destination="{destination}",key="{key_id_of(key)}",sig="{signature}"'
