"""End-to-end encryption on one server, while its processes are killed; see `tests.cluster.encryption`."""

from __future__ import annotations

from pathlib import Path

from tests.clients.js import install
from tests.cluster import encryption
from tests.support.cluster import Cluster


def test_encryption(cluster: Cluster, js_cache: Path) -> None:
    before = cluster.requests_served()
    encryption.play([cluster], install(js_cache))
    served = cluster.requests_served() - before
    for endpoint, method in (("keys_query", "POST"), ("keys_upload", "POST")):
        apps = {cluster.processes[p].app for (p, e, m), n in served.items() if n and (e, m) == (endpoint, method)}
        assert cluster.expected_app(endpoint, method) in apps
