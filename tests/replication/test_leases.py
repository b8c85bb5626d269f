"""Leases on real PostgreSQL: one holder, a loss that is noticed at once, a standby that takes over."""

from __future__ import annotations

from collections.abc import Callable

import psycopg2
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from synapse.metrics import table
from synapse.replication import leases
from synapse.replication.leases import Duty, Lease
from synapse.storage.pool import PoolSettings
from tests.support.postgres import PostgresServer
from tests.support.reactor import HeldReactor, real_reactor


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await deferLater(real_reactor(), 0.005)


def lease(settings: PoolSettings, name: str = "duty", lost: list[str] | None = None) -> Lease:
    return Lease(real_reactor(), settings, name, lambda: None if lost is None else lost.append(name))


@ensureDeferred
async def test_one_holds_it_and_others_do_not(database_settings: PoolSettings) -> None:
    first, second, other = lease(database_settings), lease(database_settings), lease(database_settings, "other")
    assert await first.acquire()
    assert await first.acquire(), "it is ours already"
    assert not await second.acquire()
    assert await other.acquire(), "another name is another lease"
    first.release()
    assert not first.held
    await until_acquired(second)
    for each in (second, other):
        each.release()


async def until_acquired(wanted: Lease) -> None:
    """The database notices the end of a connection in its own time."""
    while not await wanted.acquire():
        await deferLater(real_reactor(), 0.005)


@ensureDeferred
async def test_losing_the_connection_is_noticed_at_once(
    database_settings: PoolSettings, postgres: PostgresServer
) -> None:
    lost: list[str] = []
    held = lease(database_settings, "duty", lost)
    assert await held.acquire()
    assert table.LEASES.child("duty").value == 1
    postgres.kill_connections(database_settings.connection["dbname"])
    await until(lambda: bool(lost))
    assert not held.held
    assert table.LEASES.child("duty").value == 0
    assert await held.acquire(), "it can be taken again"
    held.release()


@ensureDeferred
async def test_an_unreachable_database_is_an_error() -> None:
    with pytest.raises(psycopg2.OperationalError):
        await lease(PoolSettings({"host": "/nonexistent"})).acquire()


class Worker:
    """Performs a duty and says when."""

    def __init__(self, name: str, settings: PoolSettings, log: list[str]) -> None:
        self._name = name
        self._log = log
        self.reactor = HeldReactor()
        self.duty = Duty(self.reactor, settings, "duty", self.begin, self.end)

    async def begin(self) -> None:
        self._log.append(f"{self._name} begins")

    async def end(self) -> None:
        self._log.append(f"{self._name} ends")

    async def standing_by(self) -> None:
        await until(lambda: bool(self.reactor.getDelayedCalls()))


@ensureDeferred
async def test_a_standby_takes_over_and_two_never_act(database_settings: PoolSettings) -> None:
    log: list[str] = []
    first, second = (Worker(name, database_settings, log) for name in ("first", "second"))
    first.duty.start()
    await until(lambda: log == ["first begins"])
    second.duty.start()
    await second.standing_by()
    await first.duty.stop()
    while len(log) < 3:
        second.reactor.advance(leases.POLL)
        await deferLater(real_reactor(), 0.005)
    assert log == ["first begins", "first ends", "second begins"]
    await second.duty.stop()
    assert log[3:] == ["second ends"]


@ensureDeferred
async def test_a_duty_that_lost_its_lease_ends_and_begins_again(
    database_settings: PoolSettings, postgres: PostgresServer
) -> None:
    log: list[str] = []
    worker = Worker("it", database_settings, log)
    worker.duty.start()
    await until(lambda: log == ["it begins"])
    postgres.kill_connections(database_settings.connection["dbname"])
    await until(lambda: log == ["it begins", "it ends"])
    worker.reactor.advance(leases.POLL)
    await until(lambda: log == ["it begins", "it ends", "it begins"])
    await worker.duty.stop()


class Slow(Worker):
    """Takes until the test says so to begin."""

    def __init__(self, name: str, settings: PoolSettings, log: list[str]) -> None:
        super().__init__(name, settings, log)
        self.beginning: list[Deferred[None]] = []

    async def begin(self) -> None:
        await super().begin()
        self.beginning.append(Deferred())
        await self.beginning[-1]

    async def regained(self) -> None:
        while not self.duty.lease.held:
            self.reactor.advance(leases.POLL)
            await deferLater(real_reactor(), 0.005)


@ensureDeferred
async def test_a_duty_that_is_lost_while_it_begins_ends_again_and_begins_anew_after_that(
    database_settings: PoolSettings, postgres: PostgresServer
) -> None:
    log: list[str] = []
    worker = Slow("it", database_settings, log)
    worker.duty.start()
    await until(lambda: bool(worker.beginning))
    postgres.kill_connections(database_settings.connection["dbname"])
    await until(lambda: log == ["it begins", "it ends"])
    await worker.regained()
    worker.reactor.advance(leases.POLL)
    await deferLater(real_reactor(), 0.0)
    assert len(worker.beginning) == 1, "it never begins twice at a time"
    worker.beginning.pop().callback(None)
    assert log == ["it begins", "it ends", "it ends"]
    worker.reactor.advance(leases.POLL)
    await until(lambda: bool(worker.beginning))
    worker.beginning.pop().callback(None)
    await worker.duty.stop()
    assert log == ["it begins", "it ends", "it ends", "it begins", "it ends"]


@ensureDeferred
async def test_a_duty_that_cannot_begin_is_tried_again(
    database_settings: PoolSettings, caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    worker = Slow("it", database_settings, log)
    worker.duty.start()
    await until(lambda: bool(worker.beginning))
    worker.beginning.pop().errback(RuntimeError("no disk"))
    assert log == ["it begins", "it ends"]
    assert worker.duty.lease.held
    assert "The duty 'duty' could not be begun; it is tried again" in caplog.text
    worker.reactor.advance(leases.POLL)
    await until(lambda: bool(worker.beginning))
    worker.beginning.pop().callback(None)
    assert log == ["it begins", "it ends", "it begins"]
    await worker.duty.stop()
    assert not worker.reactor.getDelayedCalls()


@ensureDeferred
async def test_a_stopped_standby_does_not_begin(database_settings: PoolSettings) -> None:
    log: list[str] = []
    holder = lease(database_settings)
    assert await holder.acquire()
    worker = Worker("it", database_settings, log)
    worker.duty.start()
    await worker.standing_by()
    await worker.duty.stop()
    holder.release()
    worker.reactor.advance(10 * leases.POLL)
    assert log == []
    assert not worker.reactor.getDelayedCalls()
