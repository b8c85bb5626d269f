"""Requests to the world outside, wherever users say: names are resolved, private addresses left out, and the connection
goes to the very address that was looked at.

No redirects are followed, no compression is asked for, and an answer has a largest size and a time to be there. The
errors are those of `http.client`: `NotSent` had no effect, `AnswerLost` and `AnswerLate` may have had one.

Importing this loads Twisted's HTTP client and OpenSSL: do it when the first request is to be made.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web import client as twisted_client
from twisted.web.client import URI, ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from synapse.http.addresses import AddressFilter
from synapse.http.client import AnswerLate, AnswerLost, AnswerTooLarge, ClientAnswer, NotSent
from synapse.http.resolving import ThreadedResolver
from synapse.http.tls import Contexts, Trust

web: Any = twisted_client  # without types of its own

__all__ = ["FilteringReactor", "OutsideClient", "Trust"]

CONNECT: Final = 10.0  # seconds
KEPT: Final = 60.0  # seconds that an idle connection is kept
MAX_ANSWER: Final = 1 << 20


class OutsideClient:
    """Requests to hosts that users name.

    :param reactor: connects, resolves names and tells the time.
    """

    def __init__(self, reactor: Any, addresses: AddressFilter, trust: Trust) -> None:
        self._reactor = reactor
        endpoints = _Endpoints(FilteringReactor(reactor, addresses), trust)
        pool = web.HTTPConnectionPool(reactor)
        pool.cachedConnectionTimeout = KEPT
        pool.retryAutomatically = False
        self._pool = pool
        self._agent = web.Agent.usingEndpointFactory(reactor, endpoints, pool)

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        within: float = 30.0,
        max_answer: int = MAX_ANSWER,
    ) -> ClientAnswer:
        """Sends a request and waits for the answer, `within` so many seconds. Raises ClientError."""
        parts = urlsplit(url)
        asked = Deferred.fromCoroutine(self._exchange(method, url, body, headers, max_answer))

        def late(_reason: object, seconds: float) -> None:
            raise AnswerLate(f"{parts.netloc} did not answer within {seconds:g} seconds.")

        asked.addTimeout(within, self._reactor, late)
        try:
            return await asked
        except (AnswerLate, AnswerLost):
            raise
        except (ConnectError, DNSLookupError, ValueError) as error:
            raise NotSent(f"{parts.netloc} cannot be reached.") from error
        except Exception as error:  # whatever TLS and HTTP may find wrong with the other side
            raise AnswerLost(f"{parts.netloc} did not answer properly: {type(error).__name__}.") from error

    async def close(self) -> None:
        """Ends idle connections."""
        await self._pool.closeCachedConnections()

    async def _exchange(
        self, method: str, url: str, body: bytes | None, headers: tuple[tuple[str, str], ...], max_answer: int
    ) -> ClientAnswer:
        sent = Headers({"User-Agent": ["Synapse"]})
        for name, value in headers:
            sent.addRawHeader(name, value)
        producer = None if body is None else _Body(body)
        response = await self._agent.request(method.encode("ascii"), url.encode("ascii"), sent, producer)
        collector = _Collector(max_answer)
        response.deliverBody(collector)
        content = await collector.done
        found = {
            name.decode("latin-1").lower(): b", ".join(values).decode("latin-1")
            for name, values in response.headers.getAllRawHeaders()
        }
        return ClientAnswer(response.code, found, content)


@implementer(IBodyProducer)
class _Body:
    """Bytes as a request's body."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.length = len(body)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """Everything was written at once."""

    def resumeProducing(self) -> None:
        """Everything was written at once."""

    def stopProducing(self) -> None:
        """Everything was written at once."""


class _Collector(Protocol):
    """Reads an answer's body, unless it is too large."""

    transport: Any

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self.done: Deferred[bytes] = Deferred(lambda _: self.transport.abortConnection())

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit:
            self._parts.append(data)
            return
        if not self.done.called:
            self.done.errback(AnswerTooLarge(f"The answer has more than {self._limit} bytes."))
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if isinstance(reason.value, ResponseDone):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(AnswerLost("The answer broke off."))


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """How to connect to a URL's host."""

    def __init__(self, reactor: FilteringReactor, trust: Trust) -> None:
        self._reactor = reactor
        self._contexts = Contexts(trust.authorities)
        self._trust = trust

    def endpointForURI(self, uri: URI) -> Any:
        host = uri.host.decode("ascii").strip("[]")
        endpoint: Any = HostnameEndpoint(self._reactor, host, uri.port, timeout=CONNECT)
        if uri.scheme != b"https":
            return endpoint
        return wrapClientTLS(self._contexts.towards(host, verify=self._trust.needed(host)), endpoint)


# -- names and addresses -----------------------------------------------------------------------------------------------


@implementer(IReactorPluggableNameResolver)
class FilteringReactor:
    """The reactor with a resolver that leaves out what is not allowed; addresses written out go through it as well."""

    def __init__(self, reactor: Any, addresses: AddressFilter) -> None:
        self._reactor = reactor
        self.nameResolver = _FilteringResolver(ThreadedResolver(reactor), addresses)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def installNameResolver(self, resolver: Any) -> Any:
        """Part of the interface; whoever wants another resolver makes another client."""
        raise NotImplementedError("the resolver of this client cannot be changed")


@implementer(IHostnameResolver)
class _FilteringResolver:
    def __init__(self, resolver: Any, addresses: AddressFilter) -> None:
        self._resolver = resolver
        self._addresses = addresses

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        receiver = _FilteringReceiver(resolutionReceiver, self._addresses)
        found: IHostResolution = self._resolver.resolveHostName(
            receiver, hostName, portNumber, addressTypes, transportSemantics
        )
        return found


@implementer(IResolutionReceiver)
class _FilteringReceiver:
    def __init__(self, receiver: Any, addresses: AddressFilter) -> None:
        self._receiver = receiver
        self._addresses = addresses

    def resolutionBegan(self, resolutionInProgress: Any) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: Any) -> None:
        if self._addresses.allows(address.host):
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._receiver.resolutionComplete()
