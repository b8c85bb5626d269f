"""What a function that runs within a transaction is handed: a thin, counting layer over one psycopg2 cursor.

It lives on a pool thread for the time of one transaction. It knows nothing of pools, retries or the reactor; those are
in `synapse.storage.database`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, ParamSpec

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from synapse.storage.plans import Session, values_of

Row = tuple[Any, ...]
Params = Sequence[Any] | Mapping[str, Any]
P = ParamSpec("P")

BEGIN: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ"
BEGIN_READ_ONLY: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class Transaction:
    """Statements and their rows. Rows are tuples; JSON columns come as text, `bytea` as memoryview.

    The statement that opens the transaction travels with the first one, those given to `later` with the next one or
    with the COMMIT: each saves a round trip to the database.
    """

    __slots__ = ("_after_commit", "_cursor", "_pending", "begun", "round_trips", "sent", "statements")

    def __init__(self, connection: Connection, begin: bytes | None, keep_sql: bool = False) -> None:
        self._cursor: Cursor = connection.cursor()
        self._pending: list[bytes] = [] if begin is None else [begin]
        self._after_commit: list[tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]] | None = None
        self.begun = False
        self.statements = 0
        self.round_trips = 0
        self.sent: list[str] | None = [] if keep_sql else None

    def see_the_latest(self) -> None:
        """To be called first: each statement sees what is committed when it begins, not all of them the same moment.

        For who locks a row and then has to see what others did who had it locked before.
        """
        self._pending.append(b"SET TRANSACTION ISOLATION LEVEL READ COMMITTED")

    def execute(self, sql: str, params: Params | None = None) -> None:
        """Runs one statement.

        `params` replace `%s`; without them, the SQL is sent as it is (a `%` needs no doubling).
        """
        self._count(sql)
        self._run(sql, params)

    def planned(self, sql: str, params: Params = ()) -> None:
        """`execute` for a statement that is run over and over with the same text: the database plans it once.

        Only for SQL that is put together in few ways, as each connection keeps each text, and for questions that have
        one good plan, whatever their parameters.
        """
        self._count(sql)
        self._run(*self._as_planned(sql, params))

    def later(self, sql: str, params: Params | None = None) -> None:
        """Runs a statement whose result nobody needs together with the next one, or with the COMMIT."""
        self._count(sql)
        self._pending.append(self._mogrify(sql, params))

    def planned_later(self, sql: str, params: Params = ()) -> None:
        """Both: `later` for a statement that is planned once."""
        self._count(sql)
        self._pending.append(self._mogrify(*self._as_planned(sql, params)))

    def values(self, sql: str, rows: Iterable[Sequence[Any]], *, later: bool = False) -> None:
        """Runs one statement with many rows in place of its single `%s`: `INSERT INTO t (a, b) VALUES %s`.

        No rows, no statement. With `later`, like `later`.
        """
        flat: list[Any] = []
        count = 0
        for row in rows:
            flat.extend(row)
            count += 1
        if not count:
            return
        template = "(" + ",".join(["%s"] * (len(flat) // count)) + ")"
        (self.later if later else self.execute)(sql.replace("%s", ",".join([template] * count), 1), flat)

    def rows(self) -> list[Row]:
        """All rows of the last statement; none of one that returns none."""
        return self._cursor.fetchall() if self._cursor.description is not None else []

    def one(self) -> Row:
        """The first row of the last statement. Raises `LookupError` where there is none."""
        row = self._cursor.fetchone()
        if row is None:
            raise LookupError("the statement returned no row")
        return row

    def one_or_none(self) -> Row | None:
        return self._cursor.fetchone()

    @property
    def affected(self) -> int:
        """How many rows the last statement changed or returned."""
        return self._cursor.rowcount

    def after_commit(self, fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Calls `fn` in the reactor's thread once the transaction is committed, before the writer goes on."""
        if self._after_commit is None:
            self._after_commit = []
        self._after_commit.append((fn, args, kwargs))

    def run_after_commit(self) -> None:
        """For `Database`: calls what `after_commit` was given, in order."""
        for fn, args, kwargs in self._after_commit or ():
            fn(*args, **kwargs)

    def commits_with(self) -> bytes:
        """For `Database`: what is still to be sent, with the COMMIT; empty where nothing was begun."""
        if not self.begun and len(self._pending) <= 1:
            return b""
        return b"; ".join([*self._pending, b"COMMIT"])

    def send(self, sql: bytes) -> None:
        """For `Database`: sends what `commits_with` made."""
        self.round_trips += 1
        self._cursor.execute(sql)

    def flush(self) -> None:
        """For `Database`: sends what `later` still holds, outside a transaction."""
        if self._pending:
            self.round_trips += 1
            self._send_pending()

    def close(self) -> None:
        self._cursor.close()

    def _as_planned(self, sql: str, params: Params) -> tuple[str, Sequence[Any]]:
        session = self._cursor.connection
        assert isinstance(session, Session), "made by the pool"
        statement = session.planned(sql)
        execute = f"DISCARD PLANS; {statement.execute}" if session.outdated() else statement.execute
        return execute, values_of(statement, params)

    def _run(self, sql: str, params: Params | None) -> None:
        self.round_trips += 1
        if self._pending:
            self._pending.append(self._mogrify(sql, params))
            self._send_pending()
        else:
            self._cursor.execute(sql, params)

    def _mogrify(self, sql: str, params: Params | None) -> bytes:
        return sql.encode() if params is None else self._cursor.mogrify(sql, params)

    def _send_pending(self) -> None:
        sql = b"; ".join(self._pending)
        self._pending.clear()
        self.begun = True
        self._cursor.execute(sql)

    def _count(self, sql: str) -> None:
        self.statements += 1
        if self.sent is not None:
            self.sent.append(sql)
