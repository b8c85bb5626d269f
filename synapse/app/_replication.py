"""The process's place among the others: the streams, calls to the main process, cache invalidation.

A part of the composition root. `MainReplication` is that of the main process, which writes the streams and tells them;
`WorkerReplication` that of a worker, which follows them. To services, both look alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import msgspec

from synapse import __version__
from synapse.api.errors import unknown
from synapse.metrics import table
from synapse.replication import invalidation, protocol
from synapse.replication.calls import (
    MAX_BODY,
    PREFIX,
    A,
    Call,
    CallServer,
    Handle,
    LocalMain,
    MainProcess,
    R,
    RemoteMain,
)
from synapse.util.concurrency import spawn

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from synapse.app._accounts import Accounts
    from synapse.app._pushing import Pushing
    from synapse.config import Config
    from synapse.http.drain import Drain
    from synapse.http.router import Router
    from synapse.replication.client import ReplicationClient
    from synapse.replication.commands import MainCommands
    from synapse.replication.notifier import Notifier
    from synapse.replication.server import ReplicationServer
    from synapse.replication.writing import MainStreams, NoStreams
    from synapse.storage.background_updates import BackgroundUpdates
    from synapse.storage.database import Database
    from synapse.storage.user_ips import Seen
    from synapse.util.caches import Caches

logger = logging.getLogger(__name__)


ACKNOWLEDGE_SECONDS: Final = 0.2
GATHER_SECONDS: Final = 0.05
"""How long a process that answers nobody just now leaves rows to each other's company."""


class Foundation(Protocol):
    """What replication stands on: the rest of the composition root."""

    config: Config
    reactor: Any

    @property
    def database(self) -> Database: ...

    @property
    def notifier(self) -> Notifier: ...

    @property
    def caches(self) -> Caches: ...

    @property
    def accounts(self) -> Accounts: ...

    @property
    def pushing(self) -> Pushing: ...

    @property
    def router(self) -> Router: ...

    @property
    def drain(self) -> Drain: ...


class MainReplication:
    """The main process's."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._secret = hs.config.workers.worker_replication_secret
        self._updating: Deferred[None] | None = None

    @cached_property
    def streams(self) -> MainStreams:
        from synapse.replication.writing import MainStreams

        return MainStreams(self._hs.database, self._hs.notifier, self._hs.reactor)

    @cached_property
    def main(self) -> LocalMain:
        return LocalMain()

    @cached_property
    def invalidate(self) -> invalidation.MainInvalidator:
        return invalidation.MainInvalidator(self.streams.memory("caches"))

    @cached_property
    def commands(self) -> MainCommands:
        """What workers ask for; services take what is for them."""
        from synapse.replication.commands import MainCommands

        return MainCommands(self.invalidate)

    @cached_property
    def server(self) -> ReplicationServer:
        from synapse.replication.server import ReplicationServer

        hs = self._hs
        name, snapshots = hs.config.server.server_name, self.streams.snapshots()
        return ReplicationServer(hs.reactor, hs.notifier, self.commands, name, __version__, self._secret, snapshots)

    def mount(self, router: Router) -> None:
        """Has the router answer calls of workers."""
        server = CallServer(self.main, self._hs.reactor, self._secret)
        router.mount_prefix(PREFIX, "replication", "replication", server.serve, MAX_BODY)

    @cached_property
    def background_updates(self) -> BackgroundUpdates:
        """Changes of the database that take long."""
        from synapse.storage import event_search, relation_updates
        from synapse.storage.background_updates import BackgroundUpdates

        updates = BackgroundUpdates(self._hs.database, self._hs.reactor)
        updates.register(event_search.UPDATE, event_search.fill)
        updates.register(relation_updates.NAME, relation_updates.relate_events)
        return updates

    async def begin(self) -> None:
        hs = self._hs
        _ = hs.router  # the services take their workers' commands and calls before any worker can connect
        self.commands.on_user_ip = self._seen
        self.commands.on_remove_pusher = self._remove_pusher
        self.commands.on_federation_ack = _federation_ack
        invalidation.follow(hs.notifier, hs.caches)
        await self.streams.start()
        self._updating = spawn(self.background_updates.run())
        self._updating.addErrback(lambda failure: logger.error("Background updates end", exc_info=failure.value))

    def suspend(self) -> None:
        """Write nothing: the lease is lost."""
        self.streams.positions.suspend()

    async def resume(self) -> None:
        """Go on, with the lease regained. Raises `DatabaseProblem` if another main process has written meanwhile."""
        await self.streams.positions.resume()

    async def stop(self) -> None:
        self._hs.notifier.leave()
        self.server.close()
        self.background_updates.stop()
        if self._updating is not None:
            await self._updating
        await self.streams.stop()

    def _seen(self, user_id: str, device_id: str, ip: str, user_agent: str, at: int) -> None:
        from synapse.storage.user_ips import Seen

        self._hs.accounts.sightings.add([Seen(user_id, device_id, ip, user_agent, at)])

    def _remove_pusher(self, app_id: str, pushkey: str, user_id: str) -> None:
        """For workers that leave the database to the main process; `synapse.app.pusher` removes pushers itself."""
        from synapse.storage.pushers import Key

        removing = spawn(self._hs.pushing.store.delete(Key(user_id, app_id, pushkey)))
        removing.addErrback(lambda failure: logger.error("A pusher could not be removed", exc_info=failure.value))

    def factory(self) -> ReplicationServer:
        return self.server

    def report_syncing(self, user_id: str, device_id: str | None, presence: str, syncing: bool) -> None:
        """Tells whoever keeps presence, in this process, that a device syncs here."""
        self.commands.user_sync("main", user_id, device_id, presence, syncing)

    def acknowledge_events(self, position: int) -> None:
        """The events stream is queued for other servers up to there, by this process."""
        self.commands.federation_ack("main", position)

    async def report_sightings(self, batch: list[Seen]) -> None:
        for seen in batch:
            self.commands.user_ip(*seen)


class WorkerReplication:
    """A worker's."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._workers = hs.config.workers
        self.present: Callable[[], Iterable[protocol.Command]] = tuple
        """The commands that tell who syncs here, for a new connection; see `user_sync`."""
        self._queued = 0
        self._acknowledging: Any = None

    @cached_property
    def streams(self) -> NoStreams:
        from synapse.replication.writing import NoStreams

        return NoStreams()

    @cached_property
    def main(self) -> MainProcess:
        from synapse.http.client import Address, ProcessClient

        port = self._workers.worker_replication_http_port
        if port is None:
            return NoMain()
        address = Address(self._workers.worker_replication_host or "127.0.0.1", port)
        client = ProcessClient(self._hs.reactor, address)
        return RemoteMain(client, self._hs.reactor, self._workers.worker_replication_secret)

    @cached_property
    def invalidate(self) -> invalidation.WorkerInvalidator:
        return invalidation.WorkerInvalidator(self.client, self._hs.caches, self._hs.reactor)

    @cached_property
    def client(self) -> ReplicationClient:
        from synapse.replication.client import ReplicationClient

        hs = self._hs
        where = f"{self._workers.worker_replication_host}:{self._workers.worker_replication_port}"
        client = ReplicationClient(
            hs.reactor,
            self._connect,
            where,
            self._identity,
            hs.notifier,
            hs.database,
            lambda: self.present(),
            GATHER_SECONDS,
            lambda: hs.drain.in_flight > 0,
        )
        hs.drain.on_work = client.listen
        return client

    def mount(self, router: Router) -> None:
        """Nothing: workers answer no calls."""

    async def begin(self) -> None:
        invalidation.follow(self._hs.notifier, self._hs.caches)
        await self.client.start()

    def suspend(self) -> None:
        """Nothing: a worker holds no lease by which it would write."""

    async def resume(self) -> None:
        """Nothing, as before."""

    async def stop(self) -> None:
        if self._acknowledging is not None:
            self._acknowledging.cancel()
        self._hs.notifier.leave()
        self.client.stop()

    def factory(self) -> NoReturn:
        raise RuntimeError("only the main process listens for replication")

    def report_syncing(self, user_id: str, device_id: str | None, presence: str, syncing: bool) -> None:
        """Tells the main process that a device syncs here."""
        self.client.send(user_sync(user_id, device_id, presence, syncing))

    def acknowledge_events(self, position: int) -> None:
        """Tells the main process that the events stream is queued for other servers up to there; where it goes on and
        on, a few times in a second."""
        self._queued = position
        if self._acknowledging is None:
            self._acknowledging = self._hs.reactor.callLater(ACKNOWLEDGE_SECONDS, self._acknowledge)

    def _acknowledge(self) -> None:
        self._acknowledging = None
        self.client.send(protocol.FederationAck(self._queued))

    async def report_sightings(self, batch: list[Seen]) -> None:
        for seen in batch:
            self.client.deliver(protocol.UserIp(msgspec.json.encode(tuple(seen)).decode()))

    def _connect(self, factory: Any) -> Any:
        from synapse.replication.client import CONNECT_SECONDS

        host, port = self._workers.worker_replication_host, self._workers.worker_replication_port
        return self._hs.reactor.connectTCP(host, port, factory, timeout=CONNECT_SECONDS)

    def _identity(self, nonce: str) -> protocol.Identity:
        config = self._hs.config
        instance = "_".join(config.instance_name.split())
        secret = self._workers.worker_replication_secret
        return protocol.Identity(config.server.server_name, __version__, nonce, secret, instance)


def _federation_ack(instance: str, position: int) -> None:
    table.FEDERATION_ACKED.child(instance).set(position)


class NoMain:
    """For a worker that was not told where to call the main process."""

    def expose(self, call: Call[A, R], handle: Handle[A, R]) -> None:
        """Nothing: workers answer no calls."""

    async def __call__(self, call: Call[A, R], argument: A) -> R:
        raise unknown(
            "This worker cannot do that without the main process; its worker_replication_http_port is missing.", 503
        )


def user_sync(user_id: str, device_id: str | None, presence: str, syncing: bool) -> protocol.UserSync:
    """The command that tells the main process that a device syncs, or does not any more."""
    return protocol.UserSync(msgspec.json.encode([user_id, device_id, presence, syncing]).decode())


Replication = MainReplication | WorkerReplication
