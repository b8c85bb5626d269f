"""Going to the background, and the pid file that says who is there.

A pid file is locked (flock) for as long as its process lives. So a stale one, left by a process that was killed, is
told from a live one without guessing whether the number now belongs to somebody else.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from synapse.config import ConfigError

_READY = b"R"


class PidFile:
    """The file in which a process says its number. Raises `ConfigError` naming `option` where it cannot.

    :param path: the file.
    :param option: the option that names it, for messages.
    :param config_file: the configuration file, for messages.
    :param replaces: the process that this one takes over from, and whose file it may therefore replace.
    """

    def __init__(self, path: str, option: str, config_file: str, replaces: int | None = None) -> None:
        self.path = path
        self._option = option
        self._config_file = config_file
        self._replaces = replaces
        self._fd: int | None = None

    def check(self) -> None:
        """Refuse to start beside a living process of the same pid file, before anything was touched."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from None
        try:
            if not _lock(fd):
                self._refuse(_pid_in(fd))
        finally:
            os.close(fd)

    def write(self) -> None:
        """Take the file over, with our own pid in it, and keep it locked."""
        try:
            fd = self._locked() if self._replaces is None else self._renamed()
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise self._unusable(error) from None
        self._fd = fd

    def _locked(self) -> int:
        """The file as it is, or a new one; whoever holds its lock is the one process that may be there."""
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            if not _lock(fd):
                pid = _pid_in(fd)
                os.close(fd)
                self._refuse(pid)
            elif os.path.exists(self.path) and os.path.samestat(os.stat(self.path), os.fstat(fd)):
                return fd
            else:  # its last owner removed it between our open and our lock
                os.close(fd)

    def _renamed(self) -> int:
        """A new file in place of the one whose lock the process before us still holds."""
        self.check()
        temporary = f"{self.path}.{os.getpid()}"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        _lock(fd)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        with _alone_in(self.path):
            os.rename(temporary, self.path)
        return fd

    def remove(self) -> None:
        """Remove the file, unless by now it is another process's."""
        if self._fd is None:
            return
        with contextlib.suppress(OSError), _alone_in(self.path):
            if os.path.samestat(os.stat(self.path), os.fstat(self._fd)):
                os.unlink(self.path)
        os.close(self._fd)
        self._fd = None

    def _refuse(self, pid: int | None) -> None:
        if self._replaces is not None and pid in (self._replaces, None):
            return
        problem = f"is {self.path}, in which process {pid} is already running"
        raise ConfigError(
            self._config_file, self._option, problem, "stop that process first, or choose another pid file"
        )

    def _unusable(self, error: OSError) -> ConfigError:
        problem = f"is {self.path}, which cannot be written ({error.strerror})"
        remedy = "name a file in a directory that exists and that the server may write to"
        return ConfigError(self._config_file, self._option, problem, remedy)


@contextlib.contextmanager
def _alone_in(path: str) -> Iterator[None]:
    """Nobody else replaces or removes pid files of that directory meanwhile: a successor may write while we leave."""
    directory = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_in(fd: int) -> int | None:
    text = os.pread(fd, 32, 0).strip()
    return int(text) if text.isdigit() else None


class Daemon:
    """The child's side of going to the background: the waiting parent is told how the start went."""

    def __init__(self, pipe: int) -> None:
        self._pipe: int | None = pipe

    def ready(self) -> None:
        """The process serves: let the parent leave with success, and let go of the terminal."""
        if self._pipe is None:
            return
        self._tell(_READY)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.close(null)

    def _tell(self, word: bytes) -> None:
        if self._pipe is not None:
            with contextlib.suppress(OSError):  # the parent was killed while it waited
                os.write(self._pipe, word)
            os.close(self._pipe)
            self._pipe = None


def daemonize() -> Daemon:
    """Fork twice; only the grandchild returns.

    The first process stays until the grandchild serves, and leaves with status 0 then, or with 1 when it ended before.
    Until then the grandchild still writes to the terminal, so that a failed start is seen where it was attempted.
    """
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        _wait(reading)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.close(reading)
    return Daemon(writing)


def _wait(pipe: int) -> NoReturn:
    """Leave as the grandchild says; the end of the pipe without a word is its death."""
    word = os.read(pipe, 1)
    with contextlib.suppress(ChildProcessError):
        os.wait()
    os._exit(0 if word == _READY else 1)


def replaced_process(read: Callable[[str], str | None] = os.environ.get) -> int | None:
    """The process that this one takes over from, from `$SYNAPSE_REPLACES`."""
    text = read("SYNAPSE_REPLACES") or ""
    return int(text) if text.isdigit() else None
