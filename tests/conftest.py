"""Fixtures that every test may ask for; they are described where they are defined. How hypothesis goes about it, and
what is said after a run."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.spec import description
from tests.support.postgres import database, database_settings, postgres
from tests.support.side_by_side import (
    pytest_collection_modifyitems,
    pytest_sessionfinish,
    pytest_testnodedown,
    pytest_xdist_make_scheduler,
    tally_of_all,
)

__all__ = [
    "database",
    "database_settings",
    "postgres",
    "pytest_collection_modifyitems",
    "pytest_sessionfinish",
    "pytest_testnodedown",
    "pytest_xdist_make_scheduler",
]

# What a test finds must not depend on chance, nor on how busy the machine is.
settings.register_profile(
    "synapse",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("synapse")


def pytest_collection_finish() -> None:
    """Has the garbage collector leave the thousands of tests alone: nothing of them becomes garbage during the run."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Says how many described operations were seen to answer as described."""
    tally = tally_of_all(config)
    if tally is None:
        return  # no test asked a server anything
    if tally.described == 0:
        terminalreporter.write_line(description.MISSING, yellow=True)
    else:
        said = f"{len(tally.succeeded)} of {tally.described} described operations succeeded as described"
        terminalreporter.write_line(said)
