"""Whole homeservers within the test's process: one process, or a main process and workers in one reactor.

    async with homeserver(database_settings) as hs:
        code, body = await hs.client.post("/_matrix/client/v3/register", {...})

    async with cluster(database_settings, "synchrotron", "event_creator") as hs:
        hs.main.client, hs.workers["event_creator"].client

Requests go through the router without sockets. In a cluster, workers follow the main process and call it over real TCP
connections on loopback. Nothing is configured but what the test says, and what is needed to start.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from twisted.internet.defer import maybeDeferred

from synapse.app._homeserver import Homeserver
from synapse.app.applications import application_of
from synapse.config.root import from_options
from synapse.http.request import RawRequest
from synapse.http.site import Site
from synapse.storage.pool import PoolSettings
from tests.support.postgres import SERVER_NAME
from tests.support.reactor import real_reactor

_KEY = Path(__file__).parent.with_name("rest") / "test.signing.key"
OPTIONS: dict[str, Any] = {
    "server_name": SERVER_NAME,
    "signing_key_path": str(_KEY),
    "enable_registration": True,
    "enable_registration_without_verification": True,
    "registration_shared_secret": "the registration secret",
    "bcrypt_rounds": 4,
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
        is_json = answer.content_type is not None and answer.content_type.startswith("application/json")
        return answer.code, orjson.loads(text) if is_json else text

    async def register(self, name: str, password: str = "a password") -> str:
        """Makes an account; returns its access token."""
        body = {"username": name, "password": password, "auth": {"type": "m.login.dummy"}}
        code, answer = await self.post("/_matrix/client/v3/register", body)
        assert code == 200, answer
        return str(answer["access_token"])


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
        for port in self._ports:
            await maybeDeferred(port.stopListening)
        await self.hs.replication.stop()
        self.hs.database.close()
        self.hs.database.pool.join(5.0)

    def listen(self, factory: Any) -> int:
        """Listens on loopback; returns the port."""
        port = self.hs.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self._ports.append(port)
        return int(port.getHost().port)


class Cluster:
    """A main process and workers, the latter by the short names of their applications."""

    def __init__(self, main: TestServer) -> None:
        self.main = main
        self.workers: dict[str, TestServer] = {}
        self.replication_port = 0
        self.http_port = 0

    def __getitem__(self, name: str) -> TestServer:
        return self.workers[name]

    async def caught_up(self) -> None:
        """Returns when every worker has heard of all that the main process has announced."""
        for worker in self.workers.values():
            for stream, position in self.main.hs.notifier.positions.items():
                assert await worker.hs.notifier.wait_until(stream, position, 10.0), f"{stream} stays behind"


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
    reactor = reactor or real_reactor()
    shared = {**options, **({} if secret is None else {"worker_replication_secret": secret})}
    made = Cluster(TestServer(settings, reactor, shared))
    await made.main.start()
    try:
        made.replication_port = made.main.listen(made.main.hs.replication.factory())
        resources = frozenset({"replication"})
        made.http_port = made.main.listen(Site(made.main.hs.router, reactor, resources))
        for app in apps:
            await _add_worker(made, settings, reactor, app, shared)
        yield made
    finally:
        for worker in made.workers.values():
            await worker.stop()
        await made.main.stop()


async def _add_worker(made: Cluster, settings: PoolSettings, reactor: Any, app: str, shared: dict[str, Any]) -> None:
    options = {
        **shared,
        "worker_app": f"synapse.app.{app}",
        "worker_name": app,
        "worker_replication_host": "127.0.0.1",
        "worker_replication_port": made.replication_port,
        "worker_replication_http_port": made.http_port,
    }
    if app == "frontend_proxy":
        options["worker_main_http_uri"] = f"http://127.0.0.1:{made.http_port}"
    worker = TestServer(settings, reactor, options)
    made.workers[app] = worker
    await worker.start()


def _database(settings: PoolSettings) -> dict[str, Any]:
    return {"name": "psycopg2", "args": {**settings.connection, "cp_min": settings.minimum, "cp_max": 4}}
