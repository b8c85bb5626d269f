"""The certificate of listeners with `tls: true`. Only they load OpenSSL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from synapse.config import ConfigError

if TYPE_CHECKING:
    from synapse.config import Config

_CIPHERS = "TLS13+AESGCM+AES128:TLS13+AESGCM+AES256:TLS13+CHACHA20:ECDH+AESGCM:ECDH+CHACHA20:!aNULL:!MD5:!DSS:!AESCCM"


@implementer(IOpenSSLServerConnectionCreator)
class Certificate:
    """Certificate and private key, in the shape in which Twisted wants them. Raises `ConfigError`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._context = self._read()

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """The next connection."""
        return SSL.Connection(self._context, None)

    def reload(self) -> None:
        """Read both files again. If they are not right, raises `ConfigError` and stays with the old ones."""
        self._context = self._read()

    def _read(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(_CIPHERS.encode())
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        options = self._config.tls
        assert options.tls_certificate_path is not None, "the configuration is checked"
        assert options.tls_private_key_path is not None, "the configuration is checked"
        try:
            context.use_certificate_chain_file(options.tls_certificate_path)
        except SSL.Error:
            raise self._unusable("tls_certificate_path", options.tls_certificate_path, "a certificate") from None
        try:
            context.use_privatekey_file(options.tls_private_key_path)
            context.check_privatekey()
        except SSL.Error:
            path = options.tls_private_key_path
            raise self._unusable("tls_private_key_path", path, "the key of the certificate") from None
        return context

    def _unusable(self, option: str, path: str, what: str) -> ConfigError:
        problem = f"names {path}, which cannot be read as {what}"
        remedy = "put the right PEM file there, readable for the user that the server runs as"
        return ConfigError(self._config.place(option), option, problem, remedy)
