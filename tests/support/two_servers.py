"""Servers that federate within the test's process, over real databases and without sockets.

    async with federation(postgres, "one", "two") as net:
        alice = await net["one"].client.register("alice")
        …
        net.cut("one", "two")        # neither reaches the other
        await net.settled()          # whatever the servers are about to send each other has been sent

Their names are `one.test:8448` and so on. What one's client sends goes to the other's router, signatures included, on
another turn of the reactor. `net.asked` is what was asked of whom. Whatever the servers ask is compared with its
description.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson
from nacl.signing import SigningKey
from signedjson.key import encode_signing_key_base64
from twisted.internet.defer import Deferred

from synapse.http.client import AnswerLost, AnswerTooLarge, ClientAnswer, NotSent
from synapse.http.request import RawRequest
from tests.spec.answers import wrong_with_request
from tests.support.homeserver import TestServer, is_at_rest
from tests.support.limits import UNLIMITED
from tests.support.postgres import PostgresServer
from tests.support.reactor import real_reactor
from tests.support.resident import Resident

PORT = 8448
AT_ONCE = {"destination_min_retry_interval": 0, "max_short_retries": 0, "max_long_retries": 0}
"""Who has not answered is asked again whenever there is reason to, and not by itself."""
_DEADLINE = 60.0  # seconds, for what is waited for


class Asked(NamedTuple):
    """A request from one server to another, by their short names."""

    by: str
    of: str
    method: str
    path: str
    code: int | None  # of the answer; None where it was lost


class Network:
    """The servers by their short names, and the lines between them."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._real = real_reactor()
        self.servers: dict[str, TestServer] = {}
        self.strangers: dict[str, Resident] = {}
        """Servers of the test's own making, by their whole names."""
        self.asked: list[Asked] = []
        self.lose_answer: Callable[[Asked], bool] = lambda _: False
        """Says of which requests the answer never arrives, though they had their effect."""
        self.wrong_requests: list[str] = []
        """What is not as the specification has it about requests that the servers made."""
        self.is_by_hand = False
        self._cut: set[tuple[str, str]] = set()
        self._under_way = 0

    def __getitem__(self, name: str) -> TestServer:
        return self.servers[name]

    def cut(self, *names: str) -> None:
        """From now on, none of these servers reaches another of them."""
        self._cut |= {(a, b) for a in names for b in names if a != b}

    def cut_one_way(self, by: str, of: str) -> None:
        """From now on, the one does not reach the other, by which it is still reached."""
        self._cut.add((by, of))

    def mend(self) -> None:
        """All reach all again."""
        self._cut.clear()

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        """What the servers ask within is the test's, and may be wrong."""
        self.is_by_hand = True
        try:
            yield
        finally:
            self.is_by_hand = False

    async def pause(self, seconds: float = 0.0) -> None:
        """Gives the reactor a turn, or some."""
        done: Deferred[None] = Deferred()
        self._real.callLater(seconds, done.callback, None)
        await done

    async def until(self, is_so: Callable[[], Any]) -> None:
        """Returns once `is_so()`, which may be a coroutine function, is true. Fails after a long while."""
        deadline = self._real.seconds() + _DEADLINE
        while True:
            found = is_so()
            if hasattr(found, "__await__"):
                found = await found
            if found:
                return
            assert self._real.seconds() < deadline, "what was waited for did not come about"
            await self.pause(0.01)

    async def settled(self) -> None:
        """Returns once no request between the servers has been under way for some turns of the reactor, nor anything
        that a database was asked, however long that takes it."""
        quiet = 0
        deadline = self._real.seconds() + _DEADLINE
        while quiet < 10:
            at_rest = not self._under_way and all(is_at_rest(server.hs) for server in self.servers.values())
            quiet = quiet + 1 if at_rest else 0
            assert self._real.seconds() < deadline, "the servers go on asking each other"
            await self.pause(0.01)

    # -- what the servers' clients use ------------------------------------------------------------------------------

    async def carry(self, by: str, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> ClientAnswer:
        parts = urlsplit(url)
        name = (parts.hostname or "").removesuffix(".test")
        server = self.servers.get(name)
        self._under_way += 1
        try:
            await self.pause()
            target = parts.path + (f"?{parts.query}" if parts.query else "")
            stranger = self.strangers.get(parts.netloc)
            if (by, name) in self._cut or (stranger is None and (server is None or parts.port != PORT)):
                raise NotSent(f"{parts.netloc} cannot be reached.")
            if stranger is not None:
                code, value = stranger.answer(method, target, body, parts.netloc)
                answered = ClientAnswer(code, {}, orjson.dumps(value))
            else:
                assert server is not None
                answer = await server.hs.router.handle(RawRequest(method, target, headers, body or b""))
                answered = ClientAnswer(answer.code, {k.lower(): v for k, v in answer.headers}, answer.body)
            asked = Asked(by, name, method, target, answered.code)
            if self.lose_answer(asked) or (by, name) in self._cut:
                self.asked.append(asked._replace(code=None))
                raise AnswerLost(f"{parts.netloc} did not answer.")
            self.asked.append(asked)
            return answered
        finally:
            self._under_way -= 1


class Line:
    """In the place of a server's `HttpsTransport`: the way to the other servers of the test."""

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self._name = name

    async def send(
        self,
        destination: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: tuple[tuple[str, str], ...],
        *,
        within: float,
        max_answer: int,
    ) -> ClientAnswer:
        if not self._network.is_by_hand:
            self._network.wrong_requests += wrong_with_request(method, path, body)
        url = f"https://{destination}{path}"
        answer = await self._network.carry(self._name, method, url, body, {k.lower(): v for k, v in headers})
        if len(answer.body) > max_answer:
            raise AnswerTooLarge("The answer is too long.")
        return answer


@asynccontextmanager
async def federation(
    postgres: PostgresServer, *names: str, reactor: Any = None, **options: Any
) -> AsyncIterator[Network]:
    """Servers of one process each, started, with the duty of sending to each other. `options` are for all."""
    network = Network(reactor or real_reactor())
    databases: list[str] = []
    with tempfile.TemporaryDirectory(prefix="synapse-keys-") as keys:
        try:
            for name in names:
                databases.append(postgres.create(f"{name}.test:{PORT}"))
                server = _server(network, postgres, name, databases[-1], Path(keys), options)
                await server.start()
                network.servers[name] = server
                for duty in server.hs.duties:
                    if duty.lease.name == "federation_sender":
                        duty.start()
            yield network
            assert not network.wrong_requests, "\n".join(network.wrong_requests)
        finally:
            for server in network.servers.values():
                for duty in server.hs.duties:
                    await duty.stop()
                await server.stop()
            for database in databases:
                postgres.drop(database)


def _server(
    network: Network, postgres: PostgresServer, name: str, database: str, keys: Path, options: dict[str, Any]
) -> TestServer:
    server_name = f"{name}.test:{PORT}"
    settings = postgres.settings(database)
    key = SigningKey.generate()
    path = keys / f"{name}.key"
    path.write_text(f"ed25519 {name} {encode_signing_key_base64(_named(key, name))}\n")
    own = {"server_name": server_name, "signing_key_path": str(path), **UNLIMITED, "federation": AT_ONCE, **options}
    server = TestServer(settings, network.reactor, own)
    server.hs.federation.__dict__["transport"] = Line(network, name)  # before anything asks for it
    return server


def _named(key: SigningKey, name: str) -> Any:
    named: Any = key
    named.alg, named.version = "ed25519", name
    return named
