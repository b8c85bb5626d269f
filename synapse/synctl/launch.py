"""Starting processes: one image of the program, loaded once and forked for each, and word from each when it serves.

The contract with the processes is in docs/architecture.md, "Processes": systemd's notification datagrams, and the
hand-over of ports between an old and a new process.
"""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from typing import NoReturn

from synapse.synctl.cluster import Process
from synapse.synctl.logs import LogTail

_loaded = False


def preload() -> None:
    """Load what all processes need, once; memory and time are then shared by every fork."""
    global _loaded
    if _loaded:
        return
    from synapse.app._start import preload as load_common_modules

    load_common_modules()
    if "twisted.internet.reactor" in sys.modules:
        raise RuntimeError("a reactor was loaded before the fork; the processes would share its file descriptors")
    gc.collect()
    gc.freeze()
    _loaded = True


class Child:
    """A process that synctl has just started, until it serves; what it has said of itself so far."""

    def __init__(self, process: Process, pid: int, channel: socket.socket, tail: LogTail) -> None:
        self.process = process
        self.pid = pid
        self.channel = channel
        self.tail = tail
        self.pidfd = os.pidfd_open(pid)
        self.ready = False
        self.standby = False
        self.status: str | None = None
        self.gone = False

    def close(self) -> None:
        self.channel.close()
        os.close(self.pidfd)

    def read_news(self) -> None:
        """Take in what it has said since the last call. Never waits."""
        with contextlib.suppress(BlockingIOError):
            while True:
                fields = _parse(self.channel.recv(8192))
                self.ready = self.ready or fields.get("READY") == "1"
                self.standby = self.standby or fields.get("STANDBY") == "1"
                self.status = fields.get("STATUS", self.status)

    def ended(self) -> str | None:
        """How it ended, as words after its name; None while it runs."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            self.gone = True
            return "has ended"
        if pid == 0:
            return None
        self.gone = True
        code = os.waitstatus_to_exitcode(status)
        return f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"


def _parse(datagram: bytes) -> dict[str, str]:
    lines = datagram.decode("utf-8", "replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


class Launcher:
    """Forks processes. A context manager: it keeps the directory of the notification sockets."""

    def __init__(self, *, foreground: bool = False) -> None:
        self._foreground = foreground
        self._directory = ""
        self._count = 0

    def __enter__(self) -> Launcher:
        self._directory = tempfile.mkdtemp(prefix="synctl-")
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def launch(self, process: Process, *, replaces: int | None = None) -> Child:
        """Start a process; `replaces` is the pid of the one whose ports it takes over."""
        preload()
        self._count += 1
        address = os.path.join(self._directory, str(self._count))
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        channel.bind(address)
        channel.setblocking(False)
        tail = LogTail(process)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become(process, address, replaces)
        return Child(process, pid, channel, tail)

    def _become(self, process: Process, address: str, replaces: int | None) -> NoReturn:
        """Be the process, in the fork. Does not return, whatever happens."""
        status = 1
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.environ["NOTIFY_SOCKET"] = address
            os.environ.pop("SYNAPSE_REPLACES", None)
            if replaces is not None:
                os.environ["SYNAPSE_REPLACES"] = str(replaces)
            if not self._foreground:
                os.setsid()
                _redirect(process.output_file)
            os.closerange(3, os.sysconf("SC_OPEN_MAX") if os.sysconf("SC_OPEN_MAX") < 65536 else 65536)
            from synapse.app._start import main

            arguments = [argument for file in process.files for argument in ("-c", file)]
            status = main(["--no-daemonize", *arguments])
        except SystemExit as leaving:
            status = leaving.code if isinstance(leaving.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)


def _redirect(output_file: str) -> None:
    """stdin from nowhere, stdout and stderr to the process's file."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(output_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    for fd, source in ((0, nothing), (1, output), (2, output)):
        os.dup2(source, fd)
