"""How a log line looks, and the request id in it.

A configuration in dictConfig's YAML may use `%(request)s` in its formats: `synapse.logging.setup` makes every record
carry it.
"""

from __future__ import annotations

import logging
from typing import Any

from synapse.logging.context import current_request
from synapse.logging.redact import redact

DEFAULT_FORMAT = "%(asctime)s - %(name)s - %(lineno)d - %(levelname)s - %(request)s - %(message)s"

_plain_factory = logging.LogRecord


def request_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """A log record that carries the id of the request it was written for, "-" outside of requests."""
    record = _plain_factory(*args, **kwargs)
    context = current_request.get()
    record.request = context.id if context is not None else "-"
    return record


class SynapseFormatter(logging.Formatter):
    """The default format; tracebacks are without secrets too."""

    def __init__(self, fmt: str | None = None, datefmt: str | None = None, style: Any = "%") -> None:
        super().__init__(fmt or DEFAULT_FORMAT, datefmt, style)

    def formatException(self, exc_info: Any) -> str:  # the library's name
        return redact(super().formatException(exc_info))
