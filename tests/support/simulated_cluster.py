"""A server of several processes in a `Simulation`: one main process, two event creators, two synchrotrons and a client
reader, each made as it is in production, over one real database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock
from urllib.parse import urlencode

import orjson
from twisted.internet.defer import CancelledError, DeferredList

from synapse.api.routes import App, route_of
from synapse.handlers.tokens import hash_token, make_token
from synapse.http.request import RawRequest
from synapse.http.site import Site
from synapse.storage.access_tokens import NewSession
from synapse.storage.database import Database
from synapse.storage.pool import PoolSettings
from synapse.storage.users import NewUser
from tests.spec import answers
from tests.support.deferreds import started
from tests.support.homeserver import TestServer
from tests.support.limits import UNLIMITED
from tests.support.postgres import SERVER_NAME
from tests.support.simulation import Complaints, Life, SimulatedPool, Simulation

C = "/_matrix/client/v3"
LOST: Final = (0, {"errcode": "nobody answers"})
"""The answer of a process that was killed before it gave one, or is not there."""

CREATORS = ("creator1", "creator2")
SYNCHROTRONS = ("synchrotron1", "synchrotron2")
WORKERS = {
    **dict.fromkeys(CREATORS, App.EVENT_CREATOR),
    **dict.fromkeys(SYNCHROTRONS, App.SYNCHROTRON),
    "reader": App.CLIENT_READER,
}


class User:
    """Somebody with an account and one device."""

    def __init__(self, name: str, server_name: str = SERVER_NAME) -> None:
        self.user_id = f"@{name}:{server_name}"
        self.token = make_token(self.user_id)


class SimulatedCluster:
    """The processes, by name; `main` is the main process.

    :param workers: the application of each of the others.
    :param synchrotrons: the processes on which clients sync.
    :param options: of the configuration, for all processes.
    """

    def __init__(
        self,
        world: Simulation,
        settings: PoolSettings,
        workers: Mapping[str, App] = WORKERS,
        synchrotrons: Sequence[str] = SYNCHROTRONS,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.world = world
        self.workers = workers
        self.synchrotrons = synchrotrons
        self._options = {**UNLIMITED, **(options or {})}
        self._settings = settings
        self.servers: dict[str, TestServer] = {}
        self._lives: dict[str, Life] = {}
        self._dead: list[TestServer] = []
        self._ports = (0, 0)  # of the main process: replication, and calls to it
        self.complaints = Complaints()
        self.rng = world.generator()
        self._chance = world.chance()

    async def start(self) -> None:
        for name in ("main", *self.workers):
            await self.start_one(name)

    async def start_one(self, name: str) -> None:
        """Starts a process, or one in the place of a killed one."""
        if name == "main":
            main = self._make("main", {})
            await main.start()
            replication, calls = self._ports
            site = Site(main.hs.router, main.hs.reactor, frozenset({"replication"}))
            self._ports = main.listen(main.hs.replication.factory(), replication), main.listen(site, calls)
            self.servers["main"] = main
            return
        options = {
            "worker_app": str(self.workers[name].value),
            "worker_name": name,
            "worker_replication_host": "127.0.0.1",
            "worker_replication_port": self._ports[0],
            "worker_replication_http_port": self._ports[1],
        }
        worker = self._make(name, options)
        await worker.start()
        self.servers[name] = worker

    def kill(self, name: str) -> None:
        """Kills a process: whatever it had begun stays undone, or done without its knowing."""
        self._lives[name].kill()
        self._dead.append(self.servers.pop(name))

    def _make(self, name: str, options: dict[str, Any]) -> TestServer:
        life = self._lives[name] = Life(self.world)
        server = TestServer(self._settings, life, {**self._options, **options})
        database: Any = Database(life, self._settings)
        database.pool = SimulatedPool(life, self._settings)
        vars(server.hs)["database"] = database
        return server

    async def add_user(self, user: User) -> None:
        """An account, without the trouble of registering."""
        session = NewSession(user.user_id, hash_token(user.token), "DEVICE", None, 0)
        assert await self.servers["main"].hs.accounts.users.create(
            NewUser(user.user_id, None, 0, None, session=session)
        )

    async def request(
        self, user: User, method: str, path: str, body: Any = None, *, on: str | None = None, **query: Any
    ) -> tuple[int, Any]:
        """What a proxy would do with a request of that user: some process that the routes name answers it."""
        path = C + path
        name = on or self.rng.choice(self.serving(method, path))
        if name not in self.servers:
            return LOST
        server, life = self.servers[name], self._lives[name]
        if query:
            path += "?" + urlencode(query)
        headers = {"host": SERVER_NAME, "authorization": f"Bearer {user.token}"}
        sent = b"" if body is None else orjson.dumps(body)
        await self.world.pause(self._chance.delay())
        answering = started(server.hs.router.handle(RawRequest(method, path, headers, sent)))
        answer, _ = await DeferredList([answering, life.death()], fireOnOneCallback=True, fireOnOneErrback=True)
        await self.world.pause(self._chance.delay())
        if answer is None:
            # What the dead process had begun ends here, rather than when somebody collects the garbage.
            answering.addErrback(lambda failure: failure.trap(CancelledError))
            self.complaints.of_the_dead = True
            answering.cancel()
            self.complaints.of_the_dead = False
            return LOST
        answers.check(method, path, sent, answer.code, answer.body)
        return answer.code, orjson.loads(answer.body)

    def serving(self, method: str, path: str) -> list[str]:
        """The processes that may be asked; the main process serves everything."""
        route = route_of(method, path)
        return [name for name, app in self.workers.items() if route is not None and route.app is app] or ["main"]

    async def caught_up(self) -> None:
        """Returns when every process has heard of all that was written."""
        for name, server in self.servers.items():
            for stream, position in self.servers["main"].hs.notifier.positions.items():
                if server.hs.notifier.listened_to and stream in server.hs.notifier.listened_to:
                    assert await server.hs.notifier.wait_until(stream, position, 60.0), f"{name}: {stream} stays behind"

    async def stop(self) -> None:
        for server in reversed(self.servers.values()):
            await server.stop()
        for dead in self._dead:
            dead.hs.database.close()


@contextmanager
def simulated_cluster(seed: int, settings: PoolSettings) -> Iterator[SimulatedCluster]:
    """A started cluster. The ids that it invents come of the seed as well."""
    world = Simulation(seed)
    cluster = SimulatedCluster(world, settings)
    with cluster.complaints, mock.patch("secrets.token_bytes", world.generator().randbytes):
        try:
            world.run(cluster.start())
            yield cluster
        finally:
            world.run(cluster.stop())
