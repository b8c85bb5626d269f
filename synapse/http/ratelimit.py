"""How often somebody may do something: buckets that leak, one per setting and key.

A setting says how much a bucket leaks (`per_second`) and how much it holds (`burst_count`). A bucket is one number,
the time at which it will be empty (the "generic cell rate algorithm"), so that thousands of them cost little; those
used longest ago are forgotten when there are too many. Each process counts for itself. Requests of application services
whose registration says so are not limited.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from synapse.api.errors import limit_exceeded
from synapse.logging.context import current_request
from synapse.metrics import table
from synapse.util.clock import Clock

MAX_KEYS = 50_000  # per setting
_NEVER_MS = 3_600_000  # what a setting that allows nothing tells to wait


class Rate(Protocol):
    """A setting: `{per_second: 0.17, burst_count: 3}`."""

    @property
    def per_second(self) -> float: ...

    @property
    def burst_count(self) -> int: ...


class Buckets:
    """The buckets of one setting, by key."""

    def __init__(self, rate: Rate, clock: Clock, max_keys: int = MAX_KEYS) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._interval = 1 / rate.per_second if rate.per_second > 0 else None
        self._depth = max(rate.burst_count, 1) - 1  # what may be in a bucket for one more to fit
        self._empty_at: dict[str, float] = {}  # in the order of their last use

    def wait(self, key: str) -> float:
        """Seconds until one more fits; 0 when it fits now. Counts nothing."""
        if self._interval is None:
            return _NEVER_MS / 1000
        empty_at = self._empty_at.get(key)
        if empty_at is None:
            return 0.0
        excess = empty_at - self._clock.seconds() - self._depth * self._interval
        # Sums of intervals are not exact; nobody shall wait for a rounding error.
        return excess if excess > 1e-6 else 0.0

    def add(self, key: str) -> None:
        """Counts one."""
        if self._interval is None:
            return
        now = self._clock.seconds()
        self._empty_at[key] = max(now, self._empty_at.pop(key, now)) + self._interval
        if len(self._empty_at) > self._max_keys:
            self._forget(now)

    def take_back(self, key: str) -> None:
        """Counts one less."""
        if self._interval is not None and key in self._empty_at:
            self._empty_at[key] -= self._interval

    def __len__(self) -> int:
        return len(self._empty_at)

    def _forget(self, now: float) -> None:
        # A tenth at a time, so that not every addition has to look.
        kept = [(key, at) for key, at in self._empty_at.items() if at > now]
        self._empty_at = dict(kept[-(self._max_keys * 9 // 10) :])


def _is_limited() -> bool:
    context = current_request.get()
    return context is None or context.rate_limited


class RateLimits:
    """All limits of a process.

    :param setting: the setting of a name, `rc_message` or `rc_login.address`; None where nothing is limited.
    """

    def __init__(self, setting: Callable[[str], Rate | None], clock: Clock) -> None:
        self._setting = setting
        self._clock = clock
        self._buckets: dict[str, Buckets | None] = {}

    def check(self, limit: str, key: str) -> None:
        """Counts one action of `key`. Raises MatrixError (M_LIMIT_EXCEEDED), and counts nothing, if it is too many."""
        self.require(limit, key)
        self.count(limit, key)

    def require(self, limit: str, key: str) -> None:
        """Raises MatrixError (M_LIMIT_EXCEEDED) if `key` has done too much already; for what is counted afterwards."""
        buckets = self._of(limit)
        if not _is_limited():
            return
        wait = buckets.wait(key) if buckets is not None else 0.0
        if wait:
            table.HTTP_RATE_LIMITED.child(limit).inc()
            raise limit_exceeded(max(1, round(wait * 1000)))

    def count(self, limit: str, key: str) -> None:
        """Counts one action of `key`, whether or not it is one too many."""
        buckets = self._of(limit)
        if buckets is not None and _is_limited():
            buckets.add(key)

    def forgive(self, limit: str, key: str) -> None:
        """Takes back what `count` counted of `key`: it turned out to be nothing that is to be limited."""
        buckets = self._of(limit)
        if buckets is not None:
            buckets.take_back(key)

    def _of(self, limit: str) -> Buckets | None:
        if limit not in self._buckets:
            rate = self._setting(limit)
            self._buckets[limit] = Buckets(rate, self._clock) if rate is not None else None
        return self._buckets[limit]
