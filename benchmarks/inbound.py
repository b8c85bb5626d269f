"""What it costs to take in other servers' messages: `python -m benchmarks.inbound`.

A server, once as one process and once as a cluster, with rooms of ten of its users that servers of
`benchmarks.senders` are in. These send transactions of one message and of fifty, one server alone or twenty at the same
time, each into its own room, one transaction after another. Prints for each what the processes and the database spent
on a message, and the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from benchmarks.client import Registrar
from benchmarks.costs import Costs, Processes, cpu_seconds, read_pid
from tests.support.authority import Authority
from tests.support.cluster import Cluster, running_cluster

_MEMBERS = 10
_PAUSE = 0.5  # seconds, for what was set in motion to end


class Senders:
    """The process that the other servers are."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.names: list[str] = self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the other servers have ended"
        return json.loads(line)

    async def do(self, **what: Any) -> Any:
        """Has them do something; what they say when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        return await asyncio.to_thread(self._read)


@contextmanager
def senders(authority: Authority, servers: int) -> Iterator[Senders]:
    """So many servers."""
    certificate = authority.issue("localhost").both
    command = [sys.executable, "-m", "benchmarks.senders", str(certificate), str(servers)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Senders(process)
    finally:
        process.kill()
        process.wait()


def _spent(pids: dict[str, int], measured: Processes) -> tuple[dict[str, float], Costs]:
    return {name: cpu_seconds(pid) for name, pid in pids.items()}, measured.costs()


async def _measure(cluster: Cluster, far: Senders, messages: int) -> None:
    files = sorted((cluster.data / "run").glob("*.pid"))
    pids = {path.stem: read_pid(path) for path in files}
    measured = Processes(tuple(pids.values()), read_pid(cluster.postmaster_pid_file))
    async with aiohttp.ClientSession() as session:
        registrar = Registrar(session, cluster.url, cluster.shared_secret)
        users = [await registrar.register(f"user{number}") for number in range(_MEMBERS)]
        rooms = []
        for number in range(len(far.names)):
            rooms.append(await users[0].create_room(preset="public_chat", name=f"Room {number}"))
            for user in users[1:]:
                await user.join(rooms[-1])
    await far.do(do="join", home=cluster.server_name, url=cluster.url, rooms=rooms)
    for servers in (1, len(far.names)):
        for size in (1, 50):
            await far.do(do="make", servers=servers, size=size, count=3)
            await far.do(do="send")  # warm
            count = max(3, messages // size // servers)
            await far.do(do="make", servers=servers, size=size, count=count)
            await asyncio.sleep(_PAUSE)
            before, costs = _spent(pids, measured)
            sent = await far.do(do="send")
            await asyncio.sleep(_PAUSE)
            after, all_costs = _spent(pids, measured)
            each, spent = count * size * servers, all_costs - costs
            assert sent["kept"] == each, sent
            shares = {name: (after[name] - before[name]) * 1000 / each for name in pids}
            largest = ", ".join(f"{name} {ms:.2f}" for name, ms in sorted(shares.items(), key=lambda i: -i[1])[:4])
            print(
                f"| {servers} | {size} | {each / sent['seconds']:.0f}/s | {sent['median_ms']:.1f} | "
                f"{spent.server * 1000 / each:.2f} + {spent.database * 1000 / each:.2f} | {largest} |",
                flush=True,
            )


def main(argv: list[str]) -> None:
    """Measure one process, a cluster, or both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inbound")
    parser.add_argument("--only", choices=("one", "cluster"), help="measure only this")
    parser.add_argument("--servers", type=int, default=20)
    parser.add_argument("--messages", type=int, default=2_000, help="in all, for each line (%(default)s)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="synapse-authority-") as directory:
        Path(directory).chmod(0o711)
        authority = Authority(Path(directory))
        options = {"federation_custom_ca_list": [str(authority.path)], "ip_range_blacklist": []}
        for workers in (False, True):
            if arguments.only not in (None, "cluster" if workers else "one"):
                continue
            with (
                senders(authority, arguments.servers) as far,
                running_cluster(workers=workers, options=options, authority=authority) as cluster,
            ):
                print(f"\n## {'Main process and ten workers' if workers else 'One process'}\n")
                print("| servers | PDUs each | PDUs | ms (half) | CPU ms a PDU (server + database) | of these |")
                print("| --- | --- | --- | --- | --- | --- |")
                asyncio.run(_measure(cluster, far, arguments.messages))


if __name__ == "__main__":
    main(sys.argv[1:])
