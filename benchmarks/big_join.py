"""Join a large room of another server: `python -m benchmarks.big_join`.

The other servers are not real (`benchmarks.resident_server`), in a process of their own; ours is one process with its
database, in a temporary directory. Prints how long the join took, the most memory that the process had meanwhile, and
how long others had to wait for an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp

from benchmarks.client import Client, Registrar
from tests.support.authority import Authority
from tests.support.cluster import Cluster, running_cluster

_EVERY = 0.005  # seconds between two looks at whether the server answers


class Room(NamedTuple):
    """Where it is."""

    room_id: str
    server: str


class Result(NamedTuple):
    """What a join cost: seconds, MiB, and milliseconds that others waited, sorted."""

    seconds: float
    before: float
    most: float
    waits: list[float]


@contextmanager
def resident_room(certificate: Path, members: int, servers: int) -> Iterator[Room]:
    """A room of so many members, on so many servers."""
    command = [sys.executable, "-m", "benchmarks.resident_server", str(certificate), str(members), str(servers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        yield Room(told["room_id"], told["server"])
    finally:
        process.kill()
        process.wait()


def _memory(pid: int, what: str) -> float:
    """VmRSS or VmHWM of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"there is no {what}")


async def _watch(client: Client, waits: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await client.request("GET", "/_matrix/client/versions")
        waits.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(_EVERY)


async def measure(cluster: Cluster, room: Room) -> Result:
    """Have a new user join the room."""
    pid = int(cluster.processes["main"].pid_file.read_text()) if "main" in cluster.processes else _main_pid(cluster)
    async with aiohttp.ClientSession() as session:
        client = await Registrar(session, cluster.url, cluster.shared_secret).register("joiner")
        waits: list[float] = []
        watching = asyncio.create_task(_watch(client, waits))
        await asyncio.sleep(0.5)
        before = _memory(pid, "VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # noqa: ASYNC240
        waits.clear()
        began = time.perf_counter()
        await client.request("POST", f"/_matrix/client/v3/join/{room.room_id}", {}, {"via": room.server})
        seconds = time.perf_counter() - began
        watching.cancel()
        joined = await client.request("GET", f"/_matrix/client/v3/rooms/{room.room_id}/joined_members")
        print(f"{len(joined['joined'])} members are known now")
    return Result(seconds, before, _memory(pid, "VmHWM"), sorted(waits))


def _main_pid(cluster: Cluster) -> int:
    return int(next((cluster.data / "run").glob("homeserver.pid")).read_text())


def main(argv: list[str]) -> None:
    """Join rooms of the sizes asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.big_join")
    parser.add_argument("--members", type=int, default=10_000, help="members of the room (%(default)s)")
    parser.add_argument("--servers", type=int, default=20, help="servers that they are of (%(default)s)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="synapse-authority-") as directory:
        Path(directory).chmod(0o711)
        authority = Authority(Path(directory))
        certificate = authority.issue("localhost").both
        options = {
            "federation_custom_ca_list": [str(authority.path)],
            "ip_range_blacklist": [],
            "trusted_key_servers": [],
        }
        with (
            resident_room(certificate, arguments.members, arguments.servers) as room,
            running_cluster(workers=False, options=options, authority=authority) as cluster,
        ):
            result = asyncio.run(measure(cluster, room))
    worst, middle = result.waits[-1], result.waits[len(result.waits) // 2]
    print(f"{arguments.members} members on {arguments.servers} servers: joined in {result.seconds:.1f} s")
    print(f"memory of the process: {result.before:.0f} MiB before, {result.most:.0f} MiB at most")
    print(f"others waited {middle:.0f} ms (half of them), {worst:.0f} ms (the one that waited longest)")


if __name__ == "__main__":
    main(sys.argv[1:])
