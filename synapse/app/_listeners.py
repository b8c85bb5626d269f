"""The listeners of a process: its sockets as a whole, what is served behind each, and how they end.

listeners = Listeners(config, beside=False)
listeners.bind()                        # at the very start: a port in use is found before anything else is done
listeners.queue()                       # beside another process: connections come here from now on, and wait
listeners.accept(reactor, factory_for)  # now they are served
listeners.drain()                       # the end: what waited is taken still, the addresses are free
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from synapse.app._sockets import AddressError, Bound, accept, bind, drain, steer_to_newest
from synapse.config import ConfigError

if TYPE_CHECKING:
    from synapse.app._tls import Certificate
    from synapse.config import Config
    from synapse.config.listeners import Listener

logger = logging.getLogger(__name__)

FactoryFor = Callable[["Listener"], Any]


class Listeners:
    """See the module.

    :param beside: whether another process holds the same addresses, because this one takes over from it.
    """

    def __init__(self, config: Config, *, beside: bool = False) -> None:
        self._config = config
        self._beside = beside
        self._bound: list[tuple[Listener, Bound]] = []
        self._ports: list[Any] = []
        self._queueing = False
        self._certificate: Certificate | None = None

    def bind(self) -> None:
        """Take the addresses, read the certificate. Raises `ConfigError` for what cannot be had."""
        if any(listener.tls for listener in self._config.listeners):
            from synapse.app._tls import Certificate

            self._certificate = Certificate(self._config)
        for index, listener in enumerate(self._config.listeners):
            try:
                self._bound += [(listener, bound) for bound in bind(listener, beside=self._beside)]
            except AddressError as error:
                raise self._as_config_error(error, index, listener) from None

    def _as_config_error(self, error: AddressError, index: int, listener: Listener) -> ConfigError:
        top = self._config.listeners_option
        option = f"{top}[{index}].{'port' if listener.path is None else 'path'}"
        return ConfigError(self._config.place(top), option, error.problem, error.remedy)

    @property
    def addresses(self) -> list[tuple[Listener, str, int]]:
        """Listener, address and port of each TCP socket, as bound."""
        return [(listener, bound.address, bound.port) for listener, bound in self._bound if bound.path is None]

    def queue(self) -> None:
        """Have new connections wait for us; until `accept`, nobody serves them."""
        for _, bound in self._bound:
            bound.queue()
            if self._beside and bound.path is None:
                steer_to_newest(bound.socket)
        self._queueing = True

    def accept(self, reactor: Any, factory_for: FactoryFor) -> None:
        """Serve; `factory_for` gives the protocol factory behind a listener. Raises `ConfigError`."""
        if not self._queueing:
            self.queue()
        for index, listener in enumerate(self._config.listeners):
            factory = factory_for(listener)
            if listener.tls:
                factory = self._with_tls(factory)
            self._ports += [accept(reactor, bound, factory) for own, bound in self._bound if own is listener]
            logger.info("Listening: %s (%s[%d])", listener, self._config.listeners_option, index)

    def _with_tls(self, factory: Any) -> Any:
        from twisted.protocols.tls import TLSMemoryBIOFactory

        certificate: Any = self._certificate
        return TLSMemoryBIOFactory(certificate, False, factory)

    def reload_certificates(self) -> None:
        """Read certificate and key again, for new connections; the old ones stay if the files are not right."""
        if self._certificate is None:
            return
        try:
            self._certificate.reload()
            logger.info("Read the TLS certificate again")
        except ConfigError as error:
            logger.error("The TLS certificate stays as it was: %s", error)

    def drain(self) -> None:
        """Accept what the kernel still holds for us, and take no more."""
        for port in self._ports:
            drain(port)
            port.stopListening()
        for _, bound in self._bound:
            bound.close()
        self._ports = []
        self._bound = []
