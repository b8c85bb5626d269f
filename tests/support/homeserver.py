"""Whole homeservers within the test's process: one process, or a main process and workers in one reactor.

    async with homeserver(database_settings) as hs:
        code, body = await hs.client.post("/_matrix/client/v3/register", {...})

    async with cluster(database_settings, "synchrotron", "event_creator") as hs:
        hs.main.client, hs.workers["event_creator"].client

Requests go through the router without sockets. In a cluster, workers follow the main process and call it over real TCP
connections on loopback. Nothing is configured but what the test says, and what is needed to start.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater

from synapse.app._homeserver import Homeserver
from synapse.app.applications import application_of
from synapse.config.root import from_options
from synapse.http.request import RawRequest
from synapse.http.site import Site
from synapse.storage.pool import PoolSettings
from tests.spec import answers
from tests.support.postgres import SERVER_NAME
from tests.support.reactor import real_reactor

_KEY = Path(__file__).parent.with_name("rest") / "test.signing.key"
_MEDIA = tempfile.TemporaryDirectory(prefix="synapse-media-")  # which goes with the tests' process
_MANY = {"per_second": 1000, "burst_count": 1000}
OPTIONS: dict[str, Any] = {
    "server_name": SERVER_NAME,
    "signing_key_path": str(_KEY),
    "media_store_path": _MEDIA.name,
    "enable_registration": True,
    "enable_registration_without_verification": True,
    "registration_shared_secret": "the registration secret",
    "bcrypt_rounds": 4,
    "rc_room_creation": _MANY,
    "rc_invites": {"per_room": _MANY, "per_user": _MANY},
}


class Client:
    """Sends requests to one process: `(status, decoded JSON)`."""

    def __init__(self, hs: Homeserver) -> None:
        self._hs = hs

    async def get(self, path: str, token: str | None = None) -> tuple[int, Any]:
        return await self.request("GET", path, None, token)

    async def put(self, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        return await self.request("PUT", path, body, token)

    async def post(self, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        return await self.request("POST", path, body, token)

    async def delete(self, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        return await self.request("DELETE", path, body, token)

    async def request(self, method: str, path: str, body: Any, token: str | None) -> tuple[int, Any]:
        """`body` is encoded as JSON unless it is bytes; none is sent for None."""
        headers = {"host": SERVER_NAME}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        sent = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
        answer = await self._hs.router.handle(RawRequest(method, path, headers, sent))
        text = answer.body
        answers.check(method, path, sent, answer.code, text)
        is_json = answer.content_type is not None and answer.content_type.startswith("application/json")
        return answer.code, orjson.loads(text) if is_json else text

    async def register(self, name: str, password: str = "a password") -> str:
        """Makes an account; returns its access token."""
        body = {"username": name, "password": password, "auth": {"type": "m.login.dummy"}}
        code, answer = await self.post("/_matrix/client/v3/register", body)
        assert code == 200, answer
        return str(answer["access_token"])


class _Kept(Factory):
    """Keeps the connections of another factory, to break them as the end of a process would."""

    noisy = False

    def __init__(self, factory: Any) -> None:
        self._factory = factory
        self._connections: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        self._connections.append(self._factory.buildProtocol(addr))
        return self._connections[-1]

    def abort(self) -> None:
        for connection in self._connections:
            if connection.transport is not None:
                connection.transport.abortConnection()


class TestServer:
    """One process: `hs` is its composition root."""

    __test__ = False

    def __init__(self, settings: PoolSettings, reactor: Any, options: dict[str, Any]) -> None:
        config = from_options({**OPTIONS, "database": _database(settings), **options})
        self.hs = Homeserver(config, application_of(config), reactor)
        self.client = Client(self.hs)
        self._ports: list[Any] = []

    async def start(self) -> None:
        _ = self.hs.router  # builds the services, which listen to streams and answer calls
        await self.hs.replication.begin()

    async def stop(self) -> None:
        for port, kept in self._ports:
            await maybeDeferred(port.stopListening)
            kept.abort()
        await self.hs.replication.stop()
        self.hs.database.close()
        self.hs.database.pool.join(5.0)

    def listen(self, factory: Any, number: int = 0) -> int:
        """Listens on loopback; returns the port."""
        kept = _Kept(factory)
        port = self.hs.reactor.listenTCP(number, kept, interface="127.0.0.1")
        self._ports.append((port, kept))
        return int(port.getHost().port)


def is_at_rest(hs: Homeserver) -> bool:
    """Whether nothing that a process asked of its database is under way."""
    pool = hs.database.pool
    return pool.idle == pool.size and not pool.waiting


async def at_rest(*servers: TestServer) -> None:
    """Returns once nothing has been asked of the databases for some turns of the reactor: what processes do by the way,
    such as noting down who was active, is done."""
    quiet = 0
    while quiet < 10:
        quiet = quiet + 1 if all(is_at_rest(server.hs) for server in servers) else 0
        await deferLater(servers[0].hs.reactor, 0.01)


class Cluster:
    """A main process and workers, the latter by the short names of their applications."""

    def __init__(self, settings: PoolSettings, reactor: Any, shared: dict[str, Any]) -> None:
        self._settings = settings
        self._reactor = reactor
        self._shared = shared
        self.workers: dict[str, TestServer] = {}
        self.replication_port = 0
        self.http_port = 0
        self.main = TestServer(settings, reactor, shared)

    async def start_main(self) -> None:
        """Starts the main process, on the ports that it had before, if any."""
        await self.main.start()
        hs = self.main.hs
        self.replication_port = self.main.listen(hs.replication.factory(), self.replication_port)
        site = Site(hs.router, self._reactor, frozenset({"replication", "client"}))
        self.http_port = self.main.listen(site, self.http_port)

    async def stop_main(self) -> None:
        """Ends the main process; a new one, not started, takes its place."""
        await self.main.stop()
        self.main = TestServer(self._settings, self._reactor, self._shared)

    async def add_worker(self, app: str, **more: Any) -> TestServer:
        """Starts a worker."""
        options = {
            **self._shared,
            "worker_app": f"synapse.app.{app}",
            "worker_name": app,
            "worker_replication_host": "127.0.0.1",
            "worker_replication_port": self.replication_port,
            "worker_replication_http_port": self.http_port,
            **more,
        }
        if app == "frontend_proxy":
            options["worker_main_http_uri"] = f"http://127.0.0.1:{self.http_port}"
        worker = self.workers[app] = TestServer(self._settings, self._reactor, options)
        await worker.start()
        return worker

    def __getitem__(self, name: str) -> TestServer:
        return self.workers[name]

    async def caught_up(self) -> None:
        """Returns when every worker has heard of all that the main process has announced, and that it follows."""
        for worker in self.workers.values():
            notifier = worker.hs.notifier
            for stream in notifier.listened_to:
                position = self.main.hs.notifier.position(stream)
                assert await notifier.wait_until(stream, position, 60.0), f"{stream} stays behind"


@asynccontextmanager
async def homeserver(settings: PoolSettings, reactor: Any = None, **options: Any) -> AsyncIterator[TestServer]:
    """A homeserver in one process, started."""
    server = TestServer(settings, reactor or real_reactor(), options)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def cluster(
    settings: PoolSettings, *apps: str, reactor: Any = None, secret: str | None = None, **options: Any
) -> AsyncIterator[Cluster]:
    """A main process and a worker of each of `apps`, started and connected."""
    shared = {**options, **({} if secret is None else {"worker_replication_secret": secret})}
    made = Cluster(settings, reactor or real_reactor(), shared)
    try:
        await made.start_main()
        for app in apps:
            await made.add_worker(app)
        yield made
    finally:
        for worker in made.workers.values():
            await worker.stop()
        await made.main.stop()


def _database(settings: PoolSettings) -> dict[str, Any]:
    return {"name": "psycopg2", "args": {**settings.connection, "cp_min": settings.minimum, "cp_max": 4}}
