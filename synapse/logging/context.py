"""Which request the running code works for, and what that request has cost so far.

The present request is a context variable: coroutines that a request starts inherit it, code that belongs to no request
sees None. Log lines take the request's id from here, the database adds its costs here.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from itertools import count

_numbers = count(1)
_prefix = ""


class RequestContext:
    """One request (or one duty in the background) and its costs. Times are in seconds."""

    __slots__ = ("cpu_seconds", "db_seconds", "db_statements", "endpoint", "id", "rate_limited", "user")

    def __init__(self, request_id: str, endpoint: str = "", user: str | None = None) -> None:
        self.id = request_id
        self.endpoint = endpoint
        self.user = user
        self.rate_limited = True
        self.cpu_seconds = 0.0
        self.db_statements = 0
        self.db_seconds = 0.0

    def __repr__(self) -> str:
        return f"RequestContext({self.id}, {self.endpoint}, {self.user})"


current_request: ContextVar[RequestContext | None] = ContextVar("current_request", default=None)


def name_process(name: str) -> None:
    """Puts a process's name into the ids of its requests, so that they differ within a cluster."""
    global _prefix
    _prefix = f"{name}-" if name else ""


def new_request_id(method: str) -> str:
    """A short id, unique within this process's life: `PUT-17`, or `event_creator-PUT-17` in a named process."""
    return f"{_prefix}{method}-{next(_numbers)}"


def request_costs() -> RequestContext | None:
    """The costs of the present request, for those who add to them."""
    return current_request.get()


class LoggingContextFilter(logging.Filter):
    """Gives records `request`: the filter that log configurations of this server have always named.

    Records carry the id anyway (`synapse.logging.format`); `request` is what stands there outside of requests.
    """

    def __init__(self, request: str = "-") -> None:
        super().__init__()
        self._default = request

    def filter(self, record: logging.LogRecord) -> bool:
        context = current_request.get()
        record.request = context.id if context is not None else self._default
        return True
