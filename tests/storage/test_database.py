"""Transactions on real PostgreSQL: their outcome, their retries, and what is counted."""

from __future__ import annotations

from typing import Any

import psycopg2
import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from synapse.storage import plans
from synapse.storage.database import CONFLICT_DELAYS, Database, PoolSettings, Transaction
from synapse.storage.errors import DatabaseUnavailable, OutcomeUnknown
from tests.support.postgres import PostgresServer
from tests.support.reactor import HeldReactor, real_reactor


def put(txn: Transaction, follower: str, position: int) -> None:
    txn.execute("INSERT INTO stream_followers VALUES (%s, 's', %s)", (follower, position))


def positions(txn: Transaction) -> dict[str, int]:
    txn.execute("SELECT follower, position FROM stream_followers")
    return dict(txn.rows())


@ensureDeferred
async def test_a_write_is_committed_and_read(database: Database) -> None:
    await database.write("put", put, "a", 1)
    assert await database.read("get", positions) == {"a": 1}


@ensureDeferred
async def test_an_exception_undoes_everything(database: Database) -> None:
    def fail(txn: Transaction) -> None:
        put(txn, "a", 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write("fail", fail)
    assert await database.read("get", positions) == {}


@ensureDeferred
async def test_what_comes_later_is_committed_too(database: Database) -> None:
    def write(txn: Transaction) -> None:
        txn.later("INSERT INTO stream_followers VALUES (%s, 's', 1)", ("a",))
        txn.values("INSERT INTO stream_followers VALUES %s", [("b", "s", 2), ("c", "100%", 3)], later=True)

    with database.counted() as counts:
        await database.write("write", write)
    assert counts.statements_written == 2
    assert counts.round_trips == 1, "the statements, BEGIN and COMMIT share one round trip"
    assert await database.read("get", positions) == {"a": 1, "b": 2, "c": 3}


@ensureDeferred
async def test_an_error_in_a_later_statement_undoes_everything(database: Database) -> None:
    def write(txn: Transaction) -> None:
        put(txn, "a", 1)
        txn.later("INSERT INTO stream_followers VALUES ('a', 's', 2)")

    with pytest.raises(psycopg2.IntegrityError):
        await database.write("write", write)
    assert await database.read("get", positions) == {}


@ensureDeferred
async def test_values_returns_rows(database: Database) -> None:
    def write(txn: Transaction) -> list[Any]:
        txn.values("INSERT INTO stream_followers VALUES %s RETURNING position", ((str(n), "s", n) for n in range(3)))
        return txn.rows()

    assert await database.write("write", write) == [(0,), (1,), (2,)]
    await database.write("none", lambda txn: txn.values("INSERT INTO stream_followers VALUES %s", []))


@ensureDeferred
async def test_json_columns_come_as_text(database: Database) -> None:
    def read(txn: Transaction) -> Any:
        txn.execute("""SELECT '{"a": 1}'::jsonb, '[1]'::json""")
        return txn.one()

    assert await database.read("read", read) == ('{"a": 1}', "[1]")


@ensureDeferred
async def test_one_raises_where_there_is_no_row(database: Database) -> None:
    def read(txn: Transaction) -> Any:
        txn.execute("SELECT position FROM stream_followers")
        return txn.one()

    with pytest.raises(LookupError):
        await database.read("read", read)


@ensureDeferred
async def test_after_commit_runs_once_and_only_after_a_commit(database: Database) -> None:
    called: list[str] = []

    def write(txn: Transaction, name: str, fail: bool) -> None:
        put(txn, name, 1)
        txn.after_commit(called.append, name)
        if fail:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write("write", write, "a", True)
    await database.write("write", write, "b", False)
    assert called == ["b"]


@ensureDeferred
async def test_counted_tells_reads_from_writes(database: Database) -> None:
    def both(txn: Transaction) -> None:
        txn.execute("SELECT 1")
        txn.execute("WITH x AS (DELETE FROM stream_followers RETURNING 1) SELECT * FROM x")

    with database.counted() as counts:
        await database.write("both", both)
        await database.read("get", positions)
    await database.read("get", positions)
    assert dict(counts.read) == {"both": 1, "get": 1}
    assert dict(counts.written) == {"both": 1}


@ensureDeferred
async def test_costs_are_added_to_the_request(database_settings: PoolSettings) -> None:
    class Costs:
        db_statements = 0
        db_seconds = 0.0

    costs = Costs()
    db = Database(HeldReactor(), database_settings, lambda: costs)
    await db.read("get", positions)
    assert costs.db_statements == 1
    assert costs.db_seconds > 0
    db.close()
    db.pool.join(5)


@ensureDeferred
async def test_concurrent_increments_are_all_done(database: Database) -> None:
    await database.write("put", put, "a", 0)

    def increment(txn: Transaction) -> None:
        txn.execute("SELECT position FROM stream_followers")
        (position,) = txn.one()
        txn.execute("UPDATE stream_followers SET position = %s", (position + 1,))

    await gatherResults([Deferred.fromCoroutine(database.write("increment", increment)) for _ in range(12)])
    assert await database.read("get", positions) == {"a": 12}


@ensureDeferred
async def test_conflicts_are_retried_on_the_clock_and_not_for_ever(database_settings: PoolSettings) -> None:
    reactor = HeldReactor()
    db = Database(reactor, database_settings)
    attempts: list[float] = []

    def conflict(txn: Transaction) -> None:
        attempts.append(reactor.seconds())
        txn.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'serialization_failure'; END $$")

    result = Deferred.fromCoroutine(db.write("conflict", conflict))
    await _advance_until_done(reactor, result)
    with pytest.raises(psycopg2.errors.SerializationFailure):
        await result
    assert len(attempts) == len(CONFLICT_DELAYS) + 1
    assert db.usage["conflict"].retries == len(CONFLICT_DELAYS)
    db.close()
    db.pool.join(5)


async def _advance_until_done(reactor: HeldReactor, result: Deferred[Any]) -> None:
    """Moves the clock on whenever something waits for it."""
    while not result.called:
        await deferToThread(lambda: None)
        if reactor.getDelayedCalls():
            reactor.advance(2)


@ensureDeferred
async def test_a_lost_connection_is_replaced(database: Database, postgres: PostgresServer) -> None:
    await database.write("put", put, "a", 1)
    postgres.kill_connections(database.pool.settings.connection["dbname"])
    assert await database.read("get", positions) == {"a": 1}
    postgres.kill_connections(database.pool.settings.connection["dbname"])
    await database.write("put", put, "b", 2)
    assert await database.read("get", positions) == {"a": 1, "b": 2}


@ensureDeferred
async def test_a_connection_lost_within_a_transaction(database: Database, postgres: PostgresServer) -> None:
    killed: list[bool] = []

    def write(txn: Transaction) -> None:
        put(txn, "a", 1)
        if not killed:
            killed.append(True)
            postgres.kill_connections(database.pool.settings.connection["dbname"])
        put(txn, "b", 2)

    await database.write("write", write)
    assert await database.read("get", positions) == {"a": 1, "b": 2}


@ensureDeferred
async def test_a_connection_that_breaks_while_it_is_read(database: Database) -> None:
    """As when PostgreSQL's process for it is killed: psycopg2 raises what all errors are, without a code."""
    attempts: list[int] = []

    def write(txn: Transaction) -> None:
        attempts.append(1)
        put(txn, f"attempt {len(attempts)}", 1)
        if len(attempts) == 1:
            raise psycopg2.DatabaseError("server closed the connection unexpectedly\n\tThis probably means …\n")
        if len(attempts) == 3:
            raise psycopg2.ProgrammingError("can't adapt type 'set'")

    await database.write("write", write)
    assert await database.read("get", positions) == {"attempt 2": 1}
    with pytest.raises(psycopg2.ProgrammingError):
        await database.write("write", write)
    assert len(attempts) == 3


@pytest.mark.parametrize("idempotent", [False, True])
@ensureDeferred
async def test_a_connection_lost_while_committing(
    database: Database, postgres: PostgresServer, idempotent: bool
) -> None:
    attempts: list[int] = []

    def write(txn: Transaction) -> None:
        put(txn, "a", 1)
        attempts.append(1)
        if len(attempts) == 1:
            postgres.kill_connections(database.pool.settings.connection["dbname"])

    if idempotent:
        await database.write_idempotent("write", write)
        assert await database.read("get", positions) == {"a": 1}
    else:
        with pytest.raises(OutcomeUnknown):
            await database.write("write", write)


@ensureDeferred
async def test_an_unreachable_server_is_a_sentence() -> None:
    reactor = HeldReactor()
    db = Database(reactor, PoolSettings({"host": "/nonexistent", "dbname": "x"}))
    result = Deferred.fromCoroutine(db.read("get", positions))
    await _advance_until_done(reactor, result)
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        await result
    db.close()
    db.pool.join(5)


@ensureDeferred
async def test_a_snapshot_sees_one_moment(database: Database, database_settings: PoolSettings) -> None:
    other = psycopg2.connect(**database_settings.connection)
    other.autocommit = True

    def read(txn: Transaction) -> tuple[dict[str, int], dict[str, int]]:
        before = positions(txn)
        other.cursor().execute("INSERT INTO stream_followers VALUES ('x', 's', 1)")
        return before, positions(txn)

    assert await database.snapshot("read", read) == ({}, {})
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        await database.snapshot("put", put, "a", 1)
    other.close()


@ensureDeferred
async def test_more_jobs_than_connections(database: Database) -> None:
    results = [Deferred.fromCoroutine(database.read("get", positions)) for _ in range(50)]
    assert await gatherResults(results) == [{}] * 50
    assert database.pool.size <= database.pool.settings.maximum


@ensureDeferred
async def test_jobs_one_after_another_are_done_by_one_thread(database: Database) -> None:
    backends = {await database.read("get", _backend) for _ in range(5)}
    assert len(backends) == 1
    assert database.pool.size == 1


@ensureDeferred
async def test_a_job_wakes_the_reactor_once(database_settings: PoolSettings) -> None:
    reactor = CountingReactor()
    db = Database(reactor, database_settings)
    await db.read("get", _backend)
    before = reactor.wakes
    for _ in range(5):
        await db.read("get", _backend)
    assert reactor.wakes == before + 5
    db.close()
    db.pool.join(5)


def _backend(txn: Transaction) -> int:
    txn.execute("SELECT pg_backend_pid()")
    return int(txn.one()[0])


class CountingReactor(HeldReactor):
    """Counts how often a thread wakes it."""

    def __init__(self) -> None:
        super().__init__()
        self.wakes = 0

    def callFromThread(self, fn: Any, *args: Any) -> None:
        self.wakes += 1
        real_reactor().callFromThread(fn, *args)


# -- planned statements --------------------------------------------------------------------------------------------


def _sum(txn: Transaction, numbers: list[int], factor: int) -> Any:
    txn.planned("SELECT sum(n) * %(f)s, %(f)s, '%%' FROM unnest(%(n)s::int[]) AS n", {"n": numbers, "f": factor})
    return txn.one()


@ensureDeferred
async def test_planned_statements_are_asked_like_others(database: Database) -> None:
    for _ in range(8):  # the database goes over from plans for these values to one for all
        with database.counted() as counts:
            assert await database.read("sum", _sum, [1, 2], 5) == (15, 5, "%")
        assert counts.statements_read == 1
    assert await database.write("sum", _sum, [4], 2) == (8, 2, "%")
    assert await database.snapshot("sum", _sum, [], 2) == (None, 2, "%")

    def plain(txn: Transaction) -> Any:
        txn.planned("SELECT 1")
        txn.planned("SELECT %s::int + %s", (1, 2))
        return txn.one()

    assert await database.read("plain", plain) == (3,)


@ensureDeferred
async def test_a_plan_that_fails_leaves_the_connection_usable(database: Database) -> None:
    def wrong(txn: Transaction) -> None:
        txn.planned("SELECT nonsense FROM nowhere WHERE x = %s", (1,))

    for _ in range(2):
        with pytest.raises(psycopg2.Error, match="nowhere"):
            await database.read("wrong", wrong)
        assert await database.read("sum", _sum, [1], 1) == (1, 1, "%")


@ensureDeferred
async def test_a_new_connection_plans_anew(database: Database, postgres: PostgresServer) -> None:
    assert await database.read("sum", _sum, [1], 1) == (1, 1, "%")
    postgres.kill_connections(database.pool.settings.connection["dbname"])
    assert await database.read("sum", _sum, [1], 1) == (1, 1, "%")


@ensureDeferred
async def test_plans_are_made_anew_after_a_while(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "KEPT_SECONDS", 0.0)
    for _ in range(3):
        assert await database.read("sum", _sum, [1], 1) == (1, 1, "%")
        assert await database.write("sum", _sum, [1], 1) == (1, 1, "%")
        assert await database.snapshot("sum", _sum, [1], 1) == (1, 1, "%")
