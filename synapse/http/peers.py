"""Requests to other servers over HTTPS: many servers, a few kept connections to each.

Unlike `http.outside`, which is for the occasional request, this is for those that come all the time: connections are
those of `http.exchange`. The server whose certificate is wanted, and the places where it may be, are found out
elsewhere. Addresses of blocked networks are left out, and the connection goes to the very address that was looked at.

Importing this loads OpenSSL: do it when the first request is to be made.
"""

from __future__ import annotations

import resource
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS

from synapse.http.exchange import AnswerLate, ClientAnswer, Connections, NotSent
from synapse.http.outside import FilteringReactor
from synapse.http.tls import Contexts
from synapse.http.wire import encode_head

if TYPE_CHECKING:
    from twisted.internet.protocol import ClientFactory
    from twisted.python.failure import Failure

    from synapse.http.addresses import AddressFilter

CONNECT: Final = 10.0  # seconds for one place
PER_SERVER: Final = 8
"""Connections to one place; what comes on top waits for one of them."""

MAX_IDLE: Final = 2_500
"""Connections that are kept open for the next request, to all servers together; of the files that the process may have
open, half at most. Each takes 45 KiB, and to make it anew, ten times the CPU of a request."""


class _Key(NamedTuple):
    name: str
    host: str
    port: int


class PeerClient:
    """Requests to servers.

    :param verify: whether the server of a name must prove by its certificate that it is.
    :param authorities: PEM files of the authorities to believe, in place of the system's.
    """

    def __init__(
        self, reactor: Any, addresses: AddressFilter, verify: Callable[[str], bool], authorities: tuple[str, ...] = ()
    ) -> None:
        self._reactor = reactor
        self._filtering = FilteringReactor(reactor, addresses)
        self._contexts = Contexts(authorities)
        self._verify = verify
        self._pools: OrderedDict[_Key, Connections] = OrderedDict()
        self._idle = 0
        self._most_idle = min(MAX_IDLE, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    async def request(
        self,
        name: str,
        places: Sequence[tuple[str, int]],
        method: str,
        path: str,
        headers: tuple[tuple[str, str], ...],
        body: bytes | None,
        *,
        within: float,
        max_answer: int,
    ) -> ClientAnswer:
        """The answer of the server that proves to be `name`, at the first of the places (host and port) that takes a
        connection.

        `headers` begin with `Host`. Raises ClientError.
        """
        has_body = body is not None or method not in ("GET", "HEAD")
        length = (("Content-Length", str(len(body or b""))),) if has_body else ()
        head = encode_head(f"{method} {path} HTTP/1.1", (*headers, ("User-Agent", "Synapse"), *length))
        deadline = self._reactor.seconds() + within
        problem = NotSent(f"There is no place where {name} could be.")
        for place in places:
            left = deadline - self._reactor.seconds()
            if left <= 0:
                raise AnswerLate(f"{name} did not answer within {within:g} seconds.")
            pool = self._pool(_Key(name, *place))
            try:
                # A federation request may always be made twice: servers know transactions and events again.
                return await pool.exchange(head + (body or b""), left, repeatable=True, max_answer=max_answer)
            except NotSent as error:
                problem = error
        raise problem

    def close(self) -> None:
        """Ends idle connections; those in use end with their answer."""
        for pool in list(self._pools.values()):
            pool.close()
        self._pools.clear()

    # -- connections -----------------------------------------------------------------------------------------------

    def _pool(self, key: _Key) -> Connections:
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Connections(
                self._reactor,
                f"{key.name} ({_shown(key.host)}:{key.port})",
                self._dialler(key),
                PER_SERVER,
                secure=True,
                tell=self._counter(key),
                connect_within=CONNECT,
            )
        self._pools.move_to_end(key)
        return pool

    def _counter(self, key: _Key) -> Callable[[int, int], None]:
        before = 0

        def tell(idle: int, busy: int) -> None:
            nonlocal before
            self._idle += idle - before
            before = idle
            if not idle and not busy:
                self._forget(key)
            elif self._idle > self._most_idle:
                self._close_the_oldest(key)

        return tell

    def _forget(self, key: _Key) -> None:
        # What is told may come late, of connections from before those that there are now.
        pool = self._pools.get(key)
        if pool is not None and not pool.in_use and not pool.idle:
            del self._pools[key]

    def _close_the_oldest(self, but: _Key) -> None:
        """Ends the connections that have been idle for longest."""
        for key, pool in self._pools.items():
            if pool.idle and key != but:
                pool.close_idle()
                return

    def _dialler(self, key: _Key) -> Callable[[ClientFactory, float], None]:
        def dial(factory: ClientFactory, within: float) -> None:
            def failed(reason: Failure) -> None:
                factory.clientConnectionFailed(None, reason)  # type: ignore[arg-type]  # it looks at the reason alone

            # Also where making it ready raises: a file of authorities that is gone, a name that nobody can have.
            maybeDeferred(lambda: self._endpoint(key, within).connect(factory)).addErrback(failed)

        return dial

    def _endpoint(self, key: _Key, within: float) -> Any:
        endpoint: Any = HostnameEndpoint(self._filtering, key.host, key.port, timeout=within)
        return wrapClientTLS(self._contexts.towards(key.name, verify=self._verify(key.name)), endpoint)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
