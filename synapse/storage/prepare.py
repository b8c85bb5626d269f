"""Before a process uses its database: is it there, is it fit, is it ours, and has it the shape that the code needs?

    settings = prepare(config.database, config.server.server_name, main=config.is_main)

The main process starts the embedded server, makes the schema or migrates it, under a lock, so that two of them cannot
do it at once. A worker only looks, and waits a while for a main process that is at it. Blocking, before the reactor
runs; whatever is wrong is a `DatabaseProblem`: one sentence with its remedy.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import psycopg2

from synapse.storage import migrations
from synapse.storage.errors import DatabaseProblem, DatabaseUnavailable
from synapse.storage.pool import PoolSettings, connect

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

logger = logging.getLogger(__name__)

OLDEST_SERVER: Final = 130000
WORKER_PATIENCE: Final = 60.0
_PREPARE_LOCK: Final = 0x53594E50  # any number will do, as long as every release uses the same


class DatabaseOptions(Protocol):
    """What of the configuration is needed here: `config.database`."""

    @property
    def is_embedded(self) -> bool: ...
    @property
    def data_directory(self) -> str | None: ...
    @property
    def connection_args(self) -> Mapping[str, Any]: ...
    @property
    def pool_min(self) -> int: ...
    @property
    def pool_max(self) -> int: ...
    @property
    def allow_unsafe_locale(self) -> bool: ...


def prepare(options: DatabaseOptions, server_name: str, *, main: bool) -> PoolSettings:
    """Makes sure that the database can be used; returns how to. Raises `DatabaseProblem`."""
    settings = pool_settings(options, start=main)
    connection = _connect(settings)
    try:
        _check_server(connection, options.allow_unsafe_locale)
        if main:
            _make_or_migrate(connection, server_name)
        else:
            _wait_for_schema(connection, WORKER_PATIENCE)
        _check_identity(connection, server_name)
    except psycopg2.Error as error:
        raise DatabaseProblem(f"The database cannot be prepared: {_sentence(error)}.") from error
    finally:
        connection.close()
    return settings


def pool_settings(options: DatabaseOptions, *, start: bool) -> PoolSettings:
    """How to connect; with `start`, the embedded server is started where it does not run. Raises `DatabaseProblem`."""
    if options.is_embedded:
        from synapse.storage import embedded

        directory = options.data_directory
        assert directory is not None, "the configuration is checked"
        args = embedded.ensure_running(directory) if start else embedded.connection_of(directory)
    else:
        args = dict(options.connection_args)
    return PoolSettings(args, options.pool_min, options.pool_max)


def _connect(settings: PoolSettings) -> Connection:
    try:
        return connect(settings)
    except psycopg2.OperationalError as error:
        raise DatabaseUnavailable(
            f"The database cannot be reached: {_sentence(error)}; check `database.args` and that PostgreSQL runs."
        ) from error
    except psycopg2.Error as error:
        raise DatabaseProblem(f"`database.args` is not what PostgreSQL understands: {_sentence(error)}.") from error


def _check_server(connection: Connection, allow_unsafe_locale: bool) -> None:
    if connection.server_version < OLDEST_SERVER:
        raise DatabaseProblem(
            f"The database runs on PostgreSQL {connection.server_version // 10000}; "
            f"this server needs {OLDEST_SERVER // 10000} or later, so upgrade it."
        )
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT datname, pg_encoding_to_char(encoding), datcollate, datctype FROM pg_database"
            " WHERE datname = current_database()"
        )
        ((name, encoding, collate, ctype),) = cursor.fetchall()
    advice = f"make it anew: CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'"
    if encoding != "UTF8":
        raise DatabaseProblem(f"The database {name} has the encoding {encoding}, and it must be UTF8; {advice}.")
    if not {collate, ctype} <= {"C", "POSIX"}:
        problem = (
            f"The database {name} has the collation {collate} and the character type {ctype}, and both should be C"
        )
        if not allow_unsafe_locale:
            raise DatabaseProblem(f"{problem}; {advice}, or set `database.allow_unsafe_locale` to take the risk.")
        logger.warning("%s: its indexes break when the system's locale data changes.", problem)


def _make_or_migrate(connection: Connection, server_name: str) -> None:
    with connection.cursor() as cursor, _locked(cursor):
        versions = migrations.read_versions(cursor)
        if versions is None:
            logger.info("Making the database's tables")
            migrations.create(connection, server_name)
            return
        migrations.check_compatible(versions)
        _check_identity(connection, server_name)
        migrations.migrate(connection, versions, migrations.migrations())


@contextmanager
def _locked(cursor: Cursor) -> Iterator[None]:
    cursor.execute("SELECT pg_advisory_lock(%s)", (_PREPARE_LOCK,))
    try:
        yield
    finally:
        if not cursor.connection.closed:
            cursor.execute("ROLLBACK")  # of a step that failed; a mere notice otherwise
            cursor.execute("SELECT pg_advisory_unlock(%s)", (_PREPARE_LOCK,))


def _wait_for_schema(connection: Connection, patience: float) -> None:
    """For workers: waits until the main process has brought the database to the version that the code needs."""
    deadline = time.monotonic() + patience
    while True:
        with connection.cursor() as cursor:
            versions = migrations.read_versions(cursor)
        if versions is not None:
            migrations.check_compatible(versions)
            if versions.version >= migrations.SCHEMA_VERSION:
                return
        if time.monotonic() > deadline:
            raise DatabaseProblem(_not_ready(versions))
        time.sleep(0.1)


def _not_ready(versions: migrations.Versions | None) -> str:
    if versions is None:
        return "The database is empty; start the main process first, it makes the tables."
    return (
        f"The database has version {versions.version} and this process needs {migrations.SCHEMA_VERSION}; "
        "start the main process of this release first, it brings the database there."
    )


def _check_identity(connection: Connection, server_name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT server_name FROM server_identity")
        row = cursor.fetchone()
    if row is None or row[0] != server_name:
        other = "of no name" if row is None else row[0]
        raise DatabaseProblem(
            f"The database belongs to the server {other}, and `server_name` is {server_name}; "
            "a server's name cannot be changed, so set it back or use another database."
        )


def _sentence(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].removesuffix(".") or type(error).__name__
