"""HTTP requests to other processes of this server, over kept connections to a host and port or to a unix socket.

How requests are sent and what can come of them is in `http.exchange`. Nothing goes through a pool of Twisted's: this is
the way of every message that a worker sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.protocol import ClientFactory

from synapse.http.exchange import (
    MAX_ANSWER,
    AnswerLate,
    AnswerLost,
    AnswerTooLarge,
    ClientAnswer,
    ClientError,
    Connections,
    NotSent,
)
from synapse.http.wire import encode_head
from synapse.metrics import table

__all__ = [
    "MAX_ANSWER",
    "Address",
    "AnswerLate",
    "AnswerLost",
    "AnswerTooLarge",
    "ClientAnswer",
    "ClientError",
    "NotSent",
    "ProcessClient",
]

MAX_CONNECTIONS = 100


@dataclass(frozen=True, slots=True)
class Address:
    """Where a process listens: a host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False

    @classmethod
    def parse(cls, url: str) -> Address:
        """`http://127.0.0.1:9093`, `https://…`, or `unix:/path`. Raises ValueError."""
        if url.startswith("unix:"):
            return cls(path=url.removeprefix("unix:"))
        from urllib.parse import urlsplit

        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
            raise ValueError(f"'{url}' is not of the form http://HOST:PORT or unix:PATH")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls=tls)

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class ProcessClient:
    """Requests to one process.

    :param reactor: connects and tells the time.
    """

    def __init__(self, reactor: Any, address: Address, max_connections: int = MAX_CONNECTIONS) -> None:
        self._reactor = reactor
        self.address = address
        self._host = "localhost" if address.path else str(address)
        idle_gauge = table.CALL_CONNECTIONS.child(str(address), "idle")
        busy_gauge = table.CALL_CONNECTIONS.child(str(address), "busy")

        def tell(idle: int, busy: int) -> None:
            idle_gauge.set(idle)
            busy_gauge.set(busy)

        self._connections = Connections(reactor, str(address), self._dial, max_connections, tell=tell)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: tuple[tuple[str, str], ...] = (),
        *,
        within: float = 60.0,
        repeatable: bool = False,
    ) -> ClientAnswer:
        """Sends a request and waits for the answer, `within` so many seconds. Raises ClientError.

        With `repeatable`, a request that meets a connection which the other side has just ended is sent once more.
        """
        first = f"{method} {path} HTTP/1.1\r\nHost: {self._host}"
        length = (("Content-Length", str(len(body))),) if body or method not in ("GET", "HEAD") else ()
        message = encode_head(first, (*headers, *length)) + body
        began = self._reactor.seconds()
        try:
            answer = await self._connections.exchange(message, within, to_head=method == "HEAD", repeatable=repeatable)
        except ClientError as e:
            table.CALLS.child(e.outcome).inc()
            raise
        table.CALLS.child(str(answer.code)).inc()
        table.CALL_SECONDS.child().observe(self._reactor.seconds() - began)
        return answer

    def close(self) -> None:
        """Ends idle connections; those in use end with their answer."""
        self._connections.close()

    def _dial(self, factory: ClientFactory, within: float) -> None:
        address = self.address
        if address.path:
            self._reactor.connectUNIX(address.path, factory, timeout=within)
        elif address.tls:
            from twisted.internet.ssl import optionsForClientTLS

            self._reactor.connectSSL(address.host, address.port, factory, optionsForClientTLS(address.host), within)
        else:
            self._reactor.connectTCP(address.host, address.port, factory, timeout=within)
