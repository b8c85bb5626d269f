"""Requests that wait for news, and their end when the token that they came with is worth nothing any more.

Whoever is logged out, deactivated or locked shall not go on to hear of what happens, nor shall a client learn late that
its token has expired. As long as nothing of that happens, waiting costs an entry in a table.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.internet.defer import Deferred

from synapse.api.errors import MatrixError, unknown_token
from synapse.http.interruptible import Interruptible
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.http.server import Request
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

T = TypeVar("T")

LONGEST: Final = 600.0
"""Seconds that a request waits at most (`synapse.sync.handler.MAX_TIMEOUT`): what expires later need not be watched."""


class WaitingRequests:
    """Those of one process, by the key of their token in the authenticator's cache.

    :param recheck: raises the error that a request would be answered with if it came now.
    """

    def __init__(self, recheck: Callable[[str, Request], Awaitable[object]], clock: Clock) -> None:
        self._recheck = recheck
        self._clock = clock
        self._by_key: dict[str, dict[Interruptible[Any], Request]] = {}
        self._doubted: set[Interruptible[Any]] = set()  # of which it is being found out whether they may go on

    async def run(
        self,
        key: str,
        request: Request,
        expires_ts: int | None,
        waiting: Interruptible[T],
        renew: Callable[[], Awaitable[int]] | None = None,
    ) -> T:
        """The result of work that has begun. Raises 401 M_UNKNOWN_TOKEN or what `recheck` raises, once it would.

        `renew` finds out at the end of the token's time whether it goes on, and until when (milliseconds); it raises
        the error that the request is answered with otherwise. Without it, that is the end.
        """
        watch = _Watch(waiting, renew, self._clock)
        watch.until(expires_ts)
        here = self._by_key.setdefault(key, {})
        here[waiting] = request
        try:
            result = await waiting.run()
            # Nothing is told before it is clear to whom.
            if waiting in self._doubted:
                await self._recheck(key, request)
            if watch.looking and renew is not None:
                await renew()
            return result
        finally:
            self._doubted.discard(waiting)
            del here[waiting]
            if not here and self._by_key.get(key) is here:
                del self._by_key[key]
            watch.stop()

    def doubt(self, key: str | None) -> None:
        """Something has changed about this token; None: perhaps about any. Returns at once."""
        keys = list(self._by_key) if key is None else [key] if key in self._by_key else []
        for each in keys:
            self._doubted.update(self._by_key[each])
        if keys:
            Deferred.fromCoroutine(self._look_again(keys))

    async def _look_again(self, keys: list[str]) -> None:
        # One after another: after a lost connection to the main process it is everybody who waits.
        for key in keys:
            for waiting, request in list(self._by_key.get(key, {}).items()):
                try:
                    await self._recheck(key, request)
                except MatrixError as error:
                    waiting.interrupt(error)
                except Exception as error:
                    log_failure(logger, error, "It could not be checked whether a waiting client is still logged in")
                else:
                    self._doubted.discard(waiting)


class _Watch:
    """The end of a token's time, while one request waits."""

    __slots__ = ("_clock", "_over", "_renew", "_timer", "_waiting", "looking")

    def __init__(self, waiting: Interruptible[Any], renew: Callable[[], Awaitable[int]] | None, clock: Clock) -> None:
        self.looking = False  # whether it is being found out if the token goes on
        self._waiting = waiting
        self._renew = renew
        self._clock = clock
        self._timer: Any = None
        self._over = False

    def until(self, expires_ts: int | None) -> None:
        """The token ends then (milliseconds); None: not that anybody knew."""
        left = LONGEST if expires_ts is None else expires_ts / 1000 - self._clock.seconds()
        if left < LONGEST and not self._over:
            self._timer = self._clock.callLater(max(0, left), self._end)

    def stop(self) -> None:
        """The request waits no longer."""
        self._over = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _end(self) -> None:
        if self._renew is None:
            self._waiting.interrupt(unknown_token(soft_logout=True))
        else:
            self.looking = True
            Deferred.fromCoroutine(self._look(self._renew))

    async def _look(self, renew: Callable[[], Awaitable[int]]) -> None:
        try:
            expires_ts = await renew()
        except Exception as error:
            if not isinstance(error, MatrixError):
                log_failure(logger, error, "It could not be checked whether a waiting client is still logged in")
            self._waiting.interrupt(error)
        else:
            self.looking = False
            self.until(expires_ts)
