"""synctl as its users call it, on real processes that do nothing but start and stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from synapse.synctl import running

ROOT = Path(__file__).parents[2]
SIGNING_KEY = "ed25519 a_test AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
SHARED = """\
server_name: example.org
report_stats: false
pid_file: homeserver.pid
signing_key_path: signing.key
media_store_path: media
database: {name: embedded, data_directory: postgres}
listeners:
- {port: 11, type: http, bind_addresses: [127.0.0.1], resources: [{names: [client, federation]}]}
- {port: 12, type: replication, bind_address: 127.0.0.1}
- {port: 13, type: http, bind_address: 127.0.0.1, resources: [{names: [replication]}]}
"""
WORKER = """\
worker_app: synapse.app.{app}
worker_replication_host: 127.0.0.1
worker_replication_port: 12
worker_replication_http_port: 13
worker_daemonize: true
worker_pid_file: {app}.pid
"""


class Site:
    """A directory with a configuration, and synctl called in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.workers = directory / "workers"
        self.workers.mkdir()
        (directory / "homeserver.yaml").write_text(SHARED)
        (directory / "signing.key").write_text(SIGNING_KEY)
        (self.workers / "homeserver.yaml").write_text("worker_app: synapse.app.homeserver\ndaemonize: true\n")
        for app in ("synchrotron", "pusher"):
            (self.workers / f"{app}.yaml").write_text(WORKER.format(app=app))

    def run(self, *arguments: str, cwd: Path | None = None, status: int = 0) -> str:
        """What synctl says; its exit status has to be this."""
        command = [sys.executable, "-m", "tests.synctl.fake_synctl", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=cwd or self.directory, env=environment, capture_output=True, text=True, timeout=50, check=False
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, said
        return said

    def pids(self) -> dict[str, int]:
        shared = str(self.directory / "homeserver.yaml")
        found = [process for process in running.running_processes() if process.belongs_to(shared)]
        return {process.app.rpartition(".")[2]: process.pid for process in found}

    def journal(self) -> list[str]:
        file = self.directory / "journal"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    try:
        yield site
    finally:
        for pid in site.pids().values():
            os.kill(pid, signal.SIGKILL)


def test_all_processes_start_the_main_one_first_and_stop_last(site: Site) -> None:
    said = site.run("-a", "workers", "start")
    assert "main is serving" in said
    assert set(site.pids()) == {"homeserver", "synchrotron", "pusher"}
    assert site.journal()[0] == "start main -"
    table = site.run("status", "-a", "workers", status=3)  # they serve nothing
    assert [line.split()[:3] for line in table.splitlines()[1:]] == [
        ["main", "synapse.app.homeserver", str(site.pids()["homeserver"])],
        ["pusher", "synapse.app.pusher", str(site.pids()["pusher"])],
        ["synchrotron", "synapse.app.synchrotron", str(site.pids()["synchrotron"])],
    ]
    site.run("-a", "workers", "stop")
    assert site.pids() == {}
    assert site.journal()[-1] == "stop main"


def test_starting_twice_changes_nothing(site: Site) -> None:
    site.run("-a", "workers", "start")
    before = site.pids()
    assert "already running" in site.run("-a", "workers", "start")
    assert site.pids() == before


def test_options_may_stand_behind_and_the_file_last(site: Site) -> None:
    site.run("start", "-a", "workers", "homeserver.yaml")
    site.run("stop", "homeserver.yaml", "-a", "workers")
    assert site.pids() == {}


def test_homeserver_yaml_is_found_beside_the_workers(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    site.run("-a", str(site.workers), "start", cwd=elsewhere)
    assert (site.directory / "homeserver.pid").exists()
    site.run("-w", str(site.workers / "synchrotron.yaml"), "restart", cwd=elsewhere)
    site.run("stop", str(site.directory / "homeserver.yaml"), cwd=site.directory)
    assert set(site.pids()) == {"synchrotron", "pusher"}
    assert list(elsewhere.iterdir()) == []
    # Called among the workers' files, where homeserver.yaml is the main process's own.
    site.run("-a", ".", "stop", cwd=site.workers)
    assert site.pids() == {}


def test_the_shared_configuration_may_be_a_directory(site: Site) -> None:
    shared = site.directory / "shared"
    shared.mkdir()
    (site.directory / "homeserver.yaml").rename(shared / "a.yaml")
    (shared / "b.yaml").write_text("use_presence: false\n")
    site.run("start", "-a", "workers", "shared")
    assert "Still running: pusher, synchrotron;" in site.run("stop", "shared")
    site.run("stop", "-a", "workers", "shared")
    journal = (shared / "journal").read_text().splitlines()
    assert sorted(journal[3:]) == ["stop main", "stop pusher", "stop synchrotron"]


def test_one_worker(site: Site) -> None:
    site.run("start")
    site.run("-w", "workers/synchrotron.yaml", "start")
    before = site.pids()
    site.run("-w", "workers/synchrotron.yaml", "restart")
    after = site.pids()
    assert after["homeserver"] == before["homeserver"]
    assert after["synchrotron"] != before["synchrotron"]
    assert site.journal()[-2:] == [f"start synchrotron {before['synchrotron']}", "stop synchrotron"]
    assert "Still running: synchrotron;" in site.run("stop")
    assert set(site.pids()) == {"synchrotron"}


def test_restart_takes_one_after_the_other(site: Site) -> None:
    site.run("-a", "workers", "start")
    before = site.pids()
    site.run("-a", "workers", "restart")
    after = site.pids()
    assert set(after) == set(before)
    assert not set(after.values()) & set(before.values())
    restarts = site.journal()[3:]
    assert restarts[:2] == [f"start main {before['homeserver']}", "stop main"]
    assert [line.split()[0] for line in restarts] == ["start", "stop"] * 3
    assert (site.directory / "homeserver.pid").read_text() == f"{after['homeserver']}\n"


def test_a_restart_that_fails_leaves_the_old_process(site: Site) -> None:
    site.run("start")
    before = site.pids()
    (site.directory / "main.fails").write_text("The new release does not like this configuration.")
    said = site.run("restart", status=1)
    assert "The new release does not like this configuration." in said
    assert site.pids() == before


def test_restart_starts_what_does_not_run(site: Site) -> None:
    site.run("restart", "-a", "workers")
    assert set(site.pids()) == {"homeserver", "synchrotron", "pusher"}


def test_a_failed_start_says_why_and_the_workers_are_not_tried(site: Site) -> None:
    (site.directory / "main.fails").write_text("Port 11 is in use by another program.")
    said = site.run("-a", "workers", "start", status=1)
    assert "main ended with status 1" in said
    assert "Port 11 is in use by another program." in said
    assert site.pids() == {}


def test_a_failed_worker_leaves_the_others_running(site: Site) -> None:
    (site.directory / "pusher.fails").write_text("No.")
    assert "pusher ended with status 1" in site.run("-a", "workers", "start", status=1)
    assert set(site.pids()) == {"homeserver", "synchrotron"}


def test_a_start_that_takes_too_long(site: Site) -> None:
    (site.directory / "main.silent").touch()
    assert "still not serving after 0.5 s" in site.run("start", "--timeout", "0.5", status=1)
    assert set(site.pids()) == {"homeserver"}


def test_without_a_file_of_its_own_the_main_process_is_left_alone(site: Site) -> None:
    (site.workers / "homeserver.yaml").unlink()
    said = site.run("-a", "workers", "start")
    assert "The main process does not run" in said
    assert set(site.pids()) == {"synchrotron", "pusher"}


def test_somebody_elses_process_is_left_alone(site: Site) -> None:
    other = subprocess.Popen(["sleep", "50"])
    try:
        pid_file = site.directory / "homeserver.pid"
        pid_file.write_text(f"{other.pid}\n")
        assert "main is not running" in site.run("stop")
        assert other.poll() is None
        assert not pid_file.exists()
        pid_file.write_text(f"{other.pid}\n")
        assert "stale" in site.run("start")
        assert other.poll() is None
        assert pid_file.read_text() == f"{site.pids()['homeserver']}\n"
    finally:
        other.kill()
        other.wait()


def test_another_servers_processes_are_left_alone(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    neighbour = Site(tmp_path_factory.mktemp("neighbour"))
    neighbour.run("start")
    before = neighbour.pids()
    try:
        site.run("start")
        site.run("-a", "workers", "stop")
        assert neighbour.pids() == before
    finally:
        neighbour.run("stop")


def test_a_lost_pid_file_loses_no_process(site: Site) -> None:
    site.run("start")
    (site.directory / "homeserver.pid").write_text("")
    assert "already running" in site.run("start")


def test_a_worker_that_something_else_runs_is_refused(site: Site) -> None:
    file = site.workers / "pusher.yaml"
    file.write_text(file.read_text().replace("daemonize: true", "daemonize: false"))
    said = site.run("-a", "workers", "start", status=1)
    assert "pusher.yaml: `worker_daemonize` is false" in said
    assert site.pids() == {}


def test_spoilt_files_do_not_keep_a_server_from_being_stopped(site: Site) -> None:
    site.run("-a", "workers", "start")
    (site.directory / "signing.key").unlink()
    assert "signing_key_path" in site.run("-a", "workers", "restart", status=1)
    site.run("-a", "workers", "stop")
    assert site.pids() == {}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda site: (site.workers / "x.yaml").write_text("a: 1"), "x.yaml: `worker_app` is missing"),
        (lambda site: (site.workers / "x.yaml").write_text(WORKER.format(app="pusher")), "each process needs its own"),
        (lambda site: (site.directory / "homeserver.yaml").unlink(), "homeserver.yaml: does not exist"),
        (lambda site: [file.unlink() for file in site.workers.iterdir()], "has no worker files"),
    ],
)
def test_mistakes_are_sentences(site: Site, spoil: object, sentence: str) -> None:
    spoil(site)  # type: ignore[operator]  # one of the functions above
    said = site.run("-a", "workers", "start", status=1)
    assert sentence in said
    assert "Traceback" not in said


def test_wrong_command_lines(site: Site) -> None:
    site.run("begin", status=2)
    site.run("start", "-o", "x", status=2)
    site.run("-a", "workers", "-w", "workers/pusher.yaml", "start", status=2)


def start_in_foreground(site: Site) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.synctl.fake_synctl", "--no-daemonize", "-a", "workers", "start"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    foreground = subprocess.Popen(command, cwd=site.directory, env=environment, stdout=subprocess.PIPE, text=True)
    assert foreground.stdout is not None
    serving = 0
    while serving < 3:
        line = foreground.stdout.readline()
        assert line
        serving += "is serving" in line
    return foreground


def test_in_the_foreground_everything_lives_and_dies_together(site: Site) -> None:
    with start_in_foreground(site) as foreground:
        foreground.send_signal(signal.SIGTERM)
        assert foreground.wait(20) == 0
    assert site.pids() == {}


def test_in_the_foreground_the_end_of_one_ends_all(site: Site) -> None:
    with start_in_foreground(site) as foreground:
        os.kill(site.pids()["pusher"], signal.SIGKILL)
        assert foreground.wait(20) == 1
    assert site.pids() == {}


def test_a_stopped_process_has_let_go_of_the_terminal(site: Site) -> None:
    """synctl's own output can be a pipe: it must end when synctl does, not when the server does."""
    site.run("start")  # waits for the end of the pipe, and not for ever
    pid = site.pids()["homeserver"]
    assert os.getsid(pid) == pid
    assert sorted(int(fd) for fd in os.listdir(f"/proc/{pid}/fd")) == [0, 1, 2]
