"""Servers that federate, each a cluster behind nginx, over TLS with certificates of an authority of the tests."""

from __future__ import annotations

import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import closing

import orjson
import pytest

from tests.support.cluster import Cluster, federated_clusters


@pytest.fixture(scope="module")
def servers() -> Iterator[list[Cluster]]:
    with federated_clusters(2) as servers:
        yield servers


def test_other_servers_find_a_certificate_and_keys(servers: list[Cluster]) -> None:
    for server in servers:
        context = ssl.create_default_context(cafile=server.authority)
        with closing(
            urllib.request.urlopen(f"https://{server.server_name}/_matrix/key/v2/server", context=context)
        ) as a:
            keys = orjson.loads(a.read())
        assert keys["server_name"] == server.server_name
        assert keys["verify_keys"]
