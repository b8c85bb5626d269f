"""What listens: a factory of connections for one listener, with the resources that it carries."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory

from synapse.api.routes import resources_of
from synapse.http.channel import HttpChannel, speaks_tls
from synapse.http.router import Router
from synapse.http.routing import Match
from synapse.http.wire import RequestHead
from synapse.metrics import table
from synapse.util.clock import Clock

if TYPE_CHECKING:
    from synapse.config.listeners import Listener

_SWEEP = 15.0  # seconds between looks at connections on which nothing happens
# How long idle connections are kept when the process leaves: a proxy may just be sending a request on one of them.
_GRACE = 0.5


class Site(ServerFactory):
    """The connections of one listener.

    :param resources: what it carries, by the names of the route table (all that come along included).
    :param x_forwarded: whether a proxy in front says who the client is.
    :param compressed: the resources whose answers may be compressed.
    """

    noisy = False

    def __init__(
        self,
        router: Router,
        clock: Clock,
        resources: Collection[str],
        *,
        x_forwarded: bool = False,
        compressed: Collection[str] = (),
    ) -> None:
        self.router = router
        self.clock = clock
        self.resources = frozenset(resources)
        self._x_forwarded = x_forwarded
        self._compressed = frozenset(compressed)
        self._channels: set[HttpChannel] = set()
        self._gauge = table.HTTP_CONNECTIONS.child()
        self._sweeping = False
        router.drain.on_begin(self._leave)

    def buildProtocol(self, addr: IAddress | None) -> HttpChannel:
        return HttpChannel(self)

    # -- what channels ask ------------------------------------------------------------------------------------------

    @property
    def leaving(self) -> bool:
        return self.router.drain.leaving

    def match(self, head: RequestHead) -> Match:
        return self.router.match(head.method, head.target.partition("?")[0], self.resources)

    def compresses(self, match: Match) -> bool:
        return bool(self._compressed) and match.endpoint is not None and match.endpoint.resource in self._compressed

    def client_ip(self, head: RequestHead, transport: Any) -> str:
        """Where the request comes from: the last address of X-Forwarded-For, which the nearest proxy put there."""
        if self._x_forwarded:
            forwarded = _address(head.headers.get("x-forwarded-for", "").rpartition(",")[2])
            if forwarded is not None:
                return forwarded
        # Whoever comes by a unix socket is on this machine.
        return getattr(transport.getPeer(), "host", None) or "127.0.0.1"

    def is_secure(self, head: RequestHead, transport: Any) -> bool:
        if self._x_forwarded and "x-forwarded-proto" in head.headers:
            return head.headers["x-forwarded-proto"].strip().lower() == "https"
        return speaks_tls(transport)

    # -- the connections --------------------------------------------------------------------------------------------

    def opened(self, channel: HttpChannel) -> None:
        self._channels.add(channel)
        self._gauge.inc()
        if not self._sweeping:
            self._sweeping = True
            self.clock.callLater(_SWEEP, self._sweep)

    def lost(self, channel: HttpChannel) -> None:
        self._channels.discard(channel)
        self._gauge.dec()

    def _sweep(self) -> None:
        now = self.clock.seconds()
        for channel in list(self._channels):
            channel.check(now)
        self._sweeping = bool(self._channels)
        if self._sweeping:
            self.clock.callLater(_SWEEP, self._sweep)

    def _leave(self) -> None:
        self.clock.callLater(_GRACE, self._close_idle)

    def _close_idle(self) -> None:
        for channel in list(self._channels):
            channel.close_if_idle()


def build_site(router: Router, listener: Listener, clock: Clock) -> Site:
    """The factory for a listener of the configuration (type http or metrics)."""
    return Site(
        router,
        clock,
        resources_of(tuple(listener.names)),
        x_forwarded=listener.x_forwarded,
        compressed=_compressed(listener),
    )


def _compressed(listener: Listener) -> frozenset[str]:
    return resources_of(tuple(listener.compressed))


def _address(text: str) -> str | None:
    """An IP address, which may have a port; None when it is none."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
