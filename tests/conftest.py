"""Fixtures that every test may ask for; they are described where they are defined. And what is said after a run."""

from __future__ import annotations

from typing import Any

from tests.spec import answers, description
from tests.support.postgres import database, database_settings, postgres

__all__ = ["database", "database_settings", "postgres"]


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
