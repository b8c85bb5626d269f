"""What an administrator is told of a start that failed."""

from __future__ import annotations

from synapse.config import ConfigError


def as_sentence(error: BaseException) -> str | None:
    """The error in one sentence; None for a fault of our own, which deserves a traceback."""
    from synapse.logging.setup import LogConfigError
    from synapse.storage.errors import DatabaseProblem

    return str(error) if isinstance(error, (ConfigError, DatabaseProblem, LogConfigError)) else None
