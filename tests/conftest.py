"""Fixtures that every test may ask for; they are described where they are defined. How hypothesis goes about it, and
what is said after a run."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings

from tests.spec import answers, description
from tests.support.postgres import database, database_settings, postgres

__all__ = ["database", "database_settings", "postgres"]

# What a test finds must not depend on chance, nor on how busy the machine is.
settings.register_profile(
    "synapse",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("synapse")


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says how many described operations were seen to answer as described."""
    if answers.answers.cache_info().currsize == 0:
        return  # no test asked a server anything
    known = answers.answers()
    if known is None:
        terminalreporter.write_line(description.MISSING, yellow=True)
    else:
        total = len(known.operations)
        terminalreporter.write_line(f"{len(known.succeeded)} of {total} described operations succeeded as described")
