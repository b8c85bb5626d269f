"""Which processes run: found by what they call themselves in /proc, whatever pid files say.

A pid file may be stale and its number given to somebody else's process by now; so nothing is ever signalled for its
number alone. A process is ours if it is `python -m synapse.app.NAME` with the same configuration files, runs as us
(or we are root), and sees the same files under those names. Linux alone.
"""

from __future__ import annotations

import os
import re
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

from synapse.synctl.cluster import Process

_APP = re.compile(
    r"(?:\S*/)?python[0-9.]* (?:-\S+ (?:[^-]\S* )?)*?-m (?P<app>synapse\.app\.\w+)(?P<arguments>(?: .*)?)$", re.DOTALL
)
_CONFIG = re.compile(r" (?:-c|--config-path)[ =](?P<file>.*?)(?= -|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Running:
    """A process of the system that is one of this software's."""

    pid: int
    app: str
    files: tuple[str, ...]  # absolute
    started: float  # seconds since the epoch

    def runs(self, process: Process) -> bool:
        """Whether this is the process that those files describe.

        The main process is told by homeserver.yaml alone, because it may have been started with or without the
        file of its own in the workers' directory.
        """
        if self.app != process.app or not self.files or not _same_file(self.pid, self.files[0], process.files[0]):
            return False
        return process.is_main or self._ends_with(process)

    def _ends_with(self, process: Process) -> bool:
        return len(self.files) > 1 and _same_file(self.pid, self.files[-1], process.files[-1])

    def belongs_to(self, shared_file: str) -> bool:
        """Whether it is any process of the server with this homeserver.yaml."""
        return bool(self.files) and _same_file(self.pid, self.files[0], shared_file)


def find(process: Process) -> Running | None:
    """The running process that these files describe; the oldest, should there be several."""
    matching = [running for running in running_processes() if running.runs(process)]
    return min(matching, key=lambda running: running.started, default=None)


def running_processes() -> Iterator[Running]:
    """Every process of this software that we may touch."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (running := inspect(int(name))) is not None:
            yield running


def inspect(pid: int) -> Running | None:
    """What a pid is, None if it is gone or none of this software's processes."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="surrogateescape")
    except OSError:
        return None
    parsed = parse_command(command)
    if parsed is None or os.geteuid() not in (0, owner) or _is_zombie(pid):
        return None
    app, files = parsed
    return Running(pid, app, tuple(_absolute(pid, file) for file in files), _start_time(pid))


def parse_command(command: str) -> tuple[str, tuple[str, ...]] | None:
    """The application and the configuration files of a command line, None if it is no process of this software."""
    match = _APP.match(command)
    return match and (match["app"], tuple(found["file"] for found in _CONFIG.finditer(match["arguments"])))


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name (which may hold spaces): state first. Empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _is_zombie(pid: int) -> bool:
    fields = _stat_fields(pid)
    return not fields or fields[0] in "ZX"


def _start_time(pid: int) -> float:
    fields = _stat_fields(pid)
    if not fields:
        return time.time()
    with open("/proc/uptime", encoding="ascii") as file:
        uptime = float(file.read().split()[0])
    return time.time() - uptime + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _absolute(pid: int, file: str) -> str:
    """A file name of another process's command line, resolved where that process is."""
    if os.path.isabs(file):
        return file
    try:
        return os.path.normpath(os.path.join(os.readlink(f"/proc/{pid}/cwd"), file))
    except OSError:
        return file


def _same_file(pid: int, theirs: str, ours: str) -> bool:
    """Whether a name in another process (perhaps in a container) means the same file as a name here."""
    if os.path.realpath(theirs) != os.path.realpath(ours):
        return False
    try:
        return os.path.samestat(os.stat(f"/proc/{pid}/root{theirs}"), os.stat(ours))
    except OSError:
        return True  # gone, or not ours to look at: the names have to do


def remove_stale_pid_file(process: Process) -> int | None:
    """Remove a pid file whose process is gone or another's; returns the number that it held."""
    path = process.config.pid_file
    pid = read_pid_file(path) if path else None
    if path is None or pid is None:
        return None
    running = inspect(pid)
    if running is not None and running.runs(process):
        return None
    os.unlink(path)
    return pid


def read_pid_file(path: str) -> int | None:
    """The number in a pid file; None if there is no such file, or no number in it."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read().strip()
    except FileNotFoundError:
        return None
    return int(text) if text.isdecimal() and text.isascii() else None


class Handle:
    """A hold on one running process, which cannot turn into another even if its pid is used again."""

    def __init__(self, running: Running) -> None:
        self.pid = running.pid
        self._fd: int | None = None
        try:
            self._fd = os.pidfd_open(running.pid)
        except ProcessLookupError:
            return
        again = inspect(running.pid)
        if again is None or again.app != running.app or again.files != running.files:
            self.close()  # it ended, and its number went to another, before we took hold

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process is gone."""
        if self._fd is not None:
            try:
                signal.pidfd_send_signal(self._fd, number)
            except ProcessLookupError:
                self.close()

    def wait(self, seconds: float) -> bool:
        """Wait until the process is gone; False if it is still there after that time."""
        if self._fd is None:
            return True
        readable, _, _ = select.select([self._fd], [], [], max(seconds, 0))
        if readable:
            self.close()
        return bool(readable)
