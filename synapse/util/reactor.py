"""The parts of the reactor that need threads and sockets, in types that a checker understands (see `clock`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from synapse.util.clock import Clock


class ThreadReactor(Clock, Protocol):
    """A clock, and a way in for other threads."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...


class NetworkReactor(ThreadReactor, Protocol):
    """Connections too."""

    def connectTCP(self, host: str, port: int, factory: Any, timeout: float = ..., bindAddress: Any = ...) -> Any: ...

    def listenTCP(self, port: int, factory: Any, backlog: int = ..., interface: str = ...) -> Any: ...
