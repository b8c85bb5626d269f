"""Whose turn it is: servers that are to be sent something, by what it is about.

The causes take turns (a cause is a room, mostly), each with one server at a time. So a message in a room with thousands
of servers does not keep one between two servers waiting for more than a few transactions. Pure.
"""

from __future__ import annotations

from collections import OrderedDict, deque


class RoundRobin:
    """Names, by cause. A name may wait for several causes; `take` gives it once, for the first whose turn it is."""

    def __init__(self) -> None:
        self._causes: OrderedDict[str, deque[str]] = OrderedDict()
        self._waiting: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, name: str, cause: str) -> None:
        """The name waits for a turn, behind others of the same cause."""
        causes = self._waiting.setdefault(name, set())
        if cause not in causes:
            causes.add(cause)
            self._causes.setdefault(cause, deque()).append(name)

    def take(self) -> str | None:
        """The next name; None if nobody waits."""
        while self._causes:
            cause, names = next(iter(self._causes.items()))
            name = self._first(names, cause)
            if names:
                self._causes.move_to_end(cause)
            else:
                del self._causes[cause]
            if name is not None:
                del self._waiting[name]
                return name
        return None

    def _first(self, names: deque[str], cause: str) -> str | None:
        while names:
            name = names.popleft()
            if cause in self._waiting.get(name, ()):
                return name
            # It had its turn for another cause.
        return None
