"""Names of processes, also where there is little room for them."""

from __future__ import annotations

import subprocess
import sys

from tests.app.processes import ROOT

FILES = [f"/srv/{'x' * 300}/homeserver.yaml", f"/srv/{'x' * 300}/workers/synchrotron.yaml"]
SCRIPT = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from synapse.app._title import make_room, set_title
make_room()
set_title("synapse.app.synchrotron", {FILES!r})
print(open("/proc/self/cmdline", "rb").read().rstrip(bytes(1)).decode(), sys.argv[1:], sorted(os.environ))
"""


def test_a_title_that_is_longer_than_command_line_and_environment() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, "a b"], env={}, capture_output=True, text=True, check=True)
    name, _, rest = done.stdout.partition(" [")
    assert name == f"python -m synapse.app.synchrotron -c {FILES[0]} -c {FILES[1]}"
    assert rest.startswith("'a b'] ")
    assert "SYNAPSE_TITLE_ROOM" not in rest


def test_a_process_with_its_name_on_the_command_line_keeps_it_where_there_is_no_room() -> None:
    script = SCRIPT.replace("make_room()", "sys.orig_argv.append('synapse.app.synchrotron')")
    done = subprocess.run([sys.executable, "-c", script], env={}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(sys.executable)
