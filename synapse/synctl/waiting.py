"""Waiting for started processes: each either says that it serves, or ends, or takes too long."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from synapse.synctl.launch import Child

Say = Callable[[str], None]

# What a process is busy with is said once it takes a while.
_PATIENCE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Failure:
    """A process that did not come to serve."""

    child: Child
    reason: str  # follows its name in a sentence

    def report(self, say: Say) -> None:
        say(f"{self.child.process.name} {self.reason}.")
        lines = self.child.tail.lines()
        if lines:
            say("  The last lines of its log:")
        for line in lines:
            say(f"    {line}")


def wait_until_serving(children: Sequence[Child], seconds: float, say: Say) -> list[Failure]:
    """Wait until all serve; says which do, and returns those that do not."""
    return _Waiting(children, say).until(lambda it: it.ready, seconds, "serving")


def wait_until_standing_by(child: Child, seconds: float, say: Say) -> list[Failure]:
    """Wait until a process holds its ports beside the one that it replaces (or serves already)."""
    return _Waiting([child], say, quiet=True).until(lambda it: it.standby or it.ready, seconds, "standing by")


def wait_for_early_ends(children: Sequence[Child], seconds: float, say: Say) -> list[Failure]:
    """Give processes that cannot serve yet a moment to find mistakes; returns those that ended."""
    waiting = _Waiting(children, say)
    return [failure for failure in waiting.until(lambda it: it.ready, seconds, "serving") if failure.child.gone]


class _Waiting:
    def __init__(self, children: Iterable[Child], say: Say, *, quiet: bool = False) -> None:
        self._children = list(children)
        self._say = say
        self._quiet = quiet
        self._failures: list[Failure] = []
        self._started = time.monotonic()

    def until(self, reached: Callable[[Child], bool], seconds: float, what: str) -> list[Failure]:
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                if reached(child):
                    continue
                selector.register(child.channel, selectors.EVENT_READ, child)
                selector.register(child.pidfd, selectors.EVENT_READ, child)
            while selector.get_map():
                left = self._started + seconds - time.monotonic()
                events = selector.select(max(left, 0))
                if not events and left <= 0:
                    self._give_up(selector, seconds, what)
                for child in {key.data.pid: key.data for key, _ in events}.values():
                    if self._look_at(child, reached, what):
                        selector.unregister(child.channel)
                        selector.unregister(child.pidfd)
        return self._failures

    def _look_at(self, child: Child, reached: Callable[[Child], bool], what: str) -> bool:
        """Take in what a process says; True if there is nothing more to wait for."""
        before = child.status
        child.read_news()
        elapsed = time.monotonic() - self._started
        if child.status != before and elapsed > _PATIENCE_SECONDS and not reached(child) and not self._quiet:
            self._say(f"  {child.process.name}: {child.status}")
        ended = child.ended()
        if ended is not None:
            self._failures.append(Failure(child, f"{ended} without {what}"))
            return True
        if reached(child) and not self._quiet:
            self._say(f"  {child.process.name} is {what} (pid {child.pid}, after {elapsed:.1f} s)")
        return reached(child)

    def _give_up(self, selector: selectors.BaseSelector, seconds: float, what: str) -> None:
        late = {key.data.pid: key.data for key in selector.get_map().values()}
        for child in late.values():
            reason = f"(pid {child.pid}) is still not {what} after {seconds:g} s and has been left running"
            self._failures.append(Failure(child, reason))
            selector.unregister(child.channel)
            selector.unregister(child.pidfd)
