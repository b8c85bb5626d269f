"""The part of a process in its cluster: the lease of the main process, duties, and the end of all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from synapse.app import _services
from synapse.app._services import HomeserverServices
from synapse.config import Config, from_options
from synapse.config.generate import new_signing_key
from synapse.http.drain import Drain
from synapse.http.router import Router
from synapse.metrics.sources import ReactorLag
from synapse.replication.leases import Duty
from synapse.replication.notifier import Notifier
from synapse.storage.database import Database, PoolSettings
from synapse.storage.errors import DatabaseProblem
from synapse.util.repeating import Repeating
from tests.support.postgres import PostgresServer
from tests.support.reactor import real_reactor

WORKER = {"worker_app": "synapse.app.pusher", "worker_replication_host": "127.0.0.1", "worker_replication_port": 1}


class FakeReplication:
    def __init__(self, log: list[str]) -> None:
        self._log = log

    async def begin(self) -> None:
        self._log.append("begin")

    def suspend(self) -> None:
        self._log.append("suspend")

    async def resume(self) -> None:
        self._log.append("resume")

    async def stop(self) -> None:
        self._log.append("stop")

    def factory(self) -> Any:
        return "replication"


class FakeReading:
    def __init__(self, log: list[str]) -> None:
        self._log = log

    async def begin(self) -> None:
        self._log.append("reading")


class FakeHomeserver:
    """The parts, around a real database."""

    def __init__(self, config: Config, settings: PoolSettings) -> None:
        self.config = config
        self.reactor = real_reactor()
        self.drain = Drain(self.reactor)
        self.lag = ReactorLag(Clock())  # a clock that stands, so that nothing is left behind
        self.database = Database(self.reactor, settings)
        self.log: list[str] = []
        self.replication = FakeReplication(self.log)
        self.notifier = Notifier(Clock())
        self.router = Router(self.drain)
        self.reading = self.edus = FakeReading(self.log)
        self.began: Deferred[None] = Deferred()
        self.duties = [Duty(self.reactor, settings, "pusher", self._begin, self._end)]
        self.background: list[Repeating] = []

    async def _begin(self) -> None:
        self.log.append("duty begins")
        self.began.callback(None)

    async def _end(self) -> None:
        self.log.append("duty ends")

    def start_database(self) -> None:
        self.log.append("database")

    def site(self, listener: Any) -> Any:
        return f"site {listener}"


class Cluster:
    """Processes, without their processes."""

    def __init__(self, tmp_path: Path, settings: PoolSettings) -> None:
        (tmp_path / "key").write_text(new_signing_key())
        self._options = {
            "server_name": "test",
            "signing_key_path": str(tmp_path / "key"),
            "database": {"name": "embedded", "data_directory": str(tmp_path)},
            "manhole_password": "x",
        }
        self.settings = settings
        self.given_up: list[Exception] = []
        self._all: list[FakeHomeserver] = []

    def process(self, **options: Any) -> tuple[HomeserverServices, FakeHomeserver]:
        hs = FakeHomeserver(from_options(self._options | options), self.settings)
        self._all.append(hs)
        return HomeserverServices(hs, self.given_up.append), hs

    def end(self) -> None:
        for hs in self._all:
            hs.database.close()
            hs.database.pool.join(5.0)


@pytest.fixture
def cluster(tmp_path: Path, database_settings: PoolSettings) -> Iterator[Cluster]:
    made = Cluster(tmp_path, database_settings)
    yield made
    made.end()


async def _until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await deferLater(real_reactor(), 0.01)


@pytest_twisted.ensureDeferred
async def test_a_second_main_process_refuses(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_services, "_PATIENCE", 0.2)
    first, one = cluster.process()
    second, other = cluster.process()
    await first.join(wait=False)
    with pytest.raises(DatabaseProblem, match="Another main process of this server is running"):
        await second.join(wait=False)
    assert (one.log, other.log) == (["begin", "reading", "reading"], [])
    await first.stop()
    await second.stop()


@pytest_twisted.ensureDeferred
async def test_a_successor_waits_until_the_old_one_has_gone(cluster: Cluster) -> None:
    old, one = cluster.process()
    new, other = cluster.process()
    await old.join(wait=False)
    waiting = Deferred.fromCoroutine(new.join(wait=True))
    await deferLater(real_reactor(), 0.3)
    assert not waiting.called
    await old.stop()
    await waiting
    assert (one.log, other.log) == (["begin", "reading", "reading", "stop"], ["begin", "reading", "reading"])
    await new.stop()


@pytest_twisted.ensureDeferred
async def test_one_that_is_told_to_stop_while_it_waits_stops(cluster: Cluster) -> None:
    old, _ = cluster.process()
    new, _ = cluster.process()
    await old.join(wait=False)
    waiting = Deferred.fromCoroutine(new.join(wait=True))
    await deferLater(real_reactor(), 0.05)
    await new.stop()
    with pytest.raises(DatabaseProblem):
        await waiting
    await old.stop()


@pytest_twisted.ensureDeferred
async def test_workers_need_no_lease_to_join(cluster: Cluster) -> None:
    main, _ = cluster.process()
    worker, hs = cluster.process(**WORKER)
    await main.join(wait=False)
    await worker.join(wait=False)
    assert hs.log == ["begin"]
    await worker.stop()
    await main.stop()


@pytest_twisted.ensureDeferred
async def test_duties_begin_last_and_end_first(cluster: Cluster) -> None:
    services, hs = cluster.process()
    await services.join(wait=False)
    await services.start_duties()
    await hs.began
    await services.stop()
    assert hs.log == ["begin", "reading", "reading", "duty begins", "duty ends", "stop"]


@pytest_twisted.ensureDeferred
async def test_a_lost_lease_is_taken_again(cluster: Cluster, postgres: PostgresServer) -> None:
    services, hs = cluster.process()
    await services.join(wait=False)
    lease = services._lease
    assert lease is not None
    first = lease._connection
    postgres.kill_connections(cluster.settings.connection["dbname"])
    await _until(lambda: "resume" in hs.log)
    assert lease.held
    assert lease._connection is not first
    assert hs.log[-3:] == ["suspend", "database", "resume"]
    assert cluster.given_up == []
    await services.stop()


@pytest_twisted.ensureDeferred
async def test_whoever_loses_the_lease_to_another_gives_up(
    cluster: Cluster, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_services, "_PATIENCE_FOR_DATABASE", 0.3)
    loser, _ = cluster.process()
    winner, _ = cluster.process()
    await loser.join(wait=False)
    lease = loser._lease
    assert lease is not None
    taken = Deferred.fromCoroutine(winner.join(wait=True))
    monkeypatch.setattr(lease, "acquire", _never)
    postgres.kill_connections(cluster.settings.connection["dbname"])
    await taken
    await _until(lambda: cluster.given_up)
    assert "may write no more and ends" in str(cluster.given_up[0])
    await loser.stop()
    await winner.stop()


async def _never() -> bool:
    return False


def test_what_serves_a_listener(cluster: Cluster) -> None:
    listeners = [
        {"type": "http", "port": 1, "resources": [{"names": ["client"]}]},
        {"type": "replication", "port": 2},
        {"type": "metrics", "port": 3},
        {"type": "manhole", "port": 4},
    ]
    services, hs = cluster.process(listeners=listeners, enable_metrics=True)
    client, replication, metrics, manhole = (services.factory_for(listener) for listener in hs.config.listeners)
    assert (client, replication) == ("site http on [::]:1, 0.0.0.0:1", "replication")
    assert metrics == "site metrics on 127.0.0.1:3"
    without = cluster.process(listeners=listeners, enable_metrics=False)[0]
    assert without.factory_for(hs.config.listeners[2]) == "site http on [::]:3, 0.0.0.0:3"
    assert manhole.portal is not None
