"""Measure a server made for the purpose: `python -m benchmarks.compare`, in one process and as a cluster behind nginx.

Prints start-up time and memory, then every scenario, as the tables of docs/performance.md. The server is the one that
the tests of the cluster use, without rate limits, in a temporary directory.
"""

from __future__ import annotations

import argparse
import sys
import time

from benchmarks.__main__ import main as measure
from tests.support.cluster import Cluster, running_cluster


def _start_again(cluster: Cluster) -> float:
    """Seconds from `synctl start` to serving, with a database that exists."""
    cluster.stop()
    began = time.perf_counter()
    cluster.start()
    return time.perf_counter() - began


def _measure(workers: bool, arguments: argparse.Namespace) -> None:
    with running_cluster(workers=workers) as cluster:
        seconds = _start_again(cluster)
        print(f"\n## {'Main process and ten workers' if workers else 'One process'}\n")
        print(f"Start to serving, nginx and PostgreSQL included: {seconds:.1f} s.\n", flush=True)
        # A secret may begin with a hyphen.
        command = ["--url", cluster.url, f"--shared-secret={cluster.shared_secret}", "--markdown"]
        command += ["--pid-files", str(cluster.data / "run/*.pid"), "--scale", str(arguments.scale)]
        command += ["--postmaster-pid", str(cluster.postmaster_pid_file)]
        command += ["--group", arguments.group]
        for name in arguments.scenario or ():
            command += ["--scenario", name]
        measure(command)


def main(argv: list[str]) -> None:
    """Measure one process, a cluster, or both."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    parser.add_argument("--only", choices=("one", "cluster"), help="measure only this")
    parser.add_argument("--scenario", action="append", help="only this one; may be repeated")
    parser.add_argument("--group", choices=("rooms", "accounts"), default="rooms", help="otherwise, all of these")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of operations")
    arguments = parser.parse_args(argv)
    for workers in (False, True):
        if arguments.only in (None, "cluster" if workers else "one"):
            _measure(workers, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
