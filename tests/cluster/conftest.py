"""The cluster that the tests here share: it takes seconds to make, and each test uses rooms and users of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import ROOT, Cluster, running_cluster


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def js_cache() -> Path:
    """Where the JavaScript client's packages are kept between runs."""
    return ROOT / ".pytest_cache" / "js"
