"""A configuration that is right, for tests to spoil."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from synapse.config.generate import new_signing_key

# As the description of the workers prints them.
REPLICATION_LISTENERS = """
listeners:
  # The TCP replication port
  - port: 9092
    bind_address: '127.0.0.1'
    type: replication
  # The HTTP replication port
  - port: 9093
    bind_address: '127.0.0.1'
    type: http
    resources:
     - names: [replication]
"""
SYNCHROTRON = """
worker_app: synapse.app.synchrotron

# The replication listener on the synapse to talk to.
worker_replication_host: 127.0.0.1
worker_replication_port: 9092
worker_replication_http_port: 9093

worker_listeners:
 - type: http
   port: 8083
   resources:
     - names:
       - client

worker_daemonize: True
worker_pid_file: /home/matrix/synapse/synchrotron.pid
worker_log_config: /home/matrix/synapse/config/synchrotron_log_config.yaml
"""

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of the given name from text or options, and return its path."""

    def write(name: str, content: str | dict[str, Any]) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
        return str(path)

    return write


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """The options of a main file that nothing is wrong with."""
    key = tmp_path / "signing.key"
    key.write_text(new_signing_key())
    return {
        "server_name": "example.org",
        "signing_key_path": str(key),
        "database": {"name": "embedded", "data_directory": str(tmp_path / "postgres")},
    }


@pytest.fixture
def worker() -> dict[str, Any]:
    """The options of a worker's file that nothing is wrong with."""
    loaded: dict[str, Any] = yaml.safe_load(SYNCHROTRON)
    return loaded
