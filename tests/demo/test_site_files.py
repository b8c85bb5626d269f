"""The demo's configuration: right for every process, and with ports that are free."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from synapse.api.routes import App
from synapse.config import load
from synapse.synctl.cluster import read_cluster
from synapse.synctl.proxy_files import plan_for


@pytest.fixture(scope="module")
def site_files() -> ModuleType:
    path = Path(__file__).parents[2] / "demo/site_files.py"
    spec = importlib.util.spec_from_file_location("site_files", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["site_files"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def options(file: Path) -> dict[str, Any]:
    found = yaml.safe_load(file.read_text())
    assert isinstance(found, dict)
    return found


def test_all_ten_workers_and_the_main_process(site_files: Any, tmp_path: Path) -> None:
    site_files.prepare(tmp_path, running=False)
    cluster = read_cluster(str(tmp_path / "homeserver.yaml"), directory=str(tmp_path / "workers"))
    assert {process.app for process in cluster.processes} == set(App) - {App.GENERIC_WORKER}
    assert not [warning for process in cluster.processes for warning in process.config.warnings]
    plan = plan_for(cluster)
    assert not plan.remarks
    assert len({server.address for backend in plan.backends for server in backend.servers}) == 8


def test_the_files_are_kept(site_files: Any, tmp_path: Path) -> None:
    ports = site_files.prepare(tmp_path, running=False)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert site_files.prepare(tmp_path, running=True) == ports
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_port_that_was_taken_is_replaced_and_the_rest_is_kept(site_files: Any, tmp_path: Path) -> None:
    ports = site_files.prepare(tmp_path, running=False)
    main = tmp_path / "homeserver.yaml"
    main.write_text(main.read_text() + "\nmax_upload_size: 7M\n".replace("\n\n", "\n"))
    secret = options(main)["registration_shared_secret"]
    with socket.socket() as taker:
        taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taker.bind(("127.0.0.1", ports.workers["synchrotron"]))
        taker.listen(1)
        again = site_files.prepare(tmp_path, running=False)
        assert again.workers["synchrotron"] != ports.workers["synchrotron"]
        kept = site_files.prepare(tmp_path, running=True)
    assert kept == again
    shared = load([str(main)])
    assert shared.registration.registration_shared_secret == secret
    assert shared.media.max_upload_size == 7 << 20
    worker = load([str(main), str(tmp_path / "workers/synchrotron.yaml")])
    assert worker.listeners[0].port == again.workers["synchrotron"]
