"""Leases: a duty that one process of a server may perform at a time.

A lease is a PostgreSQL advisory lock, held on a connection of its own: the database lets go of it the moment that the
connection ends, however the process ended. While the lease is held its socket lies in the reactor, so that its end is
noticed at once; keepalives end a connection whose other side has vanished.

`Lease` is the lock. `Duty` performs something while it holds its lease, and stands by while another process does.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import psycopg2
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from synapse.metrics import table
from synapse.storage.pool import connect
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from synapse.storage.pool import PoolSettings

logger = logging.getLogger(__name__)

POLL: Final = 2.0  # seconds between the attempts of one who stands by
# A peer that has vanished is given up after about ten seconds; then its lock is free, and ours is lost.
_KEEPALIVES: Final = {"keepalives_idle": 4, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
# The lock must outlive idleness, whatever the database's defaults are; and the server must notice that we have
# vanished, a little later than we notice that it has. (On a unix socket, the keepalives have no effect.)
_SESSION: Final = "SET tcp_keepalives_idle = 8; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3"
_SESSION_SINCE_14: Final = "SET idle_session_timeout = 0"


class Lease:
    """The lock of one name among the processes of one database.

    :param on_lost: called in the reactor's thread when the lease was held and its connection has ended.
    """

    def __init__(self, reactor: Any, settings: PoolSettings, name: str, on_lost: Callable[[], None]) -> None:
        self._reactor = reactor
        self._settings = settings._replace(connection={**_KEEPALIVES, **settings.connection})
        self._on_lost = on_lost
        self._connection: Connection | None = None
        self._socket: _Socket | None = None
        self.name = name
        self._gauge = table.LEASES.child(name)
        self._gauge.set(0)

    @property
    def held(self) -> bool:
        return self._socket is not None

    async def acquire(self) -> bool:
        """Take the lease if it is free. Raises `psycopg2.OperationalError` when the database cannot be asked."""
        if self.held:
            return True
        result: Deferred[Connection | None] = Deferred()
        threading.Thread(target=self._try, args=(result,), name=f"lease {self.name}", daemon=True).start()
        connection = await result
        if connection is None:
            return False
        self._connection = connection
        self._socket = _Socket(connection, self._lost)
        self._reactor.addReader(self._socket)
        self._gauge.set(1)
        return True

    def release(self) -> None:
        """Let go of the lease, if it is held."""
        socket, self._socket = self._socket, None
        if socket is not None:
            self._reactor.removeReader(socket)
            socket.close()
            self._gauge.set(0)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _lost(self) -> None:
        logger.warning("The lease '%s' is lost: its connection to the database has ended", self.name)
        self.release()
        self._on_lost()

    def _try(self, result: Deferred[Connection | None]) -> None:
        """In a thread: the connection that holds the lock, None if another holds it."""
        try:
            connection = self._lock()
        except BaseException as error:
            failure: Failure = Failure(error)  # type: ignore[no-untyped-call]  # Twisted's is not annotated
            self._reactor.callFromThread(result.errback, failure)
        else:
            self._reactor.callFromThread(result.callback, connection)

    def _lock(self) -> Connection | None:
        connection = connect(self._settings)
        locked = False
        try:
            with connection.cursor() as cursor:
                cursor.execute(_SESSION)
                if connection.server_version >= 140000:
                    cursor.execute(_SESSION_SINCE_14)
                cursor.execute("SELECT pg_try_advisory_lock(%s)", (key_of(self.name),))
                row = cursor.fetchone()
                locked = bool(row and row[0])
        finally:
            if not locked:
                connection.close()
        return connection if locked else None


class _Socket:
    """The connection of a lease in the reactor (IReadDescriptor): nothing is ever said on it but its end."""

    def __init__(self, connection: Connection, ended: Callable[[], None]) -> None:
        self._connection = connection
        self._ended = ended
        # A descriptor of our own: libpq closes its one at once when the connection breaks, and the reactor could not
        # forget a number that is no descriptor any more, or somebody else's by then.
        self._fileno = os.dup(connection.fileno())

    def fileno(self) -> int:
        return self._fileno

    def close(self) -> None:
        os.close(self._fileno)
        self._fileno = -1  # for the reactor, which looks again after doRead

    def doRead(self) -> None:
        try:
            self._connection.poll()
        except psycopg2.Error:
            self._ended()
            return
        if self._connection.closed:
            self._ended()

    def connectionLost(self, reason: Failure) -> None:
        if not isinstance(reason.value, ConnectionDone):
            self._ended()

    def logPrefix(self) -> str:
        return "lease"


def key_of(name: str) -> int:
    """The number of a lock: advisory locks are named by 64 signed bits, apart for each database."""
    return int.from_bytes(hashlib.sha256(f"synapse lease {name}".encode()).digest()[:8], "big", signed=True)


class Duty:
    """What one process performs for all of them, under the lease of its name.

    :param begin: called when the lease is ours; from then on the duty is performed. If it fails, it is called again.
    :param end: called when the lease is lost or let go; the duty must not act from then on. Where that is while `begin`
        is still at work, it is called a second time, when that is done.
    """

    def __init__(
        self,
        reactor: Any,
        settings: PoolSettings,
        name: str,
        begin: Callable[[], Awaitable[None]],
        end: Callable[[], Awaitable[None]],
    ) -> None:
        self._reactor = reactor
        self._begin = begin
        self._end = end
        self._stopped = True
        self._timer: Any = None
        self._performing = False
        self._beginning = False
        self._told = False
        self.lease = Lease(reactor, settings, name, self._lost)

    def start(self) -> None:
        """Perform the duty now, or as soon as no other process does."""
        self._stopped = False
        self._spawn(self._try())

    async def stop(self) -> None:
        """End the duty, then let go of the lease."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        await self._cease()
        self.lease.release()

    async def _try(self) -> None:
        if self._stopped:
            return
        try:
            ours = await self.lease.acquire()
        except psycopg2.Error as error:
            logger.warning("The lease '%s' cannot be asked for: %s", self.lease.name, str(error).strip())
            ours = False
        if self._stopped:
            self.lease.release()
        elif ours and self._beginning:  # the lease was lost meanwhile, and is ours again
            self._again()
        elif ours:
            self._told = False
            await self._perform()
        else:
            if not self._told:
                logger.info("Another process performs the duty '%s'; this one stands by", self.lease.name)
                self._told = True
            self._again()

    async def _perform(self) -> None:
        logger.info("This process performs the duty '%s'", self.lease.name)
        self._performing = self._beginning = True
        problem: Exception | None = None
        try:
            await self._begin()
        except Exception as error:
            problem = error
        finally:
            self._beginning = False
        if problem is None and self._performing:
            return
        failed, self._performing = self._performing, False
        if problem is not None and failed:
            log_failure(logger, problem, "The duty '%s' could not be begun; it is tried again", self.lease.name)
        try:
            await self._end()
        finally:
            if failed and not self._stopped:
                self._again()

    def _again(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._reactor.callLater(POLL, lambda: self._spawn(self._try()))

    def _lost(self) -> None:
        self._spawn(self._cease())
        if not self._stopped:
            self._again()

    async def _cease(self) -> None:
        if self._performing:
            self._performing = False
            await self._end()

    def _spawn(self, work: Any) -> None:
        Deferred.fromCoroutine(work).addErrback(
            lambda failure: logger.error("The duty '%s' failed", self.lease.name, exc_info=failure.value)
        )
