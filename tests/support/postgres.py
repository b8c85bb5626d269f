"""A PostgreSQL server for the whole test run, and an empty database of our schema for each test that asks for one.

The server is the one that `$SYNAPSE_TEST_POSTGRES` names (a libpq connection string of a role that may create
databases) or an embedded one in a temporary directory, which does not sync to disk. Databases are copied from a
template.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import make_dsn, parse_dsn

from synapse.storage import embedded, migrations
from synapse.storage.database import Database, PoolSettings
from synapse.storage.pool import connect
from tests.support.reactor import real_reactor

SERVER_NAME = "test"
_PREFIX = "synapse-tests-"
_ROOM = 1 << 30
_numbers = count(1)


class PostgresServer:
    """Makes and drops databases on one server."""

    def __init__(self, args: dict[str, Any]) -> None:
        self.args = args
        self._admin = connect(PoolSettings(args))
        self._prefix = f"synapse_test_{os.getpid()}"
        self._templates: dict[str, str] = {}  # by the name of the homeserver
        # By files: half of what it costs to log every page. (Older servers know no other way.)
        self._strategy = "STRATEGY file_copy" if self._admin.server_version >= 150000 else ""

    def settings(self, database: str) -> PoolSettings:
        return PoolSettings({**self.args, "dbname": database}, 1, 4)

    def create(self, server_name: str = SERVER_NAME) -> str:
        """A new database with the schema, of a homeserver of that name."""
        template = self._templates.get(server_name)
        if template is None:
            template = self._templates[server_name] = self.create_empty()
            with closing(connect(self.settings(template))) as connection:
                migrations.create(connection, server_name)
        return self._create(f"TEMPLATE {template} {self._strategy}")

    def create_empty(self, how: str = "TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'") -> str:
        """A new database without tables."""
        return self._create(how)

    def drop(self, name: str) -> None:
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def kill_connections(self, name: str) -> None:
        """Cuts every connection to the database, as a restart of the server would."""
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", name)

    def sql(self, sql: str, *params: Any) -> None:
        with self._admin.cursor() as cursor:
            cursor.execute(sql, params or None)

    def close(self) -> None:
        for template in self._templates.values():
            self.drop(template)
        self._admin.close()

    def _create(self, how: str) -> str:
        name = f"{self._prefix}_{next(_numbers)}"
        self.sql(f"CREATE DATABASE {name} {how}")
        return name


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """The server of the test run, started when the first test asks for it."""
    with running() as server:
        yield server


@contextmanager
def running() -> Iterator[PostgresServer]:
    """A server, for as long as it takes."""
    given = os.environ.get("SYNAPSE_TEST_POSTGRES")
    directory = None
    if given is not None:
        args: dict[str, Any] = dict(parse_dsn(given))
    else:
        directory = _directory()
        args = embedded.ensure_running(directory, fsync=False)
    server = PostgresServer(args)
    yield server
    server.close()
    if directory is not None:
        _remove(directory)


@pytest.fixture
def database_settings(postgres: PostgresServer) -> Iterator[PoolSettings]:
    """How to connect to a database of our schema that is this test's alone; for tests with several pools."""
    name = postgres.create()
    yield postgres.settings(name)
    postgres.drop(name)


@pytest.fixture
def database(database_settings: PoolSettings) -> Iterator[Database]:
    """A `Database` on a database that is this test's alone."""
    db = Database(real_reactor(), database_settings)
    yield db
    db.close()
    db.pool.join(5.0)


def dsn(settings: PoolSettings) -> str:
    """The settings as one string."""
    return str(make_dsn(**settings.connection))


def _directory() -> Path:
    """A new directory, in memory if there is room; what runs that were killed have left is removed on the way."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ROOM
    base = memory if roomy else Path(tempfile.gettempdir())
    for left in base.glob(f"{_PREFIX}*"):
        pid = left.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and left.owner() == _my_name() and not Path("/proc", pid).exists():
            _remove(left)
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=base))
    directory.chmod(0o755)
    return directory


def _my_name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _remove(directory: Path) -> None:
    embedded.stop(directory)
    shutil.rmtree(directory, ignore_errors=True)
