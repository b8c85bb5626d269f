"""Servers of others, for tests: HTTPS on loopback, with certificates of an authority that the test makes.

`Elsewhere` answers with what its `answer` function says; `certificate` makes the authority's certificates.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface import implementer

from tests.support.authority import Authority
from tests.support.reactor import real_reactor


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class Told(NamedTuple):
    """An answer: an object becomes JSON."""

    code: int = 200
    body: Any = b""
    headers: dict[str, str] = {}  # noqa: RUF012

    def encoded(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else orjson.dumps(self.body)


Answer = Callable[[Asked], Awaitable[Told]]


class Certificates:
    """An authority, whose certificate is at `path`, and a certificate for `localhost`."""

    def __init__(self, directory: Path) -> None:
        self._authority = Authority(directory)
        self.path = str(self._authority.path)
        self.server_path = str(self._authority.issue("localhost").both)

    def options(self, host: str = "localhost", not_after: datetime | None = None) -> Any:
        """What a server presents that has a certificate for a name or an address, until a moment if one is given."""
        if not_after is not None:
            return _Presented(str(self._authority.issue(host, not_after=not_after).both))
        return _Presented(self.server_path if host == "localhost" else str(self._authority.issue(host).both))


@implementer(IOpenSSLContextFactory)
class _Presented:
    """A context factory for one file with certificate and key."""

    def __init__(self, path: str) -> None:
        self._context = SSL.Context(SSL.TLS_SERVER_METHOD)
        self._context.use_certificate_chain_file(path)
        self._context.use_privatekey_file(path)

    def getContext(self) -> Any:
        return self._context


class _Resource(Resource):
    isLeaf = True

    def __init__(self, elsewhere: Elsewhere) -> None:
        super().__init__()
        self._elsewhere = elsewhere

    def render(self, request: Any) -> Any:
        asked = Asked(
            request.method.decode(),
            request.path.decode(),
            request.uri.decode().partition("?")[2],
            {k.decode().lower(): v[0].decode() for k, v in request.requestHeaders.getAllRawHeaders()},
            request.content.read(),
        )
        self._elsewhere.asked.append(asked)
        request.notifyFinish().addErrback(lambda _: None)
        Deferred.fromCoroutine(self._answer(request, asked))
        return NOT_DONE_YET

    async def _answer(self, request: Any, asked: Asked) -> None:
        told = await self._elsewhere.answer(asked)
        request.setResponseCode(told.code)
        for name, value in told.headers.items():
            request.setHeader(name, value)
        request.write(told.encoded())
        request.finish()


class Elsewhere:
    """One server: `name` is `localhost:PORT`, `asked` what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.name = ""


@asynccontextmanager
async def elsewhere(
    certificates: Certificates,
    answer: Answer,
    host: str = "localhost",
    interface: str = "127.0.0.1",
    not_after: datetime | None = None,
) -> AsyncIterator[Elsewhere]:
    """A server that listens, with a certificate for `host`, valid until `not_after`."""
    made = Elsewhere(answer)
    site: Any = Site(_Resource(made))
    port = real_reactor().listenSSL(0, site, certificates.options(host, not_after), interface=interface)
    made.name = f"localhost:{port.getHost().port}"
    try:
        yield made
    finally:
        await port.stopListening()
