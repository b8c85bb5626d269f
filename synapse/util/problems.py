"""Problems whose message says all that there is to say, and how failures get into the log."""

from __future__ import annotations

import logging
import os


class Problem(Exception):
    """Something that this process relies on failed; the message is a sentence for the administrator."""


def log_failure(logger: logging.Logger, error: Exception, message: str, *args: object) -> None:
    """Log a failure: an error with its traceback, or a warning with the sentence of a `Problem`."""
    if isinstance(error, Problem):
        logger.warning(f"{message}: %s", *args, error)
    else:
        logger.error(message, *args, exc_info=error)


def why_not_connected(error: BaseException | None) -> str:
    """What an attempt to connect failed of: what Twisted gives as a bare number, in the operating system's words."""
    found = getattr(error, "osError", None)
    return os.strerror(found) if isinstance(found, int) else str(found or error)
