"""Threads that own a database connection each, and hand results back to the reactor.

A job is a function of one connection. The thread that was idle last gets the next job, so that few connections stay
warm and the others may go away. Nothing here knows what a transaction is.

Everything but `_Worker.run` happens in the reactor's thread. Results come back through one queue, with one wake-up of
the reactor for all that are ready.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg2
from psycopg2 import extensions
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from synapse.storage.errors import DatabaseClosed
from synapse.storage.plans import Session, keep_plans

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from synapse.util.reactor import ThreadReactor

# JSON columns are handed out as text: most are passed on as they are, the others decode with orjson.
extensions.register_type(extensions.new_type((114, 3802), "JSON_TEXT", lambda value, _cursor: value))

IDLE_SECONDS: Final = 60.0

Job = Callable[["Connection"], Any]


class PoolSettings(NamedTuple):
    """How to connect (by the names of libpq), and how many connections to keep and to open at most."""

    connection: dict[str, Any]
    minimum: int = 1
    maximum: int = 10


class _Task(NamedTuple):
    deferred: Deferred[Any]
    job: Job


class ConnectionPool:
    """Runs jobs on threads with a connection of their own.

    :ivar closed: whether it takes no more jobs; for the threads, too.
    """

    def __init__(self, reactor: ThreadReactor, settings: PoolSettings) -> None:
        self._reactor = reactor
        self.settings = settings
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._waiting: deque[_Task] = deque()
        self._done: list[Callable[[], None]] = []
        self._done_lock = threading.Lock()
        self.closed = False

    @property
    def size(self) -> int:
        """How many threads there are."""
        return len(self._workers)

    @property
    def idle(self) -> int:
        """How many of them wait for a job."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many jobs wait for a connection."""
        return len(self._waiting)

    def run(self, job: Job) -> Deferred[Any]:
        """Runs `job` on some thread.

        Fails with what the job raises; with `psycopg2.OperationalError` without a connection.
        """
        if self.closed:
            raise DatabaseClosed("This process is ending, and its database pool is closed.")
        task = _Task(Deferred(), job)
        if self._idle:
            self._idle.pop().inbox.put(task)
        else:
            self._waiting.append(task)
            if len(self._workers) < self.settings.maximum:
                self._start_worker()
        return task.deferred

    def close(self) -> None:
        """Lets the threads end after what they are doing; jobs that still wait are done first."""
        self.closed = True
        for worker in self._workers:
            worker.inbox.put(None)

    def join(self, timeout: float) -> None:
        """Blocks until the threads have ended, each for `timeout` seconds at most. Call `close` before."""
        for worker in list(self._workers):
            worker.thread.join(timeout)
        self.deliver()

    def _start_worker(self) -> None:
        worker = _Worker(self)
        self._workers.add(worker)
        worker.thread.start()

    def next_waiting(self) -> _Task | None:
        """For the threads: a job that waits."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def finished(self, worker: _Worker, tell: Callable[[], None]) -> _Task | None:
        """For the threads: has the reactor tell what became of a job, and answers the next one, if one waits. If none
        does, the reactor hears in the same turn that the thread is idle: waking it costs more than many a job, and who
        goes on from here with another job gets the same thread.
        """
        task = self.next_waiting()
        if task is not None:
            self.post(tell)
            return task

        def idle() -> None:
            self.became_idle(worker)
            tell()

        self.post(idle)
        return None

    def post(self, fn: Callable[[], None]) -> None:
        """For the threads: has the reactor call `fn`."""
        with self._done_lock:
            self._done.append(fn)
            wake = len(self._done) == 1
        if wake:
            self._reactor.callFromThread(self.deliver)

    def deliver(self) -> None:
        """Hands results that the threads have posted to those who wait for them."""
        with self._done_lock:
            done, self._done = self._done, []
        for fn in done:
            fn()

    def became_idle(self, worker: _Worker) -> None:
        if self.closed:
            return  # it looks for jobs by itself, and ends
        task = self.next_waiting()
        if task is not None:
            worker.inbox.put(task)
        else:
            self._idle.append(worker)

    def was_idle_long(self, worker: _Worker) -> None:
        """A thread waited for work for a while:

        It ends if there are more than need be, unless it got work meanwhile.
        """
        if worker in self._idle and len(self._workers) > self.settings.minimum:
            self._idle.remove(worker)
            worker.inbox.put(None)

    def ended(self, worker: _Worker) -> None:
        self._workers.discard(worker)


class _Worker:
    """One thread and its connection."""

    def __init__(self, pool: ConnectionPool) -> None:
        self.inbox: SimpleQueue[_Task | None] = SimpleQueue()
        self._pool = pool
        self._connection: Connection | None = None
        self.thread = threading.Thread(target=self.run, name="database", daemon=True)

    def run(self) -> None:
        task = self._pool.finished(self, _nothing)
        while True:
            task = task or self._wait_for_task()
            if task is None:
                break
            task = self._pool.finished(self, self._do(task))
        if self._connection is not None:
            self._connection.close()
        self._pool.post(lambda: self._pool.ended(self))

    def _wait_for_task(self) -> _Task | None:
        """The next job; None where the thread is to end. Once the pool is closed, the reactor may learn too late that
        this thread is idle: jobs that wait then are for whichever thread comes first."""
        while not self._pool.closed or not self.inbox.empty():
            try:
                task = self.inbox.get(timeout=IDLE_SECONDS)
            except Empty:
                self._pool.post(lambda: self._pool.was_idle_long(self))
            else:
                if task is not None or not self._pool.closed:
                    return task
        return self._pool.next_waiting()

    def _do(self, task: _Task) -> Callable[[], None]:
        """Does the job; what it answers tells who waits for it, in the reactor's thread."""
        try:
            result = task.job(self._connected())
        except BaseException:
            failure: Failure = Failure()  # type: ignore[no-untyped-call]  # Twisted's is not annotated
            failure.cleanFailure()  # type: ignore[no-untyped-call]  # as above
            self._drop_if_broken()
            return lambda: task.deferred.errback(failure)
        return lambda: task.deferred.callback(result)

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._pool.settings)
        return self._connection

    def _drop_if_broken(self) -> None:
        connection = self._connection
        if connection is None:
            return
        status = connection.get_transaction_status()
        if connection.closed or status == extensions.TRANSACTION_STATUS_UNKNOWN:
            connection.close()
            self._connection = None


def _nothing() -> None:
    """What became of no job."""


def connect(settings: PoolSettings) -> Connection:
    """A new connection in autocommit mode. Raises `psycopg2.OperationalError`."""
    connection: Connection = psycopg2.connect(
        connection_factory=Session,
        **{"application_name": "synapse", "connect_timeout": 10, **settings.connection},
    )
    connection.autocommit = True
    if connection.encoding != "UTF8":
        connection.set_client_encoding("UTF8")
    keep_plans(connection)
    return connection
