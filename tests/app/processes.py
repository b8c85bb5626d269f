"""Starting real processes for the tests: with a notification socket, and an end for every one of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from synapse.config.generate import new_signing_key

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


def free_port() -> int:
    """A port that nobody listens on at the moment, and that the system gives to nobody before it is listened on: below
    those that it chooses from, some of which other tests ask for at the same time."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = secrets.choice(range(first // 2, first))
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("", port))
            return port


class Place:
    """A directory with the configuration of a main process, and what it says of itself."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.pid_file = directory / "homeserver.pid"
        self._started: list[subprocess.Popen[str]] = []
        self._sockets = 0
        (directory / "signing.key").write_text(new_signing_key())
        self.options: dict[str, Any] = {
            "server_name": "example.org",
            "signing_key_path": str(directory / "signing.key"),
            "pid_file": str(self.pid_file),
            "database": {"name": "psycopg2", "args": {"dbname": "unused"}},
            "listeners": [
                {
                    "type": "http",
                    "port": self.port,
                    "bind_address": "127.0.0.1",
                    "resources": [{"names": ["client"]}],
                }
            ],
        }

    def write(self, name: str = "homeserver.yaml", **more: Any) -> str:
        """Write the configuration, with `more` in it, and return its path."""
        path = self.directory / name
        path.write_text(yaml.safe_dump(self.options | more))
        return str(path)

    def start(self, *arguments: str, module: str = "tests.app.fake_process", **environment: str) -> Started:
        """Start a process with these arguments; does not wait."""
        self._sockets += 1
        news = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = str(self.directory / f"n{self._sockets}")
        news.bind(address)
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": address} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._started.append(process)
        return Started(process, news)

    def pid(self) -> int:
        """What the pid file says."""
        return int(self.pid_file.read_text())

    def get(self, what: str, port: int | None = None, timeout: float = PATIENCE) -> str:
        """The body of an answer of the fake services, on a connection of its own."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{port or self.port}/fake/{what}", headers={"Connection": "close"}
        )
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            body: bytes = answer.read()
            return body.decode()

    def end(self) -> None:
        """Leave nothing behind, daemons included."""
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.pid(), signal.SIGKILL)
        for process in self._started:
            process.kill()
            process.communicate()


class Started:
    """A process that was started, and what it says on its notification socket."""

    def __init__(self, process: subprocess.Popen[str], news: socket.socket) -> None:
        self.process = process
        self.pid = process.pid
        self._news = news
        self.heard: list[str] = []

    def wait_for(self, word: str) -> None:
        """Wait until it says `word`, such as READY=1."""
        deadline = time.monotonic() + PATIENCE
        while word not in self.heard:
            self._news.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                self.heard += self._news.recv(4096).decode().split("\n")
            except TimeoutError:
                self.process.kill()
                raise AssertionError(f"never said {word}, but {self.heard}; {self.process.communicate()}") from None

    def says(self) -> Iterator[str]:
        """What it has said and was not yet read."""
        self._news.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                yield from self._news.recv(4096).decode().split("\n")

    def ready(self) -> Started:
        self.wait_for("READY=1")
        return self

    def tell(self, number: int) -> None:
        self.process.send_signal(number)

    def finish(self) -> tuple[int, str]:
        """Exit status and stderr, once it ends."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors


async def read_until(port: int, end: bytes) -> bytes:
    """What a server on this machine says first, up to `end`."""
    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import ClientFactory, Protocol

    from tests.support.reactor import real_reactor

    done: Deferred[bytes] = Deferred()

    class Reader(Protocol):
        received = b""

        def dataReceived(self, data: bytes) -> None:
            self.received += data
            if end in self.received:
                self.stop()

        def stop(self) -> None:
            transport: Any = self.transport
            transport.loseConnection()

        def connectionLost(self, reason: object = None) -> None:
            done.callback(self.received)

    real_reactor().connectTCP("127.0.0.1", port, ClientFactory.forProtocol(Reader))
    return await done
