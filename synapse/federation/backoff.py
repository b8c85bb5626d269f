"""How long to leave a server alone that does not answer: longer each time, up to a day. Pure.

Times and durations are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Schedule:
    """The first pause, what each further one is multiplied by, and the longest."""

    first: int = 600_000
    multiplier: float = 2.0
    longest: int = 86_400_000

    def after(self, pause: int) -> int:
        """The pause that follows one of `pause`; 0 where there was none yet."""
        if pause <= 0:
            return min(self.first, self.longest)
        return max(min(int(pause * self.multiplier), self.longest), 1)


class Failing(NamedTuple):
    """A server that does not answer: since when, when it was tried last, and when it may be tried again, after a pause
    of `interval`."""

    since: int
    last_try: int
    interval: int
    retry_at: int


def failed(before: Failing | None, now: int, schedule: Schedule) -> Failing:
    """What is to be remembered when a server has not answered `now`.

    While it is left alone anyway nothing changes: several processes may find out at the same time, and who insists on
    asking shall not make the others wait for longer.
    """
    if before is None:
        pause = schedule.after(0)
        return Failing(now, now, pause, now + pause)
    if now < before.retry_at:
        return before
    pause = schedule.after(before.interval)
    return Failing(before.since, now, pause, now + pause)


def heard_from(failing: Failing, now: int, at_least: int) -> Failing:
    """The same when the server has said something by itself: it may be tried at once, unless that was done within the
    last `at_least` already (it may hear us no better than before)."""
    if failing.retry_at <= now or now - failing.last_try < at_least:
        return failing
    return failing._replace(retry_at=now)
