"""What is told of an answered request: a log line and metrics, both with what it cost."""

from __future__ import annotations

import logging

from synapse.http.request import Request
from synapse.logging.context import RequestContext
from synapse.logging.redact import redact
from synapse.metrics import table

# Any other word that a client sends as a method counts as one, or clients could make series without end.
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"))

access_log = logging.getLogger("synapse.access.http")


class _Endpoint:
    """The metrics of one endpoint, looked up once."""

    __slots__ = ("bytes", "cpu", "db_seconds", "db_statements", "seconds")

    def __init__(self, name: str) -> None:
        self.seconds = table.HTTP_SECONDS.child(name)
        self.cpu = table.HTTP_CPU.child(name)
        self.db_statements = table.HTTP_DB_STATEMENTS.child(name)
        self.db_seconds = table.HTTP_DB_SECONDS.child(name)
        self.bytes = table.HTTP_RESPONSE_BYTES.child(name)


class Recorder:
    """Counts the requests of a process."""

    def __init__(self) -> None:
        self._endpoints: dict[str, _Endpoint] = {}

    def record(self, request: Request, context: RequestContext, code: int, length: int, seconds: float) -> None:
        """Tells of a request that was answered with `code` and `length` bytes, `seconds` after it came."""
        metrics = self._endpoints.get(request.name)
        if metrics is None:
            metrics = self._endpoints[request.name] = _Endpoint(request.name)
        method = request.method if request.method in _METHODS else "OTHER"
        table.HTTP_REQUESTS.child(request.name, method, str(code)).inc()
        metrics.seconds.observe(seconds)
        metrics.bytes.value += length
        metrics.cpu.value += context.cpu_seconds
        metrics.db_statements.value += context.db_statements
        metrics.db_seconds.value += context.db_seconds
        if access_log.isEnabledFor(request.log_level):
            _log(request, context, code, length, seconds)


def _log(request: Request, context: RequestContext, code: int, length: int, seconds: float) -> None:
    access_log.log(
        request.log_level,
        '%s - {%s} %s %s -> %d %dB in %.3fs, cpu %.4fs, db %d in %.3fs "%s"',
        request.client_ip,
        context.user or "-",
        request.method,
        redact(request.raw.target),
        code,
        length,
        seconds,
        context.cpu_seconds,
        context.db_statements,
        context.db_seconds,
        request.user_agent,
    )
