"""Recognising processes by what they call themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from synapse.synctl.running import Handle, inspect, parse_command, read_pid_file


@pytest.mark.parametrize(
    ("command", "app", "files"),
    [
        ("python -m synapse.app.homeserver -c /a/h.yaml", "homeserver", ("/a/h.yaml",)),
        ("/usr/bin/python3.11 -m synapse.app.pusher -c /h.yaml -c /w/p.yaml", "pusher", ("/h.yaml", "/w/p.yaml")),
        ("python -m synapse.app.user_dir --config-path=/x y.yaml -c /b.yaml", "user_dir", ("/x y.yaml", "/b.yaml")),
        ("python3 -X dev -m synapse.app.pusher --config-path /h.yaml -D", "pusher", ("/h.yaml",)),
        ("python -m synapse.app.homeserver", "homeserver", ()),
    ],
)
def test_ours(command: str, app: str, files: tuple[str, ...]) -> None:
    assert parse_command(command) == (f"synapse.app.{app}", files)


@pytest.mark.parametrize(
    "command",
    [
        "vim synapse.app.homeserver -c /a/homeserver.yaml",
        "python -m synapse.synctl.cli start",
        "grep python -m synapse_app_homeserver",
        "python homeserver.py -c /a/homeserver.yaml",
        "sleep 50",
    ],
)
def test_not_ours(command: str) -> None:
    assert parse_command(command) is None


def test_a_relative_file_counts_from_where_the_process_is(tmp_path: Path) -> None:
    code = "import time, sys; print('up', flush=True); time.sleep(50)"
    title = "python -m synapse.app.pusher -c homeserver.yaml"
    script = f"import setproctitle; setproctitle.setproctitle({title!r}); {code}"
    with subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            found = inspect(process.pid)
            assert found is not None
            assert found.files == (str(tmp_path / "homeserver.yaml"),)
            handle = Handle(found)
            assert not handle.wait(0)
        finally:
            process.kill()
        assert handle.wait(10)


def test_a_dead_process_is_none() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert inspect(process.pid) is None


@pytest.mark.parametrize(
    ("content", "pid"), [("123\n", 123), ("", None), ("abc", None), ("-1", None), ("12 13", None), ("١٢", None)]
)
def test_pid_files(content: str, pid: int | None, tmp_path: Path) -> None:
    file = tmp_path / "x.pid"
    file.write_text(content)
    assert read_pid_file(str(file)) == pid
    assert read_pid_file(str(tmp_path / "none.pid")) is None
