"""Which addresses this server may connect to where users can say where: not those of its own network. Pure.

Whoever names an identity server, a policy server or another homeserver could otherwise have requests sent to machines
that only this server reaches.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network


class AddressFilter:
    """Tells allowed addresses from others.

    :param blocked: networks, as `10.0.0.0/8`; :param allowed: networks that are allowed all the same. Both raise
        ValueError for what is no network.
    """

    def __init__(self, blocked: Iterable[str], allowed: Iterable[str] = ()) -> None:
        self._blocked = [ip_network(network) for network in blocked]
        self._allowed = [ip_network(network) for network in allowed]

    def allows(self, address: str) -> bool:
        """Whether to connect to an address. What is no address is not allowed."""
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        # An address may be written within another: it must be allowed however one looks at it.
        return all(self._allows(meant) for meant in _meanings(parsed))

    def _allows(self, address: IPv4Address | IPv6Address) -> bool:
        return _is_in(address, self._allowed) or not _is_in(address, self._blocked)


def _is_in(address: IPv4Address | IPv6Address, networks: list[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _meanings(address: IPv4Address | IPv6Address) -> Iterable[IPv4Address | IPv6Address]:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if mapped is not None:
        yield mapped  # the same thing in another form
        return
    yield address
    if isinstance(address, IPv6Address):
        if address.sixtofour is not None:
            yield address.sixtofour
        if address in _NAT64:
            yield IPv4Address(int(address) & 0xFFFFFFFF)


_NAT64 = IPv6Network("64:ff9b::/96")
