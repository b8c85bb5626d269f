"""The reactor as seen by code that tells the time and sets timers, in types that a checker understands.

Twisted's own interfaces are zope's, which type checkers see through only with a plugin. The reactor and
`twisted.internet.task.Clock` both fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None: ...

    def active(self) -> Any: ...  # true in the sense of bool()

    def reset(self, secondsFromNow: float) -> None: ...


class Clock(Protocol):
    """Tells seconds (of an arbitrary epoch, never going back where the platform can) and calls later."""

    def seconds(self) -> float: ...

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any) -> Any: ...
