"""What the start and the end of a process ask of its services: which of them have to do with it, and in which order.

In the main process: the lease `main`, then the streams, from where their tables end. In a worker: the streams, from the
main process. Then the duties, each under its own lease; and at the end all of it backwards.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

import psycopg2
from twisted.internet.task import deferLater

from synapse import __version__
from synapse.app._manhole import manhole_factory
from synapse.metrics import sources
from synapse.replication.leases import Duty, Lease
from synapse.storage.errors import DatabaseProblem

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from synapse.config import Config
    from synapse.config.listeners import Listener
    from synapse.http.drain import Drain
    from synapse.http.router import Router
    from synapse.metrics.sources import ReactorLag
    from synapse.replication.notifier import Notifier
    from synapse.storage.database import Database
    from synapse.util.repeating import Repeating

logger = logging.getLogger(__name__)

MAIN: Final = "main"
# How often the lease is asked for, in seconds, while another main process is leaving or the database comes back.
_POLL: Final = 0.1
# A main process that was killed lets go of its lease when the database notices, which takes a moment.
_PATIENCE: Final = 5.0
# How long one that is being replaced may take to leave; it gives requests in flight half a minute.
_PATIENCE_FOR_PREDECESSOR: Final = 60.0
# How long a main process whose database went away tries to get its lease back.
_PATIENCE_FOR_DATABASE: Final = 60.0


class Replication(Protocol):
    """The process's place in the streams."""

    async def begin(self) -> None:
        """In the main process: find out where the streams end. In a worker: be connected and up to date."""

    def suspend(self) -> None:
        """Write to no stream until `resume`."""

    async def resume(self) -> None:
        """Go on writing. Raises `DatabaseProblem` if another main process has written meanwhile."""

    async def stop(self) -> None:
        """Close the connections."""

    def factory(self) -> Any:
        """What serves listeners of type `replication`; in the main process."""


class Reading(Protocol):
    """What is kept for those who read, besides the streams."""

    async def begin(self) -> None:
        """In the main process, once the streams are there: take up what the last one left."""


class Parts(Protocol):
    """What is used of the `Homeserver`."""

    @property
    def config(self) -> Config: ...
    @property
    def reactor(self) -> Any: ...
    @property
    def drain(self) -> Drain: ...
    @property
    def database(self) -> Database: ...
    @property
    def notifier(self) -> Notifier: ...
    @property
    def reading(self) -> Reading: ...

    @property
    def edus(self) -> Reading: ...
    @property
    def router(self) -> Router: ...
    @property
    def lag(self) -> ReactorLag: ...
    @property
    def replication(self) -> Replication: ...
    @property
    def duties(self) -> Iterable[Duty]: ...
    @property
    def background(self) -> Iterable[Repeating]: ...
    def site(self, listener: Listener) -> Any: ...
    def start_database(self) -> None: ...


class HomeserverServices:
    """See `synapse.app._process.Services`.

    :param give_up: ends the process at once, because of an error that it cannot go on with.
    """

    def __init__(self, hs: Parts, give_up: Callable[[Exception], None]) -> None:
        self._hs = hs
        self._give_up = give_up
        self._duties: list[Duty] = []
        self._background: list[Repeating] = []
        self._stopping = False
        self._lease: Lease | None = None

    @property
    def drain(self) -> Drain:
        return self._hs.drain

    # -- the start -------------------------------------------------------------------------------------------------

    async def join(self, *, wait: bool) -> None:
        """Raises `DatabaseProblem` if another main process is there and stays."""
        self._observe()
        self._hs.drain.on_begin(self._hs.notifier.leave)  # whoever waits for news is answered
        if self._hs.config.is_main:
            await self._become_main(_PATIENCE_FOR_PREDECESSOR if wait else _PATIENCE)
            await self._hs.replication.begin()
            await self._hs.reading.begin()
            await self._hs.edus.begin()
            return
        # What serves requests and has duties is made before the streams are followed: it wants to hear of all that is
        # told, and only what somebody wants to hear of is followed.
        if self._hs.config.listeners:
            self._hs.router  # noqa: B018  # made when it is first looked at
        self._duties = list(self._hs.duties)
        await self._hs.replication.begin()

    async def _become_main(self, patience: float) -> None:
        self._lease = Lease(self._hs.reactor, self._hs.database.pool.settings, MAIN, self._lost)
        if not await self._acquire(self._lease, patience):
            raise DatabaseProblem(
                "Another main process of this server is running, and it holds the lease `main`; stop it first, "
                "or make this one a worker with `worker_app`."
            )

    def _observe(self) -> None:
        """Connect the metrics to what they tell of."""
        config = self._hs.config
        sources.describe_process(config.application, config.instance_name, __version__)
        self._hs.lag.start()

    async def _acquire(self, lease: Lease, patience: float) -> bool:
        """Ask for the lease until it is ours, for so many seconds at most."""
        reactor = self._hs.reactor
        deadline = reactor.seconds() + patience
        while not self._stopping:
            try:
                if await lease.acquire():
                    return True
            except psycopg2.Error as error:  # of a connection that breaks, not only an OperationalError
                logger.warning("The database cannot be asked for the lease `main`: %s", str(error).strip())
            if reactor.seconds() >= deadline:
                return False
            await deferLater(reactor, _POLL)
        return False

    def factory_for(self, listener: Listener) -> Any:
        if listener.type == "replication":
            return self._hs.replication.factory()
        if listener.type == "manhole":
            return manhole_factory(self._hs.config, {"hs": self._hs})
        enabled = self._hs.config.metrics.enable_metrics
        return self._hs.site(listener if enabled else listener.without("metrics"))

    async def start_duties(self) -> None:
        self._duties = list(self._hs.duties)
        for duty in self._duties:
            duty.start()
        self._background = list(self._hs.background)
        for each in self._background:
            each.start()

    # -- losing the lease ------------------------------------------------------------------------------------------

    def _lost(self) -> None:
        """The database went away, or it ended our connection. Write nothing until the lease is ours again."""
        self._hs.replication.suspend()
        from twisted.internet.defer import Deferred

        Deferred.fromCoroutine(self._regain()).addErrback(self._failed)

    async def _regain(self) -> None:
        assert self._lease is not None, "only a lease that was held can be lost"
        await self._revive_database()
        if await self._acquire(self._lease, _PATIENCE_FOR_DATABASE):
            await self._hs.replication.resume()
        elif not self._stopping:
            raise DatabaseProblem(
                "The lease `main` is lost and another process holds it, or the database is gone; this main process may "
                "write no more and ends."
            )

    async def _revive_database(self) -> None:
        """An embedded database has nobody else to look after it."""
        from twisted.internet.threads import deferToThread

        try:
            await deferToThread(self._hs.start_database)
        except DatabaseProblem as problem:
            logger.error("The embedded database does not start again: %s", problem)

    def _failed(self, failure: Failure) -> None:
        assert isinstance(failure.value, Exception)
        self._give_up(failure.value)

    # -- the end ---------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        self._stopping = True
        for each in self._background:
            each.stop()
        for duty in reversed(self._duties):
            await duty.stop()
        await self._hs.replication.stop()
        if self._lease is not None:
            self._lease.release()
        self._hs.database.close()
