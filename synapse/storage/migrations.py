"""Bringing a database into the shape that this release needs.

A new database gets `schema/full.sql` at once. An older one gets the numbered files of `schema/migrations/` that it
has not seen, `0002_what_it_does.sql`, each in a transaction of its own together with its entry in `schema_version`.
What takes long on a large database is a background update (`synapse.storage.background_updates`), which a migration
puts in its table.

When the schema changes: add a migration, bring full.sql to the same shape (a test compares the two), raise
`SCHEMA_VERSION`; and raise `COMPAT_VERSION` to the oldest schema version whose code works on the new shape, so that
processes of neighbouring releases may run at once. Older code works on a shape that only adds to its own: tables, and
columns that need not be given. A test holds that for the frozen schemas (`tests/storage/schema_1.sql`) from
`COMPAT_VERSION` on.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.storage.errors import DatabaseProblem

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor

logger = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 4
COMPAT_VERSION: Final = 1

_SCHEMA: Final = Path(__file__).with_name("schema")
_MIGRATION_NAME: Final = re.compile(r"(\d{4})_\w+\.sql")


class Versions(NamedTuple):
    """What the database says of itself."""

    version: int  # of its shape
    compat: int  # the oldest whose code works on it


class Migration(NamedTuple):
    """One step to a newer shape."""

    version: int
    path: Path


def migrations(directory: Path = _SCHEMA / "migrations") -> list[Migration]:
    """The steps there are, in order. Raises `ValueError` where a file is misnamed or a number occurs twice."""
    found: dict[int, Migration] = {}
    for path in sorted(directory.glob("*.sql")) if directory.exists() else []:
        match = _MIGRATION_NAME.fullmatch(path.name)
        if match is None or int(match[1]) in found:
            raise ValueError(f"the migration {path.name} is misnamed or has the number of another")
        found[int(match[1])] = Migration(int(match[1]), path)
    return [found[number] for number in sorted(found)]


def read_versions(cursor: Cursor) -> Versions | None:
    """The versions of the database;

    None where it holds no schema. Raises `DatabaseProblem` where it holds another's.
    """
    cursor.execute("SELECT to_regclass('schema_version') IS NOT NULL")
    if not _first(cursor)[0]:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
        )
        others = sorted(str(name) for (name,) in cursor.fetchall())
        if others:
            raise DatabaseProblem(
                f"The database holds tables that are not ours ({', '.join(others[:3])}…); give us an empty one."
            )
        return None
    cursor.execute("SELECT version, compat_version FROM schema_version ORDER BY version DESC LIMIT 1")
    row = cursor.fetchone()
    if row is None:
        raise DatabaseProblem("The database's table schema_version is empty; restore the database from a backup.")
    return Versions(*row)


def create(connection: Connection, server_name: str) -> None:
    """Makes the schema in an empty database."""
    sql = (_SCHEMA / "full.sql").read_text()
    with connection.cursor() as cursor:
        cursor.execute(f"BEGIN;\n{sql}")
        cursor.execute(
            "INSERT INTO schema_version (version, compat_version) VALUES (%s, %s)", (SCHEMA_VERSION, COMPAT_VERSION)
        )
        cursor.execute("INSERT INTO server_identity (server_name) VALUES (%s)", (server_name,))
        cursor.execute("COMMIT")


def migrate(connection: Connection, versions: Versions, steps: list[Migration], compat: int = COMPAT_VERSION) -> int:
    """Takes the steps that the database has not seen; the version it then has."""
    version = versions.version
    for step in steps:
        if step.version <= version:
            continue
        logger.info("Bringing the database to version %d: %s", step.version, step.path.stem)
        with connection.cursor() as cursor:
            cursor.execute(f"BEGIN;\n{step.path.read_text()}")
            cursor.execute(
                "INSERT INTO schema_version (version, compat_version) VALUES (%s, %s)", (step.version, compat)
            )
            cursor.execute("COMMIT")
        version = step.version
    return version


def check_compatible(versions: Versions, *, version: int = SCHEMA_VERSION) -> None:
    """Raises `DatabaseProblem` where the database is too new for this release's code."""
    if versions.compat > version:
        raise DatabaseProblem(
            f"The database was brought to version {versions.version} by a newer release, which version {version} of "
            f"this release cannot work with (it takes {versions.compat} or later); upgrade this process."
        )


def _first(cursor: Cursor) -> tuple[object, ...]:
    row = cursor.fetchone()
    assert row is not None, "a SELECT without FROM returns a row"
    return row
