"""Addresses of host names, looked up on threads of their own.

The system's resolver blocks, for many seconds where a name server does not answer, and who names hosts to us decides
how often. Twisted's pool of threads, on which it would otherwise run, has other work to do.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer

from synapse.util.concurrency import QueueFull, Slots, spawn

logger = logging.getLogger(__name__)

THREADS: Final = 50
WAITING: Final = 10_000
STALE: Final = 20.0
"""Seconds after which nobody waits for an address any more: a name whose turn comes later is not looked up. Else a few
hundred names whose servers are silent would keep the threads busy for hours."""
_MAX_ADDRESSES: Final = 16

LookUp = Callable[[str], Sequence[str]]


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name
        self.cancelled = False

    def cancel(self) -> None:
        """Nobody wants to know any more."""
        self.cancelled = True


@implementer(IHostnameResolver)
class ThreadedResolver:
    """Looks names up.

    :param reactor: its thread gets the results.
    :param look_up: the addresses of a name; blocks, and raises OSError or ValueError where there are none.
    """

    def __init__(self, reactor: Any, look_up: LookUp | None = None, threads: int = THREADS) -> None:
        self._reactor = reactor
        self._look_up = look_up or addresses_of
        self._slots = Slots(threads, WAITING)

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Tells the receiver the addresses of a name, IPv6 and IPv4 as the system orders them."""
        resolution = _Resolution(hostName)
        receiver: Any = resolutionReceiver  # whose types, as those of all interfaces, take no arguments for granted
        receiver.resolutionBegan(resolution)
        spawn(self._resolve(receiver, resolution, portNumber, addressTypes))
        return resolution  # type: ignore[return-value]  # it implements the interface

    async def _resolve(self, receiver: Any, resolution: _Resolution, port: int, kinds: Any) -> None:
        found = await self._addresses(resolution)
        if resolution.cancelled:
            return
        for each in found[:_MAX_ADDRESSES]:
            kind = IPv6Address if ":" in each else IPv4Address
            if kinds is None or kind in kinds:
                receiver.addressResolved(kind("TCP", each, port))
        receiver.resolutionComplete()

    async def _addresses(self, resolution: _Resolution) -> Sequence[str]:
        name, begun = resolution.name, self._reactor.seconds()
        if _is_address(name):
            return [name]
        try:
            async with self._slots.taken():
                is_stale = resolution.cancelled or self._reactor.seconds() - begun > STALE
                return [] if is_stale else await self._on_a_thread(name)
        except QueueFull:
            logger.warning("%s is not looked up: too many names wait already", name)
            return []

    async def _on_a_thread(self, name: str) -> Sequence[str]:
        done: Deferred[Sequence[str]] = Deferred()

        def work() -> None:
            try:
                found = self._look_up(name)
            except (OSError, ValueError):
                found = []
            self._reactor.callFromThread(done.callback, found)

        # It must not keep the process from ending.
        threading.Thread(target=work, name=f"lookup {name}", daemon=True).start()
        return await done


def addresses_of(name: str) -> list[str]:
    """What the system's resolver says, in its order, each once. Blocks. Raises OSError, ValueError."""
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name.partition("%")[0]))
    except ValueError:
        return False
