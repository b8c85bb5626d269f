"""What processes have cost so far: CPU seconds and memory, read from /proc.

Server processes are named by pid or by pid file; PostgreSQL by its postmaster, whose children (one per
connection) are counted with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Costs:
    """CPU seconds used since the processes started."""

    server: float
    database: float

    def __sub__(self, other: Costs) -> Costs:
        return Costs(self.server - other.server, self.database - other.database)


@dataclass(frozen=True)
class Processes:
    """The processes under measurement."""

    server: tuple[int, ...]
    postmaster: int | None

    def costs(self) -> Costs:
        """CPU used until now; children of the postmaster that have ended count too."""
        database = 0.0
        if self.postmaster is not None:
            database = cpu_seconds(self.postmaster, reaped_children=True)
            database += sum(cpu_seconds(pid) for pid in children(self.postmaster))
        return Costs(sum(cpu_seconds(pid) for pid in self.server), database)

    def memory_mib(self) -> float:
        """Proportional set size of the server's processes, MiB."""
        return sum(pss_kib(pid) for pid in self.server) / 1024


def cpu_seconds(pid: int, *, reaped_children: bool = False) -> float:
    """User and system time of a process, with `reaped_children` also of its ended children; 0 for one that is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    ticks = int(fields[11]) + int(fields[12])
    if reaped_children:
        ticks += int(fields[13]) + int(fields[14])
    return ticks / _TICK


def pss_kib(pid: int) -> int:
    """Proportional set size of a process in KiB; 0 for one that is gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def children(parent: int) -> list[int]:
    """Process ids whose parent is `parent`."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == parent:
            found.append(int(entry.name))
    return found


def read_pid(path: Path) -> int:
    """The process id in a pid file (the first line; PostgreSQL writes more)."""
    return int(path.read_text().split()[0])


def processes(pid_files: Iterable[Path], postmaster_pid_file: Path | None) -> Processes:
    """The processes that these pid files name."""
    return Processes(
        tuple(read_pid(path) for path in pid_files), read_pid(postmaster_pid_file) if postmaster_pid_file else None
    )
