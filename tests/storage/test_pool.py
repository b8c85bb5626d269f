"""Threads with connections of their own: no job is lost between them and the reactor, also as they end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from synapse.storage.pool import ConnectionPool, PoolSettings

PATIENCE = 60.0


class Reactor:
    """One that hears what threads have to say when the test has it `deliver`."""

    def __init__(self) -> None:
        self.woken = threading.Semaphore(0)

    def callFromThread(self, fn: Callable[..., object], *args: Any) -> None:
        self.woken.release()


def test_a_job_that_waits_when_the_pool_is_closed_is_done(database_settings: PoolSettings) -> None:
    reactor = Reactor()
    pool = ConnectionPool(reactor, database_settings._replace(minimum=1, maximum=1))
    go_on = threading.Event()
    first = pool.run(lambda connection: go_on.wait(PATIENCE))
    assert reactor.woken.acquire(timeout=PATIENCE)  # the thread has begun
    pool.deliver()
    go_on.set()
    assert reactor.woken.acquire(timeout=PATIENCE)  # it is idle, which the reactor has not heard yet
    second = pool.run(lambda connection: connection.closed)
    assert pool.waiting == 1
    pool.close()
    pool.join(PATIENCE)
    assert first.result is True
    assert second.result == 0
    assert pool.size == 0
