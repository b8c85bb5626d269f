"""Background updates: batch by batch, resumable, in order, and never in the way."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from synapse.storage.background_updates import BackgroundUpdates, Batch, _next_size
from synapse.storage.database import Database, Transaction
from synapse.util.concurrency import spawn
from tests.support.reactor import HeldReactor, real_reactor


async def add(database: Database, name: str, ordering: int = 0, depends_on: str | None = None) -> None:
    sql = "INSERT INTO background_updates (name, ordering, depends_on) VALUES (%s, %s, %s)"
    await database.write("add", lambda txn: txn.execute(sql, (name, ordering, depends_on)))


def counting(until: int, log: list[Any]) -> Any:
    """An update that counts, one step a batch."""

    def do(txn: Transaction, progress: dict[str, Any], size: int) -> Batch | None:
        at = progress.get("at", 0)
        if at == until:
            return None
        log.append(at)
        return Batch({"at": at + 1}, 1)

    return do


async def run(updates: BackgroundUpdates, reactor: HeldReactor) -> None:
    """Runs, moving the clock on whenever there is a pause."""
    done = spawn(updates.run())
    while not done.called:
        await updates._db.read("wait", lambda txn: None)
        if reactor.getDelayedCalls():
            reactor.advance(60)
    await done


@ensureDeferred
async def test_an_update_is_done_in_batches_and_then_gone(database: Database) -> None:
    reactor, log = HeldReactor(), []
    await add(database, "count")
    updates = BackgroundUpdates(database, reactor)
    updates.register("count", counting(3, log))
    await run(updates, reactor)
    assert log == [0, 1, 2]
    assert await updates.pending() == []


@ensureDeferred
async def test_another_process_goes_on_where_one_stopped(database: Database) -> None:
    reactor, log = HeldReactor(), []
    await add(database, "count")
    first = BackgroundUpdates(database, reactor)
    first.register("count", counting(3, log))
    running = spawn(first.run())
    while not reactor.getDelayedCalls():
        await database.read("wait", lambda txn: None)
    first.stop()
    await running
    assert log == [0]
    second = BackgroundUpdates(database, reactor)
    second.register("count", counting(3, log))
    await run(second, reactor)
    assert log == [0, 1, 2]


@ensureDeferred
async def test_order_and_dependencies_are_kept(database: Database) -> None:
    reactor, log = HeldReactor(), []
    await add(database, "b", ordering=1)
    await add(database, "a", ordering=2)
    await add(database, "first", ordering=0, depends_on="a")
    updates = BackgroundUpdates(database, reactor)
    for name in ("a", "b", "first"):

        def do(txn: Transaction, progress: dict[str, Any], size: int, name: str = name) -> None:
            log.append(name)

        updates.register(name, do)
    await run(updates, reactor)
    assert log == ["b", "a", "first"]


@ensureDeferred
async def test_an_unknown_update_is_named_and_left(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    await add(database, "of_the_future")
    updates = BackgroundUpdates(database, real_reactor())
    await updates.run()
    assert [each.name for each in await updates.pending()] == ["of_the_future"]
    assert "of_the_future is not known to this release" in caplog.text


@ensureDeferred
async def test_a_batch_that_fails_leaves_nothing_and_is_tried_again(database: Database) -> None:
    reactor, log = HeldReactor(), []
    await add(database, "flaky")
    await add(database, "other", ordering=1)

    def do(txn: Transaction, progress: dict[str, Any], size: int) -> None:
        log.append("try")
        txn.execute("INSERT INTO stream_followers VALUES ('x', 's', 1)")
        if len(log) == 1:
            raise ZeroDivisionError

    updates = BackgroundUpdates(database, reactor)
    updates.register("flaky", do)
    await run(updates, reactor)
    assert log == ["try", "try"]

    def read(txn: Transaction) -> list[Any]:
        txn.execute("SELECT follower FROM stream_followers")
        return txn.rows()

    assert await database.read("rows", read) == [("x",)]


@pytest.mark.parametrize(("size", "took", "expected"), [(100, 0.1, 100), (100, 1.0, 50), (100, 0.0, 200), (1, 5.0, 1)])
def test_batches_take_about_a_tenth_of_a_second(size: int, took: float, expected: int) -> None:
    assert _next_size(size, took) == expected
