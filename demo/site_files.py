"""The demo's configuration: homeserver.yaml, a file for each process in workers/, and the ports that they use.

The usual ports are used if they are free. Files that exist are kept, except that their ports are changed when
something else has taken one in the meantime.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from synapse.config.generate import Layout, generate_config, render

SERVER_NAME = "localhost"

# The workers, the resource of their listener (None: it answers nobody), and the port that it would like.
WORKERS: dict[str, tuple[str | None, int]] = {
    "pusher": (None, 0),
    "synchrotron": ("client", 8083),
    "appservice": (None, 0),
    "federation_reader": ("federation", 8084),
    "federation_sender": (None, 0),
    "media_repository": ("media", 8085),
    "client_reader": ("client", 8086),
    "user_dir": ("client", 8087),
    "frontend_proxy": ("client", 8088),
    "event_creator": ("client", 8089),
}

# What the workers do is not done by the main process.
SHARED = {
    "start_pushers": False,
    "notify_appservices": False,
    "send_federation": False,
    "enable_media_repo": False,
    "update_user_directory": False,
    "enable_metrics": True,
    # It listens on loopback only, so whoever gets here may have an account.
    "enable_registration": True,
    "enable_registration_without_verification": True,
}


@dataclass
class Ports:
    """Where everything listens, on loopback."""

    front: int = 8008
    main: int = 8082
    replication: int = 9092
    replication_http: int = 9093
    workers: dict[str, int] = field(
        default_factory=lambda: {name: port for name, (kind, port) in WORKERS.items() if kind}
    )


def prepare(data: Path, *, running: bool) -> Ports:
    """Write what is missing, and return the ports. Ports in use are only replaced if nothing of the demo runs."""
    file = data / "ports.json"
    ports = Ports(**json.loads(file.read_text())) if file.exists() else Ports()
    free = ports if running else _free(ports)
    if free != ports or not file.exists() or not (data / "homeserver.yaml").exists():
        _write(data, free)
        file.write_text(json.dumps(asdict(free), indent=2) + "\n")
    return free


def _free(wanted: Ports) -> Ports:
    """The same ports, and others in place of those that are taken."""
    held: list[socket.socket] = []
    try:
        return Ports(
            front=_hold(wanted.front, held, range(8009, 8020)),
            main=_hold(wanted.main, held),
            replication=_hold(wanted.replication, held),
            replication_http=_hold(wanted.replication_http, held),
            workers={name: _hold(port, held) for name, port in wanted.workers.items()},
        )
    finally:
        for one in held:
            one.close()


def _hold(port: int, held: list[socket.socket], others: Iterable[int] = ()) -> int:
    """The port if it is free, or else another one; held until all are chosen."""
    for candidate in (port, *others, 0):
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.append(one)
        try:
            one.bind(("127.0.0.1", candidate))
            one.listen(1)
        except OSError:
            continue
        return int(one.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


def _write(data: Path, ports: Ports) -> None:
    main = data / "homeserver.yaml"
    (data / "workers").mkdir(exist_ok=True)
    (data / "run").mkdir(exist_ok=True)
    (data / "logs").mkdir(exist_ok=True)
    if not main.exists():
        generate_config(SERVER_NAME, False, Layout(str(main), str(data), str(data), str(data)))
        _write_values(main, SHARED | {"pid_file": str(data / "run/homeserver.pid")})
        log_config = Path(yaml.safe_load(main.read_text())["log_config"])
        log_config.write_text(log_config.read_text().replace(f"{data}/homeserver.log", f"{data}/logs/homeserver.log"))
    _write_values(main, {"public_baseurl": f"http://localhost:{ports.front}/", "listeners": _main_listeners(ports)})
    (data / "workers/main.yaml").write_text("worker_app: synapse.app.homeserver\ndaemonize: true\n")
    for name in WORKERS:
        file = data / f"workers/{name}.yaml"
        options = yaml.safe_load(file.read_text()) if file.exists() else {}
        file.write_text(yaml.safe_dump(options | _worker(name, data, ports), sort_keys=False))


def _write_values(file: Path, values: dict[str, Any]) -> None:
    """Set options of homeserver.yaml, which keeps its comments."""
    file.write_text(render(yaml.safe_load(file.read_text()) | values))


def _main_listeners(ports: Ports) -> list[dict[str, Any]]:
    return [
        _http(ports.main, "client", "federation"),
        {"port": ports.replication, "type": "replication", "bind_address": "127.0.0.1"},
        {
            "port": ports.replication_http,
            "type": "http",
            "bind_address": "127.0.0.1",
            "resources": [{"names": ["replication", "metrics"]}],
        },
    ]


def _http(port: int, *names: str) -> dict[str, Any]:
    resources = [{"names": list(names)}]
    return {"port": port, "type": "http", "bind_address": "127.0.0.1", "x_forwarded": True, "resources": resources}


def _worker(name: str, data: Path, ports: Ports) -> dict[str, Any]:
    resource, _ = WORKERS[name]
    options: dict[str, Any] = {
        "worker_app": f"synapse.app.{name}",
        "worker_replication_host": "127.0.0.1",
        "worker_replication_port": ports.replication,
        "worker_replication_http_port": ports.replication_http,
        "worker_daemonize": True,
        "worker_pid_file": str(data / f"run/{name}.pid"),
    }
    if resource is not None:
        options["worker_listeners"] = [_http(ports.workers[name], resource)]
    if name == "frontend_proxy":
        options["worker_main_http_uri"] = f"http://127.0.0.1:{ports.main}"
    return options
