"""Figures that are kept anyway, read when somebody asks for them; and the reactor's lag, which nobody keeps.

Each `watch_…` connects a metric of the table to the object that knows; the objects are described by what is read of
them, so that nothing of the layers above is imported.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from synapse.metrics import table
from synapse.metrics.types import Source

if TYPE_CHECKING:
    from synapse.util.clock import Clock, Timer

LAG_INTERVAL = 5.0  # seconds; often enough to be caught in a jam, seldom enough to let an idle process sleep


class DatabaseUsage(Protocol):
    """What the transactions of one name have cost since the start."""

    transactions: int
    statements: int
    retries: int
    seconds: float


class Pool(Protocol):
    """The threads that talk to the database."""

    @property
    def size(self) -> int: ...

    @property
    def waiting(self) -> int: ...


class CacheFigures(Protocol):
    """What a cache keeps of itself."""

    name: str
    size: int
    hits: int
    misses: int
    evictions: int

    def __len__(self) -> int: ...


def watch_caches(caches: Iterable[CacheFigures]) -> None:
    """Tells of every cache in `caches`, those that join it later included."""

    def read(get: Callable[[CacheFigures], float]) -> Source:
        return lambda: [((cache.name,), get(cache)) for cache in caches]

    table.CACHE_HITS.read_from(read(lambda cache: cache.hits))
    table.CACHE_MISSES.read_from(read(lambda cache: cache.misses))
    table.CACHE_EVICTIONS.read_from(read(lambda cache: cache.evictions))
    table.CACHE_ENTRIES.read_from(read(len))
    table.CACHE_SIZE.read_from(read(lambda cache: cache.size))


def watch_database(usage: Mapping[str, DatabaseUsage], pool: Pool) -> None:
    """Tells of the database: the usage by name of transaction, and the pool."""

    def read(attribute: str) -> Source:
        get: Callable[[DatabaseUsage], float] = operator.attrgetter(attribute)
        return lambda: [((name,), get(used)) for name, used in list(usage.items())]

    table.DB_TRANSACTIONS.read_from(read("transactions"))
    table.DB_STATEMENTS.read_from(read("statements"))
    table.DB_RETRIES.read_from(read("retries"))
    table.DB_SECONDS.read_from(read("seconds"))
    table.DB_THREADS.read_from(lambda: [((), pool.size)])
    table.DB_WAITING.read_from(lambda: [((), pool.waiting)])


def describe_process(app: str, name: str, version: str) -> None:
    """Says which application this process runs, and what it is called."""
    table.BUILD_INFO.clear()
    table.BUILD_INFO.child(app, name, version).set(1)


class ReactorLag:
    """Measures how late timers fire."""

    def __init__(self, reactor: Clock) -> None:
        self._reactor = reactor
        self._expected = 0.0
        self._call: Timer | None = None

    def start(self) -> None:
        self._expected = self._reactor.seconds() + LAG_INTERVAL
        self._call = self._reactor.callLater(LAG_INTERVAL, self._tick)

    def stop(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None

    def _tick(self) -> None:
        table.REACTOR_LAG.observe(max(0.0, self._reactor.seconds() - self._expected))
        self.start()
