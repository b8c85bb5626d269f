"""Figures that are kept anyway, read when somebody asks for them; and the reactor's lag, which nobody keeps.

Each `watch_…` connects a metric of the table to the object that knows; the objects are described by what is read of
them, so that nothing of the layers above is imported.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
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


def watch_database(usage: Mapping[str, DatabaseUsage]) -> None:
    """Tells of the database, from the usage by name of transaction."""

    def read(attribute: str) -> Source:
        get: Callable[[DatabaseUsage], float] = operator.attrgetter(attribute)
        return lambda: [((name,), get(used)) for name, used in list(usage.items())]

    table.DB_TRANSACTIONS.read_from(read("transactions"))
    table.DB_STATEMENTS.read_from(read("statements"))
    table.DB_RETRIES.read_from(read("retries"))
    table.DB_SECONDS.read_from(read("seconds"))


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
