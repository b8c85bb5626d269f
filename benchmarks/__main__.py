"""Measure a running server: `python -m benchmarks --url http://localhost:8008 --pid-files '…/*.pid'`.

Prints for each scenario operations a second, latency quantiles and the CPU milliseconds an operation costs in the
server's and in the database's processes, beside the budget. `--markdown` prints a table for docs/performance.md.
The server's rate limits must be raised first, or they are what is measured: see docs/performance.md.
"""

from __future__ import annotations

import argparse
import asyncio
import glob
import os
import platform
import secrets
import sys
from pathlib import Path

import aiohttp

from benchmarks import accounts, scenarios
from benchmarks.client import Registrar
from benchmarks.costs import Processes, processes
from benchmarks.scenarios import Meter, Result, build_world

GROUPS = {"rooms": scenarios.SCENARIOS, "accounts": accounts.SCENARIOS}
SCENARIOS = {**accounts.SCENARIOS, **scenarios.SCENARIOS}
BUDGETS = {**accounts.BUDGETS, **scenarios.BUDGETS}


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--url", default="http://localhost:8008", help="base URL of the server (default: %(default)s)")
    parser.add_argument("--shared-secret", default="", help="registration_shared_secret; without it, open registration")
    parser.add_argument("--pid-files", default="", help="glob of the server processes' pid files")
    parser.add_argument("--postmaster-pid", type=Path, help="PostgreSQL's postmaster.pid")
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), help="only this one; may be repeated")
    parser.add_argument(
        "--group", choices=sorted(GROUPS), default="rooms", help="otherwise, all of these (%(default)s)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of operations")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return parser.parse_args(argv)


def machine() -> str:
    """The machine in a line: processor, cores, kernel, Python."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"


def _line(result: Result, markdown: bool) -> str:
    server_budget, database_budget = BUDGETS[result.name]
    cells = (
        result.name,
        f"{result.operations / result.seconds:.0f}/s",
        f"{result.quantile(0.5):.1f}",
        f"{result.quantile(0.95):.1f}",
        f"{result.quantile(0.99):.1f}",
        f"{result.server_ms:.2f} + {result.database_ms:.2f}",
        f"{server_budget} + {database_budget}",
    )
    if markdown:
        return "| " + " | ".join(cells) + " |"
    return f"{cells[0]:16} {cells[1]:>8} {cells[2]:>8} {cells[3]:>8} {cells[4]:>8} {cells[5]:>16} {cells[6]:>14}"


async def _run(arguments: argparse.Namespace, measured: Processes) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        registrar = Registrar(session, arguments.url, arguments.shared_secret)
        world = await build_world(registrar, f"bench-{secrets.token_hex(3)}")
        meter = Meter(measured)
        for name in arguments.scenario or GROUPS[arguments.group]:
            scenario, count = SCENARIOS[name]
            result = await scenario(world, meter, max(1, int(count * arguments.scale)))
            print(_line(result, arguments.markdown), flush=True)


def main(argv: list[str]) -> None:
    """Run the scenarios that the command line names."""
    arguments = _arguments(argv)
    measured = processes((Path(p) for p in sorted(glob.glob(arguments.pid_files))), arguments.postmaster_pid)
    print(f"{machine()}; {len(measured.server)} server processes, {measured.memory_mib():.0f} MiB PSS")
    if arguments.markdown:
        print("| operation | rate | p50 ms | p95 ms | p99 ms | CPU ms (server + database) | budget |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
    else:
        print(f"{'operation':16} {'rate':>8} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'CPU ms':>16} {'budget':>14}")
    asyncio.run(_run(arguments, measured))


if __name__ == "__main__":
    main(sys.argv[1:])
