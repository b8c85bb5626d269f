"""Where other servers are: from a server name to a host, a port, and the name that its certificate must prove.

What is found out is remembered, for as long as the other side says and within bounds of ours; so is that nothing could
be found out, for less long.

Server-server API, "Resolving server names".
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urljoin, urlsplit

from synapse.api.identifiers import is_server_name, split_server_name
from synapse.http.client import ClientError

if TYPE_CHECKING:
    from synapse.http.client import ClientAnswer
    from synapse.http.outside import OutsideClient
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

PORT: Final = 8448
REMEMBERED: Final = 10_000
MAX_REDIRECTS: Final = 5
MAX_ANSWER: Final = 50 * 1024  # bytes
WITHIN: Final = 10.0  # seconds
HOUR: Final = 3600.0
DEFAULT_AGE: Final = 24 * HOUR
MAX_AGE: Final = 48 * HOUR
MIN_AGE: Final = 300.0

_IPV4: Final = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){3}", re.ASCII)
_MAX_AGE: Final = re.compile(r"max-age=([0-9]{1,9})", re.ASCII)

LookupSrv = Callable[[str], Awaitable[list[tuple[str, int]]]]
"""Host and port of each SRV record of a name, the best first; none where there is no record, or no answer."""


class Target(NamedTuple):
    """Where to send requests: to `host` and `port`, which proves to be `name`; the header `Host` says `header`."""

    host: str
    port: int
    name: str
    header: str


class Discovery:
    """Finds servers.

    :param client: asks for well-known files.
    """

    def __init__(self, client: OutsideClient, lookup_srv: LookupSrv, clock: Clock) -> None:
        self._client = client
        self._lookup_srv = lookup_srv
        self._clock = clock
        self._known: dict[str, tuple[Target, float]] = {}

    async def find(self, server_name: str) -> Target:
        """Where the server of that (valid) name is."""
        known = self._known.get(server_name)
        if known is not None and known[1] > self._clock.seconds():
            return known[0]
        target, age = await self._find(server_name)
        self._known.pop(server_name, None)
        while len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[server_name] = (target, self._clock.seconds() + age)
        return target

    async def _find(self, server_name: str) -> tuple[Target, float]:
        host, port = split_server_name(server_name)
        if port is not None or _is_literal(host):
            return _direct(server_name), MAX_AGE
        delegated, age = await self._well_known(host)
        if delegated is None:
            return await self._by_srv(host), age
        host, port = split_server_name(delegated)
        if port is not None or _is_literal(host):
            return _direct(delegated), age
        return await self._by_srv(host), age

    async def _by_srv(self, host: str) -> Target:
        for service in ("_matrix-fed._tcp", "_matrix._tcp"):
            for place, port in await self._lookup_srv(f"{service}.{host}"):
                return Target(place, port, host, host)
        return Target(host, PORT, host, host)

    async def _well_known(self, host: str) -> tuple[str | None, float]:
        """The server name that the host names in its place, if any, and how many seconds that holds."""
        url = f"https://{host}/.well-known/matrix/server"
        for _ in range(MAX_REDIRECTS + 1):
            try:
                answer = await self._client.request("GET", url, within=WITHIN, max_answer=MAX_ANSWER)
            except ClientError as error:
                logger.debug("%s says nothing about where its Matrix server is: %s", host, error)
                return None, HOUR
            location = answer.headers.get("location")
            if answer.code not in (301, 302, 303, 307, 308) or location is None:
                delegated = _delegated(answer)
                return delegated, HOUR if delegated is None else _age(answer)
            url = urljoin(url, location)
            if urlsplit(url).scheme != "https" or not url.isascii():
                break
        return None, HOUR


def _is_literal(host: str) -> bool:
    return host.startswith("[") or _IPV4.fullmatch(host) is not None


def _direct(server_name: str) -> Target:
    host, port = split_server_name(server_name)
    return Target(host.strip("[]"), PORT if port is None else port, host, server_name)


def _delegated(answer: ClientAnswer) -> str | None:
    named = answer.json_object().get("m.server") if answer.code == 200 else None
    return named if isinstance(named, str) and is_server_name(named) else None


def _age(answer: ClientAnswer) -> float:
    control = answer.headers.get("cache-control", "").lower()
    if "no-store" in control or "no-cache" in control:
        return MIN_AGE
    found = _MAX_AGE.search(control)
    return DEFAULT_AGE if found is None else max(MIN_AGE, min(float(found[1]), MAX_AGE))


async def lookup_srv(name: str) -> list[tuple[str, int]]:
    """SRV records by the resolver of the system."""
    from twisted.internet import defer, error
    from twisted.names import client, dns
    from twisted.names.error import DomainError, ResolverError

    lookup: Any = client.lookupService  # without types of its own
    try:
        answers, _authority, _additional = await lookup(name, timeout=(2, 4))
    except (DomainError, ResolverError, defer.TimeoutError, error.TimeoutError, OSError):
        return []
    records = [record.payload for record in answers if record.type == dns.SRV]
    records.sort(key=lambda record: (record.priority, -record.weight))
    return [(record.target.name.decode("ascii"), record.port) for record in records if record.target.name != b"."]
