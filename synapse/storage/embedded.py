"""The embedded database: a PostgreSQL server that belongs to one homeserver and is started on demand.

    settings = ensure_running(directory)         # the main process, synctl, the demo
    settings = connection_of(directory)          # workers
    stop(directory)                              # synctl, the demo

It is a server like any other: it runs by itself, outlives the process that started it, and the next process that asks
for it finds it running. It listens on a unix socket in its directory only, and lets in the user that runs the
homeserver, and root (peer authentication: there is no password to keep).

    directory/
      server.json     where the server is; workers connect with it
      data/           PostgreSQL's files
      socket/         the socket
      log             what the server says

Blocking, before the reactor runs. Which programs run it, and as which user, is in `embedded_programs`.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg2

from synapse.storage.embedded_programs import Programs, ServerUser, find_programs, reachable_copy, server_user
from synapse.storage.errors import DatabaseProblem

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

ROLE: Final = "synapse"
DATABASE: Final = "synapse"
_SOCKET_NAME: Final = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH: Final = 103  # of sockaddr_un, on every system
_PATIENCE_SECONDS: Final = 300.0  # for a recovery after a crash
_LEFTOVER_SECONDS: Final = 30.0
_LEFTOVERS: Final = ("already exists", "still in use", "is still active", "another server might be running")
_HIDDEN_BASE: Final = Path("/var/lib/synapse-postgres")

# Modest, for a server that shares its machine with the homeserver; connections for a dozen processes.
_SETTINGS: Final = {
    "listen_addresses": "''",
    "port": "5432",
    "max_connections": "300",
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "max_wal_size": "1GB",
    "min_wal_size": "80MB",
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "random_page_cost": "1.1",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "log_timezone": "'UTC'",
    "timezone": "'UTC'",
    "log_line_prefix": "'%m [%p] '",
}
_SETTINGS_FROM: Final = {18: {"io_method": "sync"}}  # without workers of its own: a process less, or three


class Location(NamedTuple):
    """Where one embedded server keeps its things: what `server.json` says."""

    data: str
    socket: str
    log: str

    def connection(self, database: str = DATABASE) -> dict[str, Any]:
        """How to connect, by the names of libpq."""
        return {"host": self.socket, "port": 5432, "user": ROLE, "dbname": database}


def ensure_running(directory: Path | str, *, fsync: bool = True) -> dict[str, Any]:
    """Starts the server of `directory`, making it first where there is none, or finds it running.

    Returns how to connect. Raises `DatabaseProblem`. Without `fsync` (for tests), a crash of the machine loses data.
    """
    directory = _made(Path(directory))
    with _locked(directory):
        location = _read_location(directory)
        if location is not None and _answers(location):
            return location.connection()
        user = server_user()
        if location is None:
            location = _locate(directory, user)
        programs = reachable_copy(find_programs(Path(location.data)), user, _HIDDEN_BASE)
        _initialise(location, programs, user)
        _write_settings(location, programs, user, fsync)
        _start(location, programs, user)
        _create_database(location)
        return location.connection()


def connection_of(directory: Path | str) -> dict[str, Any]:
    """How to connect to the server of `directory`. Raises `DatabaseProblem` where none was ever started."""
    location = _read_location(Path(directory))
    if location is None:
        raise DatabaseProblem(
            f"There is no embedded database in {directory} yet; start the main process first, it makes the database."
        )
    return location.connection()


def is_running(directory: Path | str) -> bool:
    """Whether the server of `directory` answers."""
    location = _read_location(Path(directory))
    return location is not None and _answers(location)


def stop(directory: Path | str) -> bool:
    """Stops the server of `directory`, ending its connections; False if it did not run. Raises `DatabaseProblem`."""
    directory = Path(directory)
    location = _read_location(directory)
    if location is None or not Path(location.data, "postmaster.pid").exists():
        return False
    with _locked(directory):
        user = server_user(Path(location.data))
        programs = reachable_copy(find_programs(Path(location.data)), user, _HIDDEN_BASE)
        done = programs.run(user, "pg_ctl", "-D", location.data, "-m", "fast", "-w", "-t", "60", "stop")
    if done.returncode and Path(location.data, "postmaster.pid").exists() and _answers(location):
        raise DatabaseProblem(f"The embedded database in {directory} did not stop: {_last_line(done)}.")
    return done.returncode == 0


def _made(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseProblem(
            f"The directory {directory} for the embedded database cannot be made ({error.strerror}); "
            "set `database.data_directory` to one that can."
        ) from error
    return directory.resolve()


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """One process at a time starts or stops the server; the others wait and then find it done."""
    try:
        with open(directory / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise _foreign(directory) from error


def _read_location(directory: Path) -> Location | None:
    try:
        said = json.loads((directory / "server.json").read_text())
        return Location(**{name: str(directory.resolve() / path) for name, path in said.items()})
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise _foreign(directory) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise DatabaseProblem(f"{directory}/server.json is damaged; remove it to have it written anew.") from error


def _foreign(directory: Path) -> DatabaseProblem:
    return DatabaseProblem(
        f"The embedded database in {directory} belongs to another user; run the homeserver as the one that made it."
    )


def _locate(directory: Path, user: ServerUser) -> Location:
    """Chooses the places and writes them down. `data` is found again where only server.json was lost."""
    base = directory if user.can_enter(directory) else _hidden_base(user)
    socket = base / "socket"
    if len(str(socket / _SOCKET_NAME)) > _LONGEST_SOCKET_PATH:
        socket = Path(tempfile.mkdtemp(prefix="synapse-postgres-", dir="/tmp"))
        os.chown(socket, user.uid, user.gid)
    location = Location(str(base / "data"), str(socket), str(base / "log"))
    # Relative where they are inside, so that the directory can be moved.
    said = {name: path.removeprefix(f"{directory}/") for name, path in location._asdict().items()}
    temporary = directory / "server.json.new"
    temporary.write_text(json.dumps(said, indent=2) + "\n")
    temporary.replace(directory / "server.json")
    return location


def _hidden_base(user: ServerUser) -> Path:
    """A place for a server whose user cannot enter the configured directory: it is inside root's home, say."""
    _HIDDEN_BASE.mkdir(mode=0o755, parents=True, exist_ok=True)
    base = Path(tempfile.mkdtemp(prefix="server-", dir=_HIDDEN_BASE))
    os.chown(base, user.uid, user.gid)
    return base


def _initialise(location: Location, programs: Programs, user: ServerUser) -> None:
    data = Path(location.data)
    user.make_directory(data)
    user.make_directory(Path(location.socket))
    log = Path(location.log)
    log.touch(mode=0o600)
    os.chown(log, user.uid, user.gid)
    if (data / "PG_VERSION").exists():
        return
    done = programs.run(
        user,
        "initdb",
        "-D",
        str(data),
        "-U",
        ROLE,
        "--auth=peer",
        "--encoding=UTF8",
        "--no-locale",
        "--no-instructions",
    )
    if done.returncode:
        raise DatabaseProblem(f"The embedded database could not be made in {data}: {_last_line(done)}.")


def _write_settings(location: Location, programs: Programs, user: ServerUser, fsync: bool) -> None:
    settings = {**_SETTINGS, "unix_socket_directories": f"'{location.socket}'", "fsync": "on" if fsync else "off"}
    for major, more in _SETTINGS_FROM.items():
        if programs.major >= major:
            settings.update(more)
    data = Path(location.data)
    lines = ["# Written at every start; your own settings go to the end of postgresql.conf, and win.\n"]
    lines += [f"{name} = {value}\n" for name, value in settings.items()]
    user.write(data / "synapse.conf", "".join(lines))
    names = {"root", user.name, ServerUser.current().name}
    user.write(data / "pg_ident.conf", "".join(f'synapse "{name}" {ROLE}\n' for name in sorted(names)))
    user.write(data / "pg_hba.conf", "local all all peer map=synapse\n")
    main = data / "postgresql.conf"
    text = main.read_text()
    if "synapse.conf" not in text:
        user.write(main, text + "\ninclude 'synapse.conf'\n")


def _start(location: Location, programs: Programs, user: ServerUser) -> None:
    _forget_dead(Path(location.data, "postmaster.pid"))
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    while True:
        said_before = Path(location.log).stat().st_size
        done = programs.run(user, "pg_ctl", "-D", location.data, "-l", location.log, "-w", "-t", "60", "-s", "start")
        if done.returncode == 0 or _answers(location):
            return
        why = _why(location, said_before) or _last_line(done)
        # Children of a server that was killed take a moment to notice.
        if not any(words in why for words in _LEFTOVERS) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    raise DatabaseProblem(f"The embedded database in {location.data} does not start: {why} (see {location.log}).")


def _why(location: Location, said_before: int) -> str | None:
    """What the log says since, if anything: the line that tells why the server did not start."""
    with open(location.log, "rb") as log:
        log.seek(said_before)
        lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return next((line for line in reversed(lines) if "FATAL" in line), lines[-1] if lines else None)


def _forget_dead(pid_file: Path) -> None:
    """Removes the file of a server that is gone, where its number has been given to another program since.

    PostgreSQL believes in any living process of its user, and would not start: in containers, numbers recur.
    """
    try:
        pid = int(pid_file.read_text().split()[0])
        program = Path(f"/proc/{pid}/comm").read_text().strip()
    except (OSError, ValueError, IndexError):
        return
    if program not in ("postgres", "postmaster"):
        pid_file.unlink(missing_ok=True)


def _create_database(location: Location) -> None:
    connection = _connect(location, "postgres")
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
    finally:
        connection.close()


def _answers(location: Location) -> bool:
    """Whether the server lets us in; while it starts up, recovers or shuts down, waits for how that ends."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            _connect(location, "postgres").close()
        except psycopg2.OperationalError as error:
            passing = any(words in str(error) for words in ("starting up", "shutting down", "recovery"))
            if not passing or time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        else:
            return True


def _connect(location: Location, database: str) -> Connection:
    connection: Connection = psycopg2.connect(**location.connection(database), connect_timeout=10)
    connection.autocommit = True
    return connection


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[-1].removesuffix(".") if lines else f"status {done.returncode}"
