"""Names of processes, also where there is little room for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.processes import ROOT

FILES = [f"/srv/{'x' * 300}/homeserver.yaml", f"/srv/{'x' * 300}/workers/synchrotron.yaml"]
SCRIPT = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from synapse.app._title import make_room, set_title
make_room()
if os.fork():
    os.wait()
    sys.exit()
set_title("synapse.app.synchrotron", {FILES!r})
print(open("/proc/self/cmdline", "rb").read().rstrip(bytes(1)).decode(), sys.argv[1:], sorted(os.environ))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """In a file: on the command line, it would itself be room enough."""
    path = tmp_path / "s.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("environment", [{}, {"A": "b"}, {"A": "b" * 10_000}], ids=["none", "little", "much"])
def test_a_title_that_is_longer_than_the_command_line(script: Path, environment: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, script, "a b"], env=environment, capture_output=True, text=True, check=True)
    name, _, rest = done.stdout.partition(" [")
    assert name == f"python -m synapse.app.synchrotron -c {FILES[0]} -c {FILES[1]}"
    assert rest.startswith("'a b'] ")
    assert "SYNAPSE_TITLE_ROOM" not in rest


def test_a_process_with_its_name_on_the_command_line_keeps_it_where_there_is_no_room(script: Path) -> None:
    script.write_text(SCRIPT.replace("make_room()\n", "sys.orig_argv.append('synapse.app.synchrotron')\n"))
    done = subprocess.run([sys.executable, script], env={}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(sys.executable)
