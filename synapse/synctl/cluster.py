"""Which processes a command is about: configuration files, as named on synctl's command line, into `Process`es.

The processes of a server share homeserver.yaml; each worker adds a file of its own. With `-a DIR` the main process is
one of the files of that directory too (`worker_app: synapse.app.homeserver`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synapse.config import Config, ConfigError, load, load_unchecked
from synapse.config.files import read_file

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Process:
    """One process as its configuration files describe it."""

    config: Config
    files: tuple[str, ...]  # absolute, homeserver.yaml first, its own last
    daemonize: bool | None  # what its own file says of it, None where it says nothing

    @property
    def name(self) -> str:
        return self.config.instance_name

    @property
    def app(self) -> str:
        return self.config.app

    @property
    def is_main(self) -> bool:
        return self.config.is_main

    @property
    def output_file(self) -> str:
        """Where what it prints goes: beside its pid file, or else beside its own configuration file."""
        if self.config.pid_file:
            return os.path.splitext(self.config.pid_file)[0] + ".out"
        return os.path.join(os.path.dirname(self.files[-1]), f"{self.name}.out")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The processes that a command is about, and the server that they belong to."""

    shared: Config  # homeserver.yaml alone
    file: str  # its path; the first one, if it is a directory
    main: Process | None
    workers: tuple[Process, ...]

    @property
    def processes(self) -> tuple[Process, ...]:
        """The main process first."""
        return (self.main, *self.workers) if self.main else self.workers


def read_cluster(
    config_file: str, *, workers: Sequence[str] = (), directory: str | None = None, checked: bool = True
) -> Cluster:
    """The processes of `-w FILE…` or `-a DIR`; the main process alone without either. Raises `ConfigError`.

    :param checked: refuse what a process could not start with; without it, a server can be stopped and inspected
        though its files have been spoilt in the meantime.
    """
    path = os.path.abspath(config_file)
    read = load if checked else load_unchecked
    shared = read([path])
    if directory is None and not workers:
        return Cluster(shared, shared.files[0], Process(shared, shared.files, None), ())
    files = _worker_files(directory) if directory is not None else [os.path.abspath(file) for file in workers]
    processes = [_process(read, path, file) for file in files]
    mains = [process for process in processes if process.is_main]
    _check_unique(processes)
    return Cluster(shared, shared.files[0], mains[0] if mains else None, tuple(p for p in processes if not p.is_main))


def _worker_files(directory: str) -> list[str]:
    path = os.path.abspath(directory)
    if not os.path.isdir(path):
        remedy = "create it and put a file for each worker into it, or name a single file with -w"
        raise ConfigError(path, None, "is not a directory", remedy)
    files = sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(_SUFFIXES))
    if not files:
        raise ConfigError(path, None, "has no worker files (*.yaml)", "put a file for each worker into it")
    return files


def _process(read: Callable[[list[str]], Config], shared: str, file: str) -> Process:
    own = read_file(file)[0]
    if "worker_app" not in own:
        remedy = (
            "name the application, such as synapse.app.synchrotron, or move the file elsewhere if it is no worker's"
        )
        raise ConfigError(file, "worker_app", "is missing", remedy)
    says = own.get("daemonize" if own["worker_app"] == "synapse.app.homeserver" else "worker_daemonize")
    config = read([shared, file])
    return Process(config, config.files, says)


def _check_unique(processes: list[Process]) -> None:
    """Refuse what two processes cannot both have, before either starts."""
    _check_distinct(processes, "worker_app", lambda p: "synapse.app.homeserver" if p.is_main else None)
    _check_distinct(processes, "worker_name", lambda p: p.name)
    _check_distinct(processes, "worker_pid_file", lambda p: p.config.pid_file)


def _check_distinct(processes: list[Process], option: str, value_of: Callable[[Process], str | None]) -> None:
    seen: dict[str, Process] = {}
    for process in processes:
        value = value_of(process)
        if value is None:
            continue
        if value in seen:
            problem = f"is {value}, and so it is in {seen[value].files[-1]}"
            raise ConfigError(process.files[-1], option, problem, "each process needs its own")
        seen[value] = process
