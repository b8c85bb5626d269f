"""The image that synctl forks: it has what every process loads, so that they share it and none pays for it again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from synapse.config.generate import new_signing_key

ROOT = Path(__file__).parents[2]

_SCRIPT = """
import sys
from synapse.app import _start
from synapse.config import load
config = load(sys.argv[1:])  # before it forks, synctl has read them all
_start.preload()
loaded = set(sys.modules)
from twisted.internet.testing import MemoryReactorClock
from synapse.app._homeserver import Homeserver
from synapse.app._services import HomeserverServices
from synapse.app.applications import application_of
hs = Homeserver(config, application_of(config), MemoryReactorClock())
hs.router, hs.authenticator, hs.replication
print(*sorted(set(sys.modules) - loaded))
"""


@pytest.mark.parametrize("app", ["pusher", "federation_sender", "appservice"])
def test_a_process_without_endpoints_loads_next_to_nothing_of_its_own(app: str, tmp_path: Path) -> None:
    database = {"name": "psycopg2", "args": {"host": str(tmp_path), "dbname": "nobody connects"}}
    main = {"server_name": "test", "database": database, "listeners": []}
    worker = {
        "worker_app": f"synapse.app.{app}",
        "worker_replication_host": "127.0.0.1",
        "worker_replication_port": 1,
        "worker_replication_http_port": 2,
    }
    files = []
    (tmp_path / "test.signing.key").write_text(new_signing_key())
    for name, content in (("homeserver", main), ("worker", worker)):
        files.append(str(tmp_path / f"{name}.yaml"))
        Path(files[-1]).write_text(yaml.safe_dump(content))
    command = [sys.executable, "-c", _SCRIPT, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours = [name for name in done.stdout.split() if name.startswith("synapse.")]
    assert len(ours) <= 3, ours
