"""Where other servers are: from a server name to the places to connect to, and the name that the certificate there must
prove.

What is found out is remembered, for as long as the other side says and within bounds of ours; so is that nothing could
be found out, for longer each time.

Server-server API, "Resolving server names"; RFC 2782 for SRV records.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

from twisted.internet.defer import Deferred

from synapse.api.identifiers import is_server_name, split_server_name
from synapse.http.exchange import ClientError
from synapse.util.concurrency import spawn

if TYPE_CHECKING:
    from synapse.http.exchange import ClientAnswer
    from synapse.http.outside import OutsideClient
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

T = TypeVar("T")

PORT: Final = 8448
REMEMBERED: Final = 10_000
MAX_REDIRECTS: Final = 5
MAX_ANSWER: Final = 50 * 1024  # bytes
WITHIN: Final = 10.0  # seconds, redirects included
HOUR: Final = 3600.0
DEFAULT_AGE: Final = 24 * HOUR
MAX_AGE: Final = 48 * HOUR
MIN_AGE: Final = 300.0
FIRST_PAUSE: Final = 60.0
"""How long it is remembered that a host does not answer; twice as long each time, up to an hour."""
MAX_PLACES: Final = 8

_IPV4: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", re.ASCII)
_MAX_AGE: Final = re.compile(r"max-age=([0-9]{1,9})", re.ASCII)
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class SrvRecord(NamedTuple):
    """One SRV record. Of those of the lowest priority, each is chosen as often as its weight says."""

    priority: int
    weight: int
    host: str
    port: int


class SrvAnswer(NamedTuple):
    """The SRV records of a name, which hold for `ttl` seconds; none where there are none, or no answer."""

    records: tuple[SrvRecord, ...]
    ttl: float


LookupSrv = Callable[[str], Awaitable[SrvAnswer]]


class Place(NamedTuple):
    """A host, or an address without brackets, and a port to connect to."""

    host: str
    port: int


class Route(NamedTuple):
    """Where to send requests: to the first of `places` that takes a connection, and that proves to be `name` (a host,
    or an address without brackets); the header `Host` says `header`."""

    name: str
    header: str
    places: tuple[Place, ...]


class Discovery:
    """Finds servers.

    :param client: asks for well-known files; made when there is one to ask for.
    :param pick: a number from 0 to its argument, by chance.
    """

    def __init__(
        self,
        client: Callable[[], OutsideClient],
        lookup_srv: LookupSrv,
        clock: Clock,
        pick: Callable[[int], int] = lambda total: random.randint(0, total),
    ) -> None:
        self._client = client
        self._lookup_srv = lookup_srv
        self._clock = clock
        self._pick = pick
        self._delegations: _Memory[str | None] = _Memory(clock)
        self._records: _Memory[tuple[SrvRecord, ...]] = _Memory(clock)

    async def find(self, server_name: str) -> Route:
        """Where the server of that (valid) name is."""
        host, port = split_server_name(server_name)
        if port is not None or _is_literal(host):
            return _direct(server_name)
        delegated = await self._delegations.get(host, self._well_known)
        if delegated is not None:
            host, port = split_server_name(delegated)
            if port is not None or _is_literal(host):
                return _direct(delegated)
        records = await self._records.get(host, self._srv)
        places = tuple(Place(record.host, record.port) for record in in_order(records, self._pick))
        return Route(host, host, places[:MAX_PLACES] or (Place(host, PORT),))

    async def _srv(self, host: str, pause: float) -> _Found[tuple[SrvRecord, ...]]:
        shortest = HOUR
        for service in ("_matrix-fed._tcp", "_matrix._tcp"):
            found = await self._lookup_srv(f"{service}.{host}")
            shortest = min(shortest, max(found.ttl, FIRST_PAUSE))
            if found.records:
                return _Found(found.records, shortest)
        return _Found((), shortest)

    async def _well_known(self, host: str, pause: float) -> _Found[str | None]:
        """The server name that the host names in its place, if any."""
        url = f"https://{host}/.well-known/matrix/server"
        deadline = self._clock.seconds() + WITHIN
        for _ in range(MAX_REDIRECTS + 1):
            left = deadline - self._clock.seconds()
            if left <= 0:
                break
            try:
                answer = await self._client().request("GET", url, within=left, max_answer=MAX_ANSWER)
            except ClientError as error:
                logger.debug("%s says nothing about where its Matrix server is: %s", host, error)
                break
            location = answer.headers.get("location")
            if answer.code not in _REDIRECTS or location is None:
                if answer.code >= 500:
                    break
                delegated = _delegated(answer)
                return _Found(delegated, HOUR if delegated is None else _age(answer))
            redirected = _redirected(url, location)
            if redirected is None:
                return _Found(None, HOUR)
            url = redirected
        pause = min(2 * pause, HOUR) if pause else FIRST_PAUSE
        return _Found(None, pause, pause)


class _Found(NamedTuple, Generic[T]):
    """What was found out, and for how many seconds to remember it; `pause` where that is a failure."""

    value: T
    age: float
    pause: float = 0.0


class _Memory(Generic[T]):
    """What was found out of names. Who asks for the same name at the same time shares the finding out."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, tuple[_Found[T], float]] = {}
        self._asking: dict[str, list[Deferred[T]]] = {}

    async def get(self, name: str, find: Callable[[str, float], Awaitable[_Found[T]]]) -> T:
        """`find(name, pause)` is told for how long the last failure was remembered."""
        known = self._known.get(name)
        if known is not None and known[1] > self._clock.seconds():
            return known[0].value
        waiting: Deferred[T] = Deferred()
        asking = self._asking.get(name)
        if asking is None:
            self._asking[name] = [waiting]
            spawn(self._find(name, find, 0.0 if known is None else known[0].pause))
        else:
            asking.append(waiting)
        return await waiting

    async def _find(self, name: str, find: Callable[[str, float], Awaitable[_Found[T]]], pause: float) -> None:
        try:
            found = await find(name, pause)
        except Exception as error:  # nobody may be left waiting
            for waiting in self._asking.pop(name):
                if not waiting.called:
                    waiting.errback(error)
            return
        self._known.pop(name, None)
        while len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[name] = (found, self._clock.seconds() + found.age)
        for waiting in self._asking.pop(name):
            if not waiting.called:
                waiting.callback(found.value)


def in_order(records: Iterable[SrvRecord], pick: Callable[[int], int]) -> list[SrvRecord]:
    """Records in the order in which to try them: by priority, then by chance as their weights want it."""
    ordered: list[SrvRecord] = []
    left = sorted(records, key=lambda record: (record.priority, record.weight))
    while left:
        group = [record for record in left if record.priority == left[0].priority]
        left = left[len(group) :]
        while group:
            chosen, total = pick(sum(record.weight for record in group)), 0
            for record in group:
                total += record.weight
                if total >= chosen:
                    ordered.append(record)
                    group.remove(record)
                    break
    return ordered


def _is_literal(host: str) -> bool:
    return host.startswith("[") or _IPV4.fullmatch(host) is not None


def _direct(server_name: str) -> Route:
    host, port = split_server_name(server_name)
    host = host.strip("[]")
    return Route(host, server_name, (Place(host, PORT if port is None else port),))


def _redirected(url: str, location: str) -> str | None:
    """Where a redirect leads to, if that is one to follow."""
    try:
        url = urljoin(url, location)
        parts = urlsplit(url)
        fits = parts.scheme == "https" and parts.hostname and parts.port != 0 and url.isascii()
    except ValueError:
        return None
    return url if fits else None


def _delegated(answer: ClientAnswer) -> str | None:
    named = answer.json_object().get("m.server") if answer.code == 200 else None
    return named if isinstance(named, str) and is_server_name(named) else None


def _age(answer: ClientAnswer) -> float:
    control = answer.headers.get("cache-control", "").lower()
    if "no-store" in control or "no-cache" in control:
        return MIN_AGE
    found = _MAX_AGE.search(control)
    return DEFAULT_AGE if found is None else max(MIN_AGE, min(float(found[1]), MAX_AGE))


async def lookup_srv(name: str) -> SrvAnswer:
    """SRV records by the resolver of the system."""
    from twisted.internet import defer, error
    from twisted.names import client, dns
    from twisted.names.error import DomainError, ResolverError

    lookup: Any = client.lookupService  # without types of its own
    try:
        answers, _authority, _additional = await lookup(name, timeout=(2, 4))
    except (DomainError, ResolverError, defer.TimeoutError, error.TimeoutError, OSError, ValueError):
        return SrvAnswer((), MIN_AGE)
    found = [answer for answer in answers if answer.type == dns.SRV]
    records = [answer.payload for answer in found if answer.payload.target.name != b"."]
    return SrvAnswer(
        tuple(SrvRecord(r.priority, r.weight, r.target.name.decode("ascii", "replace"), r.port) for r in records),
        float(min((answer.ttl for answer in found), default=MIN_AGE)),
    )
