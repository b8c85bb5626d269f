"""A real server in a directory of its own: every process, an embedded PostgreSQL, nginx in front; as the demo makes it.

What differs from the demo: nothing limits rates, passwords are hashed quickly, and every process has a unix socket for
its metrics.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from synapse.api.routes import find, route_of
from synapse.synctl.new_user import register
from tests.support.authority import Authority
from tests.support.limits import UNLIMITED
from tests.support.lines import Line

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "demo"))  # whose modules are scripts, not a package

import front  # noqa: E402  # found through the line above
import site_files  # noqa: E402

_OPTIONS: dict[str, Any] = {**UNLIMITED, "bcrypt_rounds": 4, "enable_metrics": True}
Served = Counter[tuple[str, str, str]]  # (process, endpoint, method): requests


@dataclass(frozen=True)
class Process:
    """One process of the server."""

    name: str
    app: str  # without "synapse.app."
    file: Path
    pid_file: Path
    metrics: Path


class Cluster:
    """A server; `workers` False makes it one process without nginx.

    :param data: an existing directory; its path is short, since unix sockets lie in it.
    :param options: options of homeserver.yaml that are to be otherwise.
    :param authority: makes the server one of a federation: nginx has a certificate of this authority, and the server
        is called by `host` and the port of a `line` to it, which a test can break.
    :param host: a name or an address that is this machine's alone.
    """

    def __init__(
        self,
        data: Path,
        *,
        workers: bool = True,
        options: dict[str, Any] | None = None,
        authority: Authority | None = None,
        host: str = "localhost",
    ) -> None:
        self.data = data
        self.authority = None if authority is None else str(authority.path)
        self._tls = None if authority is None else _tls(data, authority, host)
        self.line = None if self._tls is None else Line(self._tls.port, host)
        self._more = options or {}
        self.server_name = site_files.SERVER_NAME if self.line is None else f"{host}:{self.line.port}"
        self.workers = workers
        # Ports of the system's choice: two servers that start at the same time would share those that are usual.
        chosen = site_files.Ports(0, 0, 0, 0, dict.fromkeys(site_files.Ports().workers, 0))
        (data / "ports.json").write_text(json.dumps(asdict(chosen)))
        ports = site_files.prepare(data, running=False)
        self.url = f"http://127.0.0.1:{ports.front if workers else ports.main}"
        self._front_port = ports.front
        self.main = data / "homeserver.yaml"
        self._configure()
        self.processes = {process.name: process for process in self._processes()}
        self.shared_secret = str(yaml.safe_load(self.main.read_text())["registration_shared_secret"])

    def _configure(self) -> None:
        options = yaml.safe_load(self.main.read_text()) | _OPTIONS | {"server_name": self.server_name} | self._more
        options["listeners"].append(self._metrics_listener("homeserver"))
        if not self.workers:
            options |= {name: True for name, value in site_files.SHARED.items() if value is False}
        self.main.write_text(yaml.safe_dump(options))
        for file in (self.data / "workers").glob("*.yaml"):
            if file.stem == "main":
                continue
            if not self.workers:
                file.unlink()
                continue
            worker = yaml.safe_load(file.read_text())
            worker.setdefault("worker_listeners", []).append(self._metrics_listener(file.stem))
            file.write_text(yaml.safe_dump(worker))

    def _metrics_listener(self, name: str) -> dict[str, Any]:
        return {"type": "metrics", "path": str(self.data / f"run/{name}.metrics")}

    def _processes(self) -> Iterator[Process]:
        for file in sorted((self.data / "workers").glob("*.yaml")):
            app = str(yaml.safe_load(file.read_text())["worker_app"]).removeprefix("synapse.app.")
            run = self.data / "run"
            yield Process(file.stem, app, file, run / f"{app}.pid", run / f"{app}.metrics")

    # -- its life --------------------------------------------------------------------------------------------------

    def start(self, name: str | None = None) -> None:
        """Start everything, or one process."""
        self._synctl("start", name)
        if name is None and self.workers:
            front.start(self.data, self._front_port, Path(sys.executable).with_name("synctl"), self._tls)

    def stop(self) -> None:
        """Stop everything."""
        if self.workers:
            front.stop(self.data)
        self._synctl("stop", None)

    def restart(self) -> None:
        """Restart one process after the other."""
        self._synctl("restart", None)

    def kill(self, name: str) -> None:
        """Kill a process as `kill -9` does, and wait until it is gone."""
        pid = self.pid(name)
        subprocess.run(["kill", "-9", str(pid)], check=True)
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            time.sleep(0.01)

    def pid(self, name: str) -> int:
        """The process id."""
        return int(self.processes[name].pid_file.read_text().split()[0])

    @property
    def postmaster_pid_file(self) -> Path:
        """Where PostgreSQL has written its process id."""
        directory = self.data / "postgres"
        location = json.loads((directory / "server.json").read_text())
        return directory / str(location["data"]) / "postmaster.pid"

    def _synctl(self, action: str, name: str | None) -> None:
        which = ["-a", str(self.data / "workers")] if name is None else ["-w", str(self.processes[name].file)]
        command = [sys.executable, str(ROOT / "synctl"), *which, action, str(self.main)]
        done = subprocess.run(command, cwd=self.data, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"

    def register(self, name: str, password: str) -> str:
        """Make an account by the shared secret, an administrator's; answers the user id."""
        return register(self.url, self.shared_secret, name, password, admin=True)

    def change_signing_key(self) -> None:
        """Sign with a new key from now on, and tell of the old one; all processes are restarted for it."""
        from nacl.signing import SigningKey
        from signedjson.key import encode_verify_key_base64, read_signing_keys

        options = yaml.safe_load(self.main.read_text())
        file = Path(options["signing_key_path"])
        old = read_signing_keys(file.read_text().splitlines())[0]
        new = base64.b64encode(bytes(SigningKey.generate())).decode().rstrip("=")
        file.write_text(f"ed25519 n{old.version} {new}\n")
        told = {"key": encode_verify_key_base64(old.verify_key), "expired_ts": int(time.time() * 1000)}
        options.setdefault("old_signing_keys", {})[f"ed25519:{old.version}"] = told
        self.main.write_text(yaml.safe_dump(options))
        self.restart()

    # -- what it has done ------------------------------------------------------------------------------------------

    def requests_served(self) -> Served:
        """How many requests each process has answered, from its metrics."""
        served: Served = Counter()
        for process in self.processes.values():
            for family in text_string_to_metric_families(_get(process.metrics, "/_synapse/metrics")):
                for sample in family.samples:
                    if sample.name == "synapse_http_server_requests_total":
                        key = (process.name, sample.labels["endpoint"], sample.labels["method"])
                        served[key] += int(sample.value)
        return served

    def expected_app(self, endpoint: str, method: str) -> str:
        """The application that the workers' description gives a request to."""
        route = route_of(method, find(endpoint).example())
        return "homeserver" if route is None else route.app.value.removeprefix("synapse.app.")


def _get(path: Path, target: str) -> str:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    try:
        connection.request("GET", target)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _tls(data: Path, authority: Authority, host: str) -> front.Tls:
    """A port, and a certificate for the host."""
    issued = authority.issue(host, directory=data)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return front.Tls(one.getsockname()[1], issued.chain, issued.key)


@contextmanager
def running_cluster(**how: Any) -> Iterator[Cluster]:
    """A server that is started now, and stopped and removed in the end. `how` is for `Cluster`."""
    cluster = _started(how)
    try:
        yield cluster
    finally:
        _remove(cluster)


_HOSTS = ("localhost", "127.0.0.2", "127.0.0.3")


@contextmanager
def federated_clusters(
    count: int, *, workers: bool = True, options: dict[str, Any] | None = None
) -> Iterator[list[Cluster]]:
    """So many servers, three at most, that believe one another: an authority of the test vouches for each."""
    with tempfile.TemporaryDirectory(prefix="synapse-authority-") as directory, ExitStack() as stack:
        Path(directory).chmod(0o711)
        authority = Authority(Path(directory))
        trusting = {"federation_custom_ca_list": [str(authority.path)], "ip_range_blacklist": [], **(options or {})}
        made = (
            running_cluster(workers=workers, options=trusting, authority=authority, host=host)
            for host in _HOSTS[:count]
        )
        yield [stack.enter_context(each) for each in made]


def _started(how: dict[str, Any], attempts: int = 3) -> Cluster:
    """A new server that runs. A port that was chosen may be another program's by the time that it is bound."""
    data = Path(tempfile.mkdtemp(prefix="synapse-cluster-"))
    data.chmod(0o711)  # where root runs this, the database belongs to another user, who has to get through
    cluster = Cluster(data, **how)
    try:
        cluster.start()
    except (AssertionError, front.FrontError) as error:
        _remove(cluster)
        if attempts > 1 and re.search("already in use|Address in use", str(error)):
            return _started(how, attempts - 1)
        raise
    return cluster


def _remove(cluster: Cluster) -> None:
    try:
        cluster.stop()
    finally:
        if cluster.line is not None:
            cluster.line.close()
        shutil.rmtree(cluster.data, ignore_errors=True)
