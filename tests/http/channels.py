"""A site with one connection whose bytes a test writes and reads."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from typing import Any, cast

import orjson
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from synapse.api.routes import Auth, find
from synapse.http.answers import FileAnswer
from synapse.http.server import Drain, Request, Router
from synapse.http.site import Site
from synapse.http.wire import parse_answer

VERSIONS = "/_matrix/client/versions"
SEND = "/_matrix/client/v3/rooms/!r:x/send/m.x/1"
UPLOAD = "/_matrix/media/v3/upload"
FILE = "/_matrix/client/v3/register/available"
REGISTER = "/_matrix/client/v3/register"


class Transport(StringTransport):
    """Remembers what was done to it; `brake` stands in for a client that reads nothing."""

    def __init__(self) -> None:
        cast(Any, super()).__init__(peerAddress=IPv4Address("TCP", "192.0.2.9", 1))
        self.half_closed = False
        self.aborted = False
        self.brake: int | None = None

    def write(self, data: bytes) -> None:
        cast(Any, super()).write(data)
        if self.brake is not None and len(self.io.getvalue()) > self.brake and self.producer is not None:
            self.producer.pauseProducing()

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def abortConnection(self) -> None:
        self.aborted = True

    def setTcpNoDelay(self, on: bool) -> None:
        pass


class Server:
    """A site with a few endpoints, and one connection to it."""

    def __init__(self, **site: Any) -> None:
        self.clock = Clock()
        self.drain = Drain(self.clock)
        self.router = Router(self.drain)
        self.seen: list[Request] = []
        self.waiting: list[Deferred[Any]] = []
        self.site = Site(self.router, self.clock, {"client", "media"}, **site)
        self.serve("versions", self._echo)
        self.serve("room_send", self._echo)
        self.connect()

    def serve(self, name: str, handler: Any, **changes: Any) -> None:
        self.router.mount(replace(find(name), auth=Auth.NONE, ratelimit=None, **changes), handler)

    async def _echo(self, request: Request, **params: str) -> dict[str, Any]:
        self.seen.append(request)
        return {"method": request.method, "body": request.body.decode(), "from": request.client_ip}

    async def wait(self, request: Request, **params: str) -> Any:
        self.seen.append(request)
        waiting: Deferred[Any] = Deferred()
        self.waiting.append(waiting)
        return await waiting

    def connect(self) -> None:
        self.transport: Any = Transport()
        self.channel = cast(Any, self.site.buildProtocol(None))
        self.channel.makeConnection(self.transport)

    def receive(self, *data: bytes | str) -> None:
        for piece in data:
            self.channel.dataReceived(piece.encode("latin-1") if isinstance(piece, str) else piece)

    def hang_up(self) -> None:
        self.channel.connectionLost(cast(Any, Failure)(ConnectionDone()))

    def answers(self, *, to_head: bool = False) -> list[tuple[int, dict[str, str], bytes]]:
        """The answers so far, which must be complete."""
        data, found = self.transport.value(), []
        self.transport.clear()
        while data:
            head_end = data.index(b"\r\n\r\n") + 4
            head = parse_answer(data[:head_end], to_head=to_head)
            if head.status == 100:
                data = data[head_end:]
                continue
            body, rest = head.body.feed(data[head_end:])
            assert rest is not None
            found.append((head.status, head.headers, body))
            data = rest
        return found

    def answer(self) -> tuple[int, dict[str, str], Any]:
        (only,) = self.answers()
        return only[0], only[1], orjson.loads(only[2])


def request(method: str, path: str, *headers: str, body: str = "", version: str = "1.1") -> str:
    length = [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join((f"{method} {path} HTTP/{version}", "Host: x", *headers, *length, "", body))


def serve_file(server: Server, size: int, **options: Any) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115  # the answer closes it
    file.write(b"f" * size)
    file.seek(0)

    async def send(request: Request) -> FileAnswer:
        return FileAnswer(file, "image/png", (("X", "y"),), **options)

    server.serve("register_available", send)
    return file
