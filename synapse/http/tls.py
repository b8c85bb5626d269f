"""TLS to others: whose certificates are believed, and that they are of the right name.

The authorities are read once and serve all connections; which name a certificate must be of is said for each.
Importing this loads OpenSSL.

Server-server API, "TLS"; RFC 9525.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from OpenSSL import SSL
from service_identity.exceptions import CertificateError, VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet import ssl as twisted_ssl
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

ssl: Any = twisted_ssl  # without types of its own

_UNKNOWN_AUTHORITY: Final = "it comes from no authority that this server believes"
_REASONS: Final = {
    9: "it is not valid yet",
    10: "it has expired",
    18: f"{_UNKNOWN_AUTHORITY}, but from itself",
    19: _UNKNOWN_AUTHORITY,
    20: f"{_UNKNOWN_AUTHORITY}, or the certificates between are missing",
    21: f"{_UNKNOWN_AUTHORITY}, or the certificates between are missing",
    23: "it has been revoked",
    26: "it is not for servers",
}
"""OpenSSL's X509_V_ERR_… that happen, in words."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose certificates are believed: `authorities` are PEM files of those in place of the system's, if any. `verify`
    says whether a host needs one."""

    verify: bool | Callable[[str], bool] = True
    authorities: tuple[str, ...] = ()

    def needed(self, host: str) -> bool:
        """Whether the host must have a certificate."""
        return self.verify if isinstance(self.verify, bool) else self.verify(host)


class Contexts:
    """What connections to any host have in common. Files are read when the first one is made."""

    def __init__(self, authorities: tuple[str, ...] = ()) -> None:
        self._authorities = authorities
        self._verifying: Any = None
        self._trusting: Any = None

    def towards(self, host: str, *, verify: bool = True) -> Any:
        """How to connect to a host, an address perhaps, that must prove to be it; if not `verify`, to anybody."""
        if verify:
            if self._verifying is None:
                self._verifying = ssl.CertificateOptions(trustRoot=trust_root(self._authorities)).getContext()
            return Towards(self._verifying, host, True)
        if self._trusting is None:
            self._trusting = ssl.CertificateOptions(verify=False).getContext()
        return Towards(self._trusting, host, False)


@implementer(IOpenSSLClientConnectionCreator)
class Towards:
    """Makes the TLS of connections to one host."""

    def __init__(self, context: Any, host: str, verify: bool) -> None:
        self._context = context
        self._host = host.strip("[]")
        self._verify = verify
        try:
            self._is_address = bool(ip_address(self._host))
        except ValueError:
            self._is_address = False

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """The next connection. An address is not told by SNI, which knows names alone."""
        connection = SSL.Connection(self._context, None)
        if not self._is_address:
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        if self._verify:
            connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, self._accepts)
        return connection

    def _accepts(self, connection: Any, certificate: Any, error: int, depth: int, ok: int) -> bool:
        """Whether a certificate of the chain is right; the last, of depth 0, is the server's own.

        What is wrong is noted down at the connection, for the sentence that its end is told by: OpenSSL's own error
        says no more than that something is.
        """
        if not ok:
            connection.set_app_data(f"certificate verify failed: {_REASONS.get(error, f'OpenSSL error {error}')}")
        if not ok or depth:
            return bool(ok)
        try:
            wanted = IPAddress_ID(self._host) if self._is_address else DNS_ID(self._host)
            verify_service_identity(extract_patterns(certificate), obligatory_ids=[wanted], optional_ids=[])
        except (VerificationError, CertificateError, ValueError):  # also a name, or a certificate, that is none
            connection.set_app_data(f"certificate verify failed: it is not of the name {self._host}")
            return False
        return True


def trust_root(authorities: tuple[str, ...]) -> Any:
    """The authorities of these files, each with any number of certificates; without files, the system's."""
    if not authorities:
        return ssl.platformTrust()
    certificates = []
    for path in authorities:
        with open(path, "rb") as file:
            pieces = file.read().split(b"-----BEGIN CERTIFICATE-----")[1:]
        certificates += [ssl.Certificate.loadPEM(b"-----BEGIN CERTIFICATE-----" + piece) for piece in pieces]
    return ssl.trustRootFromCertificates(certificates)
