"""The event loop of tests: the real one for threads and sockets, with a clock that the test holds.

`HeldReactor` is what to hand to code that both waits (for a thread, a socket) and times (retries, time-outs):
everything comes from the real reactor but `seconds`, `callLater` and `getDelayedCalls`, which are a `Clock`'s. Tests
call `advance`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock


def real_reactor() -> Any:
    """The reactor that pytest-twisted runs."""
    from twisted.internet import reactor

    return reactor


class HeldReactor(Clock):
    """The real reactor with a held clock."""

    def __getattr__(self, name: str) -> Any:
        return getattr(real_reactor(), name)
