"""start, stop, restart and status: in which order, how long to wait, and what to say.

The main process is started first and stopped last, as the workers follow it. Everything is said in lines for people;
each action returns the exit status.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence

from synapse.app import _notify
from synapse.config import ConfigError
from synapse.synctl import running
from synapse.synctl.cluster import Cluster, Process
from synapse.synctl.health import serves
from synapse.synctl.launch import Child, Launcher
from synapse.synctl.waiting import (
    Failure,
    Say,
    wait_for_early_ends,
    wait_until_serving,
    wait_until_standing_by,
)

NOT_RUNNING = 3  # what `status` commands return for services that are not running

_STOP_SECONDS = 45.0
_EARLY_SECONDS = 3.0
_FOREGROUND_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD)


class Actions:
    """The actions on one cluster.

    :param seconds: how long a process may take until it serves.
    """

    def __init__(self, cluster: Cluster, say: Say, *, seconds: float = 120.0) -> None:
        self._cluster = cluster
        self._say = say
        self._seconds = seconds

    # -- start

    def start(self) -> int:
        """Start what does not run yet, the main process first, then all workers at once."""
        self._refuse_foreign()
        with Launcher() as launcher:
            if self._cluster.main is not None:
                if self._start(launcher, [self._cluster.main]):
                    return 1
                return 1 if self._start(launcher, self._cluster.workers) else 0
            return self._start_workers_alone(launcher)

    def _start_workers_alone(self, launcher: Launcher) -> int:
        if self._main_runs():
            return 1 if self._start(launcher, self._cluster.workers) else 0
        self._say(
            "The main process does not run, and no file given here starts it (one with `worker_app: "
            "synapse.app.homeserver`); the workers serve once it does."
        )
        children = self._launch(launcher, self._cluster.workers)
        return 1 if self._settle(children, wait_for_early_ends(children, _EARLY_SECONDS, self._say)) else 0

    def _start(self, launcher: Launcher, processes: Sequence[Process]) -> bool:
        """Start processes and wait for them; True if one failed."""
        children = self._launch(launcher, processes)
        return self._settle(children, wait_until_serving(children, self._seconds, self._say))

    def _launch(self, launcher: Launcher, processes: Sequence[Process]) -> list[Child]:
        children = []
        for process in processes:
            found = running.find(process)
            if found is not None:
                self._say(f"  {process.name} is already running (pid {found.pid})")
                continue
            self._forget_stale(process)
            children.append(launcher.launch(process))
        if children:
            self._say(f"Starting {', '.join(child.process.name for child in children)}")
        return children

    def _settle(self, children: list[Child], failures: list[Failure]) -> bool:
        for failure in failures:
            failure.report(self._say)
        for child in children:
            child.close()
        return bool(failures)

    def _forget_stale(self, process: Process) -> None:
        stale = running.remove_stale_pid_file(process)
        if stale is not None:
            self._say(
                f"  {process.name}: removed the stale {process.config.pid_file} (process {stale} is gone or not ours)"
            )

    def _refuse_foreign(self) -> None:
        """A worker that says it is run by something else is not started here too."""
        for process in self._cluster.processes:
            if process.daemonize is False and not process.is_main:
                remedy = "set it to true to have synctl run this worker, or move the file if something else runs it"
                raise ConfigError(process.files[-1], "worker_daemonize", "is false", remedy)

    def _main_runs(self) -> bool:
        return any(
            found.app == "synapse.app.homeserver" and found.belongs_to(self._cluster.file)
            for found in running.running_processes()
        )

    # -- stop

    def stop(self) -> int:
        """Stop the workers, then the main process."""
        failed = self._stop_all(self._cluster.workers)
        if self._cluster.main is not None:
            failed = self._stop_all([self._cluster.main]) or failed
            others = [found for found in running.running_processes() if found.belongs_to(self._cluster.file)]
            if others:
                self._say(f"Still running: {_names(others)}; stop workers too with synctl -a DIRECTORY stop.")
            else:
                self._stop_database()
        return 1 if failed else 0

    def _stop_all(self, processes: Sequence[Process]) -> bool:
        handles = []
        for process in processes:
            found = running.find(process)
            if found is None:
                self._say(f"  {process.name} is not running")
                self._forget_stale(process)
                continue
            handle = running.Handle(found)
            handle.signal(signal.SIGTERM)
            handles.append((process, handle))
        until = time.monotonic() + _STOP_SECONDS
        killed = [self._await_end(process, handle, until) for process, handle in handles]
        return any(killed)

    def _await_end(self, process: Process, handle: running.Handle, until: float) -> bool:
        """Wait for the end of a process that was asked to leave; True if it had to be killed."""
        if handle.wait(until - time.monotonic()):
            self._say(f"  {process.name} has stopped")
            return False
        self._say(f"  {process.name} (pid {handle.pid}) did not leave within {_STOP_SECONDS:.0f} s and is killed")
        handle.signal(signal.SIGKILL)
        handle.wait(_STOP_SECONDS)
        running.remove_stale_pid_file(process)
        return True

    def _stop_database(self) -> None:
        """The embedded database has nobody left to serve."""
        database = self._cluster.shared.database
        if database.is_embedded and database.data_directory:
            from synapse.storage import embedded

            if embedded.stop(database.data_directory):
                self._say("  the embedded PostgreSQL has stopped")

    # -- restart

    def restart(self) -> int:
        """Restart one process after the other; each new one takes over the ports of the old, so no request fails."""
        self._refuse_foreign()
        with Launcher() as launcher:
            for process in self._cluster.processes:
                if self._restart(launcher, process):
                    return 1
        return 0

    def _restart(self, launcher: Launcher, process: Process) -> bool:
        found = running.find(process)
        if found is None:
            return self._start(launcher, [process])
        handle = running.Handle(found)
        self._say(f"Restarting {process.name} (pid {found.pid})")
        child = launcher.launch(process, replaces=found.pid)
        failures = wait_until_standing_by(child, self._seconds, self._say)
        if failures:
            failed = self._settle([child], failures)
            self._say(f"The old {process.name} (pid {found.pid}) goes on.")
            return failed
        handle.signal(signal.SIGTERM)
        self._await_end(process, handle, time.monotonic() + _STOP_SECONDS)
        return self._settle([child], wait_until_serving([child], self._seconds, self._say))

    # -- status

    def status(self) -> int:
        """Print a table of the processes; 0 if all serve."""
        rows = [self._row(process) for process in self._cluster.processes]
        header = ("NAME", "APPLICATION", "PID", "SERVING", "UP")
        widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
        for row in [header, *rows]:
            self._say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return 0 if all(row[2] != "-" and row[3] != "no" for row in rows) else NOT_RUNNING

    def _row(self, process: Process) -> tuple[str, ...]:
        found = running.find(process)
        if found is None:
            return (process.name, process.app, "-", "no", "-")
        answer = {True: "yes", False: "no", None: "no listener"}[serves(process)]
        return (process.name, process.app, str(found.pid), answer, _duration(time.time() - found.started))

    # -- in the foreground

    def run_in_foreground(self) -> int:
        """Start everything attached to this terminal, and stop it all on SIGINT or SIGTERM or when one process ends.

        A service manager that waits for word (`$NOTIFY_SOCKET`) gets it when all serve. SIGHUP is passed on.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _FOREGROUND_SIGNALS)
        with Launcher(foreground=True) as launcher:
            failed = any(self._start(launcher, group) for group in self._groups())
            if not failed:
                _notify.notify(_notify.READY)
            received = None if failed else self._await_signal()
        _notify.notify(_notify.STOPPING)
        if received == signal.SIGCHLD:
            self._say("A process has ended; stopping the others.")
        stopped = self.stop()
        return stopped if received in (signal.SIGINT, signal.SIGTERM) else 1

    def _await_signal(self) -> int:
        """The signal that ends it all."""
        while (received := signal.sigwait(_FOREGROUND_SIGNALS)) == signal.SIGHUP:
            for process in self._cluster.processes:
                found = running.find(process)
                if found is not None:
                    running.Handle(found).signal(signal.SIGHUP)
        return received

    def _groups(self) -> list[Sequence[Process]]:
        return [group for group in ([self._cluster.main] if self._cluster.main else [], self._cluster.workers) if group]


def _names(others: list[running.Running]) -> str:
    return ", ".join(sorted(found.app.rpartition(".")[2] for found in others))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s" if minutes else f"{rest}s"
