"""How long to leave a server alone that does not answer: longer each time, up to a day. Pure.

Times and durations are milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Schedule:
    """The first pause, what each further one is multiplied by, and the longest.

    A request that fails once proves little: the line may be back in a moment. What is known by such requests alone is
    left alone `briefly`, for twice as long each time, until that makes a first pause.
    """

    first: int = 600_000
    multiplier: float = 2.0
    longest: int = 86_400_000
    briefly: int = 1_000

    def after(self, pause: int, insisted: bool = True) -> int:
        """The pause that follows one of `pause`, 0 where there was none yet. `insisted`: the server was asked again and
        again."""
        first = min(self.first, self.longest)
        if pause <= 0 or pause < first:
            return first if insisted else min(max(2 * pause, self.briefly), first)
        return max(min(int(pause * self.multiplier), self.longest), 1)


class Failing(NamedTuple):
    """A server that does not answer: since when, when it was tried last, and when it may be tried again, after a pause
    of `interval`."""

    since: int
    last_try: int
    interval: int
    retry_at: int


def failed(before: Failing | None, now: int, schedule: Schedule, *, insisted: bool = True) -> Failing:
    """What is to be remembered when a server has not answered `now`; `insisted` as for the schedule.

    While it is left alone anyway nothing changes: several processes may find out at the same time, and who insists on
    asking shall not make the others wait for longer.
    """
    if before is None:
        pause = schedule.after(0, insisted)
        return Failing(now, now, pause, now + pause)
    if now < before.retry_at:
        return before
    pause = schedule.after(before.interval, insisted)
    return Failing(before.since, now, pause, now + pause)


def heard_from(failing: Failing, now: int, at_least: int) -> Failing:
    """The same when the server has said something by itself: it may be tried at once, or `at_least` so long after the
    last time (it may hear us no better than before)."""
    return failing._replace(retry_at=min(failing.retry_at, max(now, failing.last_try + at_least)))
