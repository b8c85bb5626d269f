"""What we ask of Twisted's reactor, as protocols: zope's interfaces mean nothing to a type checker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class DelayedCall(Protocol):
    """What `callLater` returns."""

    def cancel(self) -> Any: ...
    def active(self) -> Any: ...
    def reset(self, secondsFromNow: float) -> Any: ...


class Timer(Protocol):
    """A clock: the reactor's, or `twisted.internet.task.Clock` in tests."""

    def seconds(self) -> float: ...
    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...


class ThreadReactor(Timer, Protocol):
    """A clock, and a way in for other threads."""

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Any: ...


class NetworkReactor(ThreadReactor, Protocol):
    """Connections too."""

    def connectTCP(self, host: str, port: int, factory: Any, timeout: int = ..., bindAddress: Any = ...) -> Any: ...
    def listenTCP(self, port: int, factory: Any, backlog: int = ..., interface: str = ...) -> Any: ...
    def connectUNIX(self, address: str, factory: Any, timeout: int = ..., checkPID: Any = ...) -> Any: ...
    def listenUNIX(
        self, address: str, factory: Any, backlog: int = ..., mode: int = ..., wantPID: Any = ...
    ) -> Any: ...
