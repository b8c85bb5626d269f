"""The database as the stores see it: functions that run within a transaction, on a thread, with retries and accounting.

    await db.read("rooms.get", fn, room_id)      # statements by themselves (autocommit)
    await db.snapshot("sync.rooms", fn, …)       # read only, all statements see the same moment
    await db.write("rooms.create", fn, …)        # one REPEATABLE READ transaction

`fn(txn, *args)` gets a `Transaction`. It may be called again from the start, when the database could not serialize
it, found a deadlock, or lost the connection, so it has no effect but through `txn`; what is to happen once goes to
`txn.after_commit`. Which server to talk to, and in which shape it is, is the business of `synapse.storage.prepare`.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import psycopg2
from psycopg2 import errors
from psycopg2.extensions import TRANSACTION_STATUS_IDLE

from synapse.storage.errors import DatabaseUnavailable, OutcomeUnknown
from synapse.storage.pool import ConnectionPool, PoolSettings
from synapse.storage.transaction import BEGIN, BEGIN_READ_ONLY, Row, Transaction
from synapse.util.concurrency import pause

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from synapse.util.reactor import ThreadReactor


__all__ = ["Counts", "Database", "PoolSettings", "Row", "Transaction"]

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
Function = Callable[Concatenate[Transaction, P], R]

# How long to wait before each further attempt, in seconds; after the last one the error stands.
CONFLICT_DELAYS: Final = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
CONNECTION_DELAYS: Final = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0)

_CONFLICTS: Final = (errors.SerializationFailure, errors.DeadlockDetected)
_WRITES: Final = re.compile(r"\b(INSERT|UPDATE|DELETE|MERGE|TRUNCATE)\b", re.IGNORECASE)


class Costs(Protocol):
    """What a request has cost so far; `synapse.logging.context` keeps one per request."""

    db_statements: int
    db_seconds: float


class Counts:
    """Statements that ran while `Database.counted` was open, by the name of the transaction."""

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.round_trips = 0
        self.sql: list[tuple[str, str]] = []

    def add(self, name: str, txn: Transaction) -> None:
        self.round_trips += txn.round_trips
        for sql in txn.sent or ():
            (self.written if _WRITES.search(sql) else self.read)[name] += 1
            self.sql.append((name, sql))

    @property
    def statements_read(self) -> int:
        return self.read.total()

    @property
    def statements_written(self) -> int:
        return self.written.total()

    def __repr__(self) -> str:
        return f"Counts(read={dict(self.read)}, written={dict(self.written)}, round_trips={self.round_trips})"


class Usage:
    """For metrics: what the transactions of one name have cost since the start."""

    __slots__ = ("retries", "seconds", "statements", "transactions")

    def __init__(self) -> None:
        self.transactions = 0
        self.statements = 0
        self.retries = 0
        self.seconds = 0.0


class Database:
    """The one way to the database, for every store of a process.

    :param reactor: its clock times the retries, its thread gets the results.
    :param costs: gives the costs of the present request, if there is one.
    """

    def __init__(
        self, reactor: ThreadReactor, settings: PoolSettings, costs: Callable[[], Costs | None] = lambda: None
    ) -> None:
        self._reactor = reactor
        self._costs = costs
        self._counting: list[Counts] = []
        self.pool = ConnectionPool(reactor, settings)
        self.usage: dict[str, Usage] = {}

    async def read(
        self, name: str, fn: Callable[Concatenate[Transaction, P], R], /, *args: P.args, **kw: P.kwargs
    ) -> R:
        """Runs statements that change nothing; each sees what is committed when it begins."""
        return await self._run(name, None, False, fn, args, kw)

    async def snapshot(
        self, name: str, fn: Callable[Concatenate[Transaction, P], R], /, *args: P.args, **kw: P.kwargs
    ) -> R:
        """Runs statements that change nothing and all see the same moment."""
        return await self._run(name, BEGIN_READ_ONLY, False, fn, args, kw)

    async def write(
        self, name: str, fn: Callable[Concatenate[Transaction, P], R], /, *args: P.args, **kw: P.kwargs
    ) -> R:
        """Runs one transaction. Raises `OutcomeUnknown` if the connection breaks while it is being committed."""
        return await self._run(name, BEGIN, False, fn, args, kw)

    async def write_idempotent(
        self, name: str, fn: Callable[Concatenate[Transaction, P], R], /, *args: P.args, **kw: P.kwargs
    ) -> R:
        """Like `write`, for transactions that may be done twice:

        They are retried also when the COMMIT got no answer.
        """
        return await self._run(name, BEGIN, True, fn, args, kw)

    @contextmanager
    def counted(self) -> Iterator[Counts]:
        """Counts the statements of transactions that end while the block runs."""
        counts = Counts()
        self._counting.append(counts)
        try:
            yield counts
        finally:
            self._counting.remove(counts)

    def close(self) -> None:
        """Closes the connections after what is under way."""
        self.pool.close()

    async def _run(
        self, name: str, begin: bytes | None, idempotent: bool, fn: Callable[..., R], args: Any, kw: Any
    ) -> R:
        attempt = _Attempt(begin, idempotent, fn, args, kw, bool(self._counting))
        conflicts, losses = iter(CONFLICT_DELAYS), iter(CONNECTION_DELAYS)
        while True:
            started = time.perf_counter()
            try:
                result, txn = await self.pool.run(attempt)
            except _CONFLICTS as error:
                delay = next(conflicts, None)
                problem: Exception = error
            except psycopg2.Error as error:
                if not _is_loss(error):
                    raise
                delay = next(losses, None)
                problem = DatabaseUnavailable(f"The database does not answer: {_first_line(error)}")
            else:
                self._account(name, txn, time.perf_counter() - started)
                txn.run_after_commit()
                return result  # type: ignore[no-any-return]  # a job's result is what `fn` returned
            if delay is None:
                raise problem
            await self._back_off(name, problem, delay)

    async def _back_off(self, name: str, problem: Exception, delay: float) -> None:
        usage = self._usage(name)
        usage.retries += 1
        log = logger.warning if isinstance(problem, DatabaseUnavailable) and delay else logger.info
        log("%s is tried again in %s s: %s", name, delay, _first_line(problem))
        if delay:
            await pause(self._reactor, delay)

    def _usage(self, name: str) -> Usage:
        usage = self.usage.get(name)
        if usage is None:
            usage = self.usage[name] = Usage()
        return usage

    def _account(self, name: str, txn: Transaction, seconds: float) -> None:
        usage = self._usage(name)
        usage.transactions += 1
        usage.statements += txn.statements
        usage.seconds += seconds
        costs = self._costs()
        if costs is not None:
            costs.db_statements += txn.statements
            costs.db_seconds += seconds
        for counts in self._counting:
            counts.add(name, txn)


class _Attempt:
    """The job that a pool thread runs: `fn` within its transaction. Called again for every attempt."""

    __slots__ = ("_args", "_begin", "_fn", "_idempotent", "_keep_sql", "_kw")

    def __init__(
        self, begin: bytes | None, idempotent: bool, fn: Callable[..., Any], args: Any, kw: Any, keep_sql: bool
    ) -> None:
        self._begin = begin
        self._idempotent = idempotent
        self._fn = fn
        self._args = args
        self._kw = kw
        self._keep_sql = keep_sql

    def __call__(self, connection: Connection) -> tuple[Any, Transaction]:
        txn = Transaction(connection, self._begin, self._keep_sql)
        try:
            result = self._fn(txn, *self._args, **self._kw)
            if self._begin is None:
                txn.flush()
            else:
                self._commit(txn)
        except BaseException:
            _roll_back(connection)
            raise
        finally:
            txn.close()
        return result, txn

    def _commit(self, txn: Transaction) -> None:
        sql = txn.commits_with()
        if not sql:
            return
        try:
            txn.send(sql)
        except psycopg2.Error as error:
            if self._idempotent or self._begin is BEGIN_READ_ONLY or not _is_loss(error):
                raise
            raise OutcomeUnknown(
                f"The database connection broke while a change was being committed: {_first_line(error)}"
            ) from error


def _roll_back(connection: Connection) -> None:
    if connection.closed or connection.get_transaction_status() == TRANSACTION_STATUS_IDLE:
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute("ROLLBACK")
    except psycopg2.Error:
        connection.close()  # a new one is opened for the next job


def _is_loss(error: Exception) -> bool:
    """Whether the connection is gone or could not be made; not, say, a statement that was cancelled or a full disk."""
    if isinstance(error, psycopg2.InterfaceError):
        return "closed" in str(error)
    # Of a connection that breaks while it is read, psycopg2 knows no more than that it is an error.
    if not isinstance(error, psycopg2.OperationalError) and type(error) is not psycopg2.DatabaseError:
        return False
    code = getattr(error, "pgcode", None)
    return code is None or code in ("57P01", "57P02", "57P03") or code.startswith("08")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
