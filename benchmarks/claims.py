"""Claim one-time keys from two processes at once, and hold that each goes out once: `python -m benchmarks.claims`.

A server is started in a directory of its own: the main process, and a worker that claims keys as well
(`claims_worker`), each with a port. A user uploads the keys of many devices; claimers ask both processes for a key of
every device, again and again, until nothing is left. Then each key must have been given out once, with its own content,
and none be left.

100,000 keys and 32 claimers, unless told otherwise. Prints a line of JSON; fails with a sentence if a key is missing or
was given out twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from benchmarks.client import Client, RequestFailed

ALGORITHM = "signed_curve25519"
_START_SECONDS = 60.0
_PASSWORD = "benchmark-password"
_UNLIMITED = {"per_second": 1_000_000, "burst_count": 1_000_000}
_LIMITS = {
    "rc_registration": _UNLIMITED,
    "rc_login": {"address": _UNLIMITED, "account": _UNLIMITED, "failed_attempts": _UNLIMITED},
}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _listener(port: int, *resources: str) -> dict[str, Any]:
    return {"type": "http", "port": port, "bind_addresses": ["127.0.0.1"], "resources": [{"names": list(resources)}]}


def _write_files(data: Path, database: dict[str, Any], main: int, replication: int, worker: int) -> None:
    shared = {
        "server_name": "test",
        "database": database,
        "signing_key_path": str(data / "signing.key"),
        "media_store_path": str(data / "media"),
        "pid_file": str(data / "main.pid"),
        "enable_registration": True,
        "enable_registration_without_verification": True,
        "bcrypt_rounds": 4,
        "listeners": [
            _listener(main, "client", "replication"),
            {"type": "replication", "port": replication, "bind_addresses": ["127.0.0.1"]},
        ],
        **_LIMITS,
    }
    own = {
        "worker_app": "synapse.app.client_reader",
        "worker_replication_host": "127.0.0.1",
        "worker_replication_port": replication,
        "worker_replication_http_port": main,
        "worker_pid_file": str(data / "worker.pid"),
        "worker_listeners": [_listener(worker, "client")],
    }
    (data / "homeserver.yaml").write_text(yaml.safe_dump(shared))
    (data / "worker.yaml").write_text(yaml.safe_dump(own))


def _serves(process: subprocess.Popen[bytes], port: int) -> None:
    """Returns when the process answers on its port."""
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"{' '.join(map(str, process.args))} does not serve; its log is in its directory")  # type: ignore[arg-type]


@contextmanager
def two_processes(data: Path, database: dict[str, Any]) -> Iterator[list[str]]:
    """The base URLs of the main process and a worker, which claim keys both."""
    main, replication, worker = _free_ports(3)
    _write_files(data, database, main, replication, worker)
    files = ["-c", str(data / "homeserver.yaml")]
    python = [sys.executable, "-m"]
    subprocess.run(
        [*python, "synapse.app.homeserver", *files, "--generate-keys"], check=True, stdout=subprocess.DEVNULL
    )
    running: list[subprocess.Popen[bytes]] = []
    try:
        for module, more, port in (
            ("synapse.app.homeserver", [], main),
            ("benchmarks.claims_worker", ["-c", str(data / "worker.yaml")], worker),
        ):
            with (data / f"{port}.log").open("wb") as log:
                started = subprocess.Popen([*python, module, *files, *more], stdout=log, stderr=log)
            running.append(started)
            _serves(started, port)
        yield [f"http://127.0.0.1:{port}" for port in (main, worker)]
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(30)


# -- what is done ------------------------------------------------------------------------------------------------------


def key_of(device: int, number: int) -> tuple[str, dict[str, Any]]:
    """A key and its name."""
    return f"{ALGORITHM}:{device}-{number}", {"key": f"{device}/{number}", "signatures": {}}


async def upload(session: aiohttp.ClientSession, url: str, devices: int, keys: int) -> Client:
    """Makes a user whose devices have these keys."""
    anonymous = Client(session, url)
    body = {"username": "owner", "password": _PASSWORD, "device_id": "0", "auth": {"type": "m.login.dummy"}}
    answer = await anonymous.request("POST", "/_matrix/client/v3/register", body)
    login = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "owner"},
        "password": _PASSWORD,
    }
    owner = Client(session, url, answer["user_id"], answer["access_token"])
    for device in range(devices):
        if device:
            body = {**login, "device_id": str(device)}
            answer = await anonymous.request("POST", "/_matrix/client/v3/login", body)
        client = Client(session, url, owner.user_id, answer["access_token"])
        uploaded = {"one_time_keys": dict(key_of(device, number) for number in range(keys))}
        counts = await client.request("POST", "/_matrix/client/v3/keys/upload", uploaded)
        assert counts == {"one_time_key_counts": {ALGORITHM: keys}}, counts
    return owner


async def claim_all(claimers: list[Client], owner: str, devices: int) -> list[tuple[str, str, Any]]:
    """Has all claimers claim at once until none is given a key any more: (device, name, key) of all that were."""
    given: list[tuple[str, str, Any]] = []
    wanted = {"one_time_keys": {owner: {str(device): ALGORITHM for device in range(devices)}}}

    async def claim(client: Client) -> None:
        while True:
            answer = await client.request("POST", "/_matrix/client/v3/keys/claim", wanted)
            found = [
                (device, name, key)
                for device, named in answer["one_time_keys"].get(owner, {}).items()
                for name, key in named.items()
            ]
            if not found:
                return
            given.extend(found)

    await asyncio.gather(*(claim(client) for client in claimers))
    return given


def check(given: list[tuple[str, str, Any]], devices: int, keys: int) -> None:
    """Raises `SystemExit` unless each key was given out once, for its device and as it was uploaded."""
    counts = Counter((device, name) for device, name, _ in given)
    uploaded = {(str(device), key_of(device, number)[0]) for device in range(devices) for number in range(keys)}
    problems = {
        "were given out more than once": [key for key, count in counts.items() if count > 1],
        "were lost": uploaded - counts.keys(),
        "were never uploaded": counts.keys() - uploaded,
        "are not as they were": [
            name for device, name, key in given if key != key_of(*map(int, name.partition(":")[2].split("-")))[1]
        ],
    }
    found = [f"{len(list(keys))} keys {problem}" for problem, keys in problems.items() if keys]
    if found:
        raise SystemExit("; ".join(found))


async def run(urls: list[str], devices: int, keys: int, claimers: int) -> dict[str, Any]:
    """Uploads, claims and checks; what it took."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.perf_counter()
        owner = await upload(session, urls[0], devices, keys)
        uploaded = time.perf_counter()
        clients = [Client(session, urls[number % len(urls)], token=owner.token) for number in range(claimers)]
        given = await claim_all(clients, owner.user_id, devices)
        claimed = time.perf_counter()
        check(given, devices, keys)
        await _check_none_left(owner)
    return {
        "keys": len(given),
        "claimers": claimers,
        "upload_seconds": round(uploaded - began, 2),
        "claim_seconds": round(claimed - uploaded, 2),
        "keys_per_second": round(len(given) / (claimed - uploaded)),
    }


async def _check_none_left(owner: Client) -> None:
    counts = await owner.request("POST", "/_matrix/client/v3/keys/upload", {})
    if counts != {"one_time_key_counts": {}}:
        raise SystemExit(f"The server believes that keys are left: {counts}")


def main(argv: list[str]) -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.claims", description=(__doc__ or "").partition("\n\n")[0]
    )
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--keys", type=int, default=1000, help="of each device (default: %(default)s)")
    parser.add_argument("--claimers", type=int, default=32)
    parser.add_argument(
        "--database", help="the option `database` as JSON; without it, an embedded PostgreSQL is started"
    )
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="claims-") as directory:
        data = Path(directory)
        embedded = {"data_directory": str(data / "db")}
        database = json.loads(arguments.database) if arguments.database else embedded
        try:
            with two_processes(data, database) as urls:
                print(json.dumps(asyncio.run(run(urls, arguments.devices, arguments.keys, arguments.claimers))))
        except RequestFailed as failed:
            logs = "\n".join(log.read_text()[-2000:] for log in data.glob("*.log"))
            raise SystemExit(f"{failed}\n{logs}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
