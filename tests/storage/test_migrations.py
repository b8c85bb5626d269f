"""The schema: made at once, migrated step by step, and refused where it does not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from synapse.storage import migrations, prepare
from synapse.storage.errors import DatabaseProblem, DatabaseUnavailable
from synapse.storage.migrations import Versions
from synapse.storage.pool import PoolSettings, connect
from tests.storage.shapes import Shape, hindrances, read_shape
from tests.support.postgres import PostgresServer

SCHEMA_1 = Path(__file__).with_name("schema_1.sql")


@dataclass
class Options:
    """The part of the configuration that is about the database."""

    connection_args: dict[str, Any]
    is_embedded: bool = False
    data_directory: str | None = None
    pool_min: int = 1
    pool_max: int = 3
    allow_unsafe_locale: bool = False
    used: list[str] = field(default_factory=list)


@pytest.fixture
def make(postgres: PostgresServer) -> Iterator[Callable[..., Options]]:
    made: list[str] = []

    def empty(*how: str) -> Options:
        made.append(postgres.create_empty(*how))
        return Options(postgres.settings(made[-1]).connection)

    yield empty
    for name in made:
        postgres.drop(name)


def execute(options: Options, sql: str) -> list[Any]:
    with closing(connect(PoolSettings(options.connection_args))) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall() if cursor.description else []


def test_the_main_process_makes_the_schema_and_a_worker_finds_it(make: Callable[..., Options]) -> None:
    options = make()
    settings = prepare.prepare(options, "example.org", main=True)
    assert (settings.minimum, settings.maximum) == (1, 3)
    prepare.prepare(options, "example.org", main=True)
    prepare.prepare(options, "example.org", main=False)
    assert execute(options, "SELECT version FROM schema_version") == [(migrations.SCHEMA_VERSION,)]


def test_a_worker_does_not_wait_for_ever(make: Callable[..., Options], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "WORKER_PATIENCE", 0.0)
    with pytest.raises(DatabaseProblem, match="start the main process first"):
        prepare.prepare(make(), "example.org", main=False)


def test_a_database_has_one_server_name(make: Callable[..., Options]) -> None:
    options = make()
    prepare.prepare(options, "example.org", main=True)
    for main in (True, False):
        with pytest.raises(DatabaseProblem, match=r"belongs to the server example.org, and `server_name` is other.org"):
            prepare.prepare(options, "other.org", main=main)


def test_somebody_elses_tables_are_left_alone(make: Callable[..., Options]) -> None:
    options = make()
    execute(options, "CREATE TABLE theirs (x int)")
    with pytest.raises(DatabaseProblem, match=r"not ours \(theirs"):
        prepare.prepare(options, "example.org", main=True)


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'", "has the encoding SQL_ASCII, and it must be UTF8"),
        ("TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'", "has the encoding LATIN1, and it must be UTF8"),
    ],
)
def test_a_wrong_encoding_is_refused(make: Callable[..., Options], how: str, sentence: str) -> None:
    with pytest.raises(DatabaseProblem, match=f"{sentence}; make it anew: CREATE DATABASE"):
        prepare.prepare(make(how), "example.org", main=True)


def test_a_collation_other_than_c_is_refused_unless_allowed(
    make: Callable[..., Options], caplog: pytest.LogCaptureFixture
) -> None:
    try:
        options = make("TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'")
    except psycopg2.Error:
        pytest.skip("the database server's system has no locale but C")
    with pytest.raises(DatabaseProblem, match=r"collation C.UTF-8 .* or set `database.allow_unsafe_locale`"):
        prepare.prepare(options, "example.org", main=True)
    options.allow_unsafe_locale = True
    prepare.prepare(options, "example.org", main=True)
    assert "indexes break" in caplog.text


@pytest.mark.parametrize(
    ("args", "kind", "sentence"),
    [
        ({"host": "/nonexistent"}, DatabaseUnavailable, "cannot be reached.*check `database.args`"),
        ({"hots": "localhost"}, DatabaseProblem, "is not what PostgreSQL understands.*hots"),
    ],
)
def test_a_database_that_cannot_be_reached(args: dict[str, str], kind: type[Exception], sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        prepare.prepare(Options(args), "example.org", main=True)


def write(directory: Path, **files: str) -> None:
    for name, sql in files.items():
        (directory / f"{name.removeprefix('m')}.sql").write_text(sql)


def make_old(options: Options) -> None:
    """Gives an empty database the tables of version 1 alone."""
    execute(options, SCHEMA_1.read_text())
    execute(options, "INSERT INTO schema_version (version, compat_version) VALUES (1, 1)")
    execute(options, "INSERT INTO server_identity (server_name) VALUES ('example.org')")


def test_migrations_are_taken_in_order_and_once(make: Callable[..., Options], tmp_path: Path) -> None:
    options = make()
    make_old(options)
    write(
        tmp_path,
        m0001_before="SELECT 1/0",
        m0002_add="CREATE TABLE added (x int)",
        m0003_fill="INSERT INTO added VALUES (3)",
    )
    steps = migrations.migrations(tmp_path)
    with closing(connect(PoolSettings(options.connection_args))) as connection:
        assert migrations.migrate(connection, Versions(1, 1), steps, compat=2) == 3
        assert migrations.migrate(connection, Versions(3, 2), steps, compat=2) == 3
        with connection.cursor() as cursor:
            assert migrations.read_versions(cursor) == Versions(3, 2)
    assert execute(options, "SELECT x FROM added") == [(3,)]


def test_a_step_that_fails_leaves_the_version_before_it(make: Callable[..., Options], tmp_path: Path) -> None:
    options = make()
    make_old(options)
    write(tmp_path, m0002_good="CREATE TABLE good (x int)", m0003_bad="CREATE TABLE bad (x int); SELECT 1/0")
    connection = connect(PoolSettings(options.connection_args))
    with closing(connection), pytest.raises(psycopg2.Error):
        migrations.migrate(connection, Versions(1, 1), migrations.migrations(tmp_path))
    assert execute(options, "SELECT max(version) FROM schema_version") == [(2,)]
    assert execute(options, "SELECT to_regclass('good')::text, to_regclass('bad')::text") == [("good", None)]


def test_misnamed_and_doubled_migrations_are_found(tmp_path: Path) -> None:
    write(tmp_path, m0002_a="", m0002_b="")
    with pytest.raises(ValueError, match="0002_b"):
        migrations.migrations(tmp_path)
    (tmp_path / "0002_b.sql").rename(tmp_path / "third.sql")
    with pytest.raises(ValueError, match="third"):
        migrations.migrations(tmp_path)


def test_the_full_schema_is_of_the_newest_migration() -> None:
    steps = migrations.migrations()
    assert max([step.version for step in steps], default=1) == migrations.SCHEMA_VERSION
    assert migrations.COMPAT_VERSION <= migrations.SCHEMA_VERSION


def test_a_database_that_is_too_new_is_refused(make: Callable[..., Options]) -> None:
    options = make()
    prepare.prepare(options, "example.org", main=True)
    execute(options, "INSERT INTO schema_version (version, compat_version) VALUES (98, 1)")
    prepare.prepare(options, "example.org", main=True)
    prepare.prepare(options, "example.org", main=False)
    execute(options, "INSERT INTO schema_version (version, compat_version) VALUES (99, 97)")
    for main in (True, False):
        with pytest.raises(DatabaseProblem, match=r"newer release.*takes 97 or later.*upgrade this process"):
            prepare.prepare(options, "example.org", main=main)


def test_a_worker_that_is_newer_than_the_database_says_so(
    make: Callable[..., Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = make()
    prepare.prepare(options, "example.org", main=True)
    monkeypatch.setattr(prepare, "WORKER_PATIENCE", 0.0)
    now = migrations.SCHEMA_VERSION
    monkeypatch.setattr(migrations, "SCHEMA_VERSION", 7)
    with pytest.raises(DatabaseProblem, match=f"has version {now} and this process needs 7; start the main process"):
        prepare.prepare(options, "example.org", main=False)


def shape(options: Options) -> Shape:
    return read_shape(lambda sql: execute(options, sql))


def test_a_migrated_database_has_the_shape_of_a_new_one(make: Callable[..., Options]) -> None:
    new, old = make(), make()
    make_old(old)
    assert shape(old) != shape(new)
    for options in (new, old):
        prepare.prepare(options, "example.org", main=True)
    assert execute(old, "SELECT max(version), max(compat_version) FROM schema_version") == [
        (migrations.SCHEMA_VERSION, migrations.COMPAT_VERSION)
    ]
    for part, migrated, made in zip(Shape._fields, shape(old), shape(new), strict=True):
        assert migrated == made, f"the {part} differ"


def test_code_of_the_oldest_compatible_version_works_on_the_new_shape(make: Callable[..., Options]) -> None:
    """Of what the catalogs tell. A change that older code cannot know of raises COMPAT_VERSION all the same."""
    assert migrations.COMPAT_VERSION == 1, "compare with the frozen schema of that version"
    options = make()
    make_old(options)
    before = shape(options)
    prepare.prepare(options, "example.org", main=True)
    assert hindrances(before, shape(options)) == []


@pytest.mark.parametrize(
    ("change", "hindrance"),
    [
        ("ALTER TABLE rooms DROP COLUMN creator", "rooms.creator was"),
        ("ALTER TABLE rooms ALTER COLUMN created_ts TYPE integer", "rooms.created_ts was"),
        ("ALTER TABLE rooms ADD COLUMN x text NOT NULL", "rooms.x must be given"),
        ("ALTER TABLE rooms ADD CHECK (creator <> '')", "rooms has CHECK"),
        ("CREATE UNIQUE INDEX x ON rooms (creator)", "rooms has CREATE UNIQUE INDEX"),
        ("ALTER TABLE presence DROP CONSTRAINT presence_stream_id_key", "presence lacks UNIQUE"),
    ],
)
def test_what_older_code_stumbles_over_is_found(make: Callable[..., Options], change: str, hindrance: str) -> None:
    options = make()
    make_old(options)
    before = shape(options)
    execute(options, "ALTER TABLE rooms ADD COLUMN harmless text; CREATE TABLE fresh (x text NOT NULL)")
    assert hindrances(before, shape(options)) == []
    execute(options, change)
    assert any(each.startswith(hindrance) for each in hindrances(before, shape(options)))


def test_the_package_brings_its_migrations() -> None:
    (patterns,) = re.findall(r"package_data=\{\"synapse\": \[(.*?)\]\}", Path("setup.py").read_text())
    globs = re.findall(r'"([^"]+)"', patterns)
    carried = {path for pattern in globs for path in Path("synapse").glob(pattern)}
    assert {step.path.relative_to(Path.cwd()) for step in migrations.migrations()} <= carried


@pytest.mark.parametrize("newest", [None, 7])
def test_old_events_are_indexed_in_the_background_and_new_ones_from_here_on(
    make: Callable[..., Options], newest: int | None
) -> None:
    options = make()
    make_old(options)
    if newest is not None:
        execute(
            options,
            f"""
            INSERT INTO events (stream_ordering, event_id, room_id, depth, type, sender, origin_server_ts, received_ts,
                json) VALUES ({newest}, '$e', '!r:x', 1, 'm.room.message', '@u:x', 1, 1, '{{}}')
            """,
        )
    prepare.prepare(options, "example.org", main=True)
    sql = "SELECT position FROM stream_followers WHERE follower = 'event_search' AND stream = 'events'"
    assert execute(options, sql) == [(newest or 0,)]
    assert ("event_search",) in execute(options, "SELECT name FROM background_updates")
