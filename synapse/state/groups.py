"""How state groups are stored: each as a delta over an earlier group, so that chains stay short and copies few. Pure.

The groups that follow one another in a room are numbered 0, 1, 2…; number 0 is the whole state. Written in base 8,
group n is a delta over the group whose number is n with the last non-zero digit lessened by one: 0o1234 over 0o1233,
0o1230 over 0o1220, 0o1000 over 0. The chain from n down to 0 is then as long as the sum of n's digits, at most 50
below two million groups, and a change is stored once per digit at most. As a delta has every key once, a room whose
topic changes a million times stays small, and no further snapshot is ever needed.

`Line` remembers the changes since the last group that ended in k zeros, for each k, and therefore knows the next
delta without asking the database; where it does not remember, it says which group of the chain is the base.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

BASE: Final = 8
MAX_REMEMBERED: Final = 2_000
"""Entries that a level may remember; larger deltas are rare enough to be read again when they are due."""

StateKey = tuple[str, str]
Delta = dict[StateKey, str | None]
"""Event ids by state key; None: the entry is gone."""


def trailing_zeros(number: int) -> int:
    """How many zeros `number`, not 0, ends in, in base 8."""
    zeros = 0
    while number % BASE == 0:
        number //= BASE
        zeros += 1
    return zeros


def base_of(number: int) -> int:
    """The number of the group that group `number`, not 0, is a delta over."""
    return number - int(BASE ** trailing_zeros(number))


class Level:
    """The changes since group `group`."""

    __slots__ = ("changes", "group")

    def __init__(self, group: int, changes: Delta) -> None:
        self.group = group
        self.changes = changes


class Line:
    """The end of a room's line of groups: group `group` (an id), the `number`-th.

    `levels[k]` is what changed since the last group whose number ends in k zeros, None where that is not remembered.
    """

    __slots__ = ("group", "levels", "number")

    def __init__(self, group: int, number: int, levels: list[Level | None]) -> None:
        self.group = group
        self.number = number
        self.levels = levels

    @classmethod
    def first(cls, group: int) -> Line:
        """A new line that begins with a group which is the whole state."""
        return cls(group, 0, [Level(group, {})])

    @classmethod
    def unknown(cls, group: int, number: int) -> Line:
        """The line of a group of which only the number is at hand."""
        levels: list[Level | None] = [Level(group, {})]
        while BASE ** len(levels) <= number:
            levels.append(None)
        # All groups are, in a way, on the level of number 0.
        return cls(group, number, [*levels, None] if number else levels)

    def next_base(self) -> int | None:
        """The id of the group that the next one will be a delta over; None if that is not remembered."""
        level = self._level(trailing_zeros(self.number + 1))
        return None if level is None else level.group

    def remember(self, group: int, changes: Mapping[StateKey, str | None]) -> None:
        """Tell the line which group the next one has as its base, and all that changed since."""
        zeros = trailing_zeros(self.number + 1)
        while len(self.levels) <= zeros:
            self.levels.append(None)
        self.levels[zeros] = Level(group, dict(changes))

    def append(self, group: int, changes: Mapping[StateKey, str | None]) -> tuple[Line, int, Delta]:
        """The line with one group more; that group's base and its entries over it. The line itself is not changed.

        `changes` are those since the present end. `next_base` must not be None.
        """
        number = self.number + 1
        zeros = trailing_zeros(number)
        due = self._level(zeros)
        assert due is not None, "the base of the next group is not known"
        entries = {**due.changes, **changes}
        levels: list[Level | None] = [Level(group, {}) for _ in range(zeros + 1)]
        for index in range(zeros + 1, max(len(self.levels), zeros + 2)):
            levels.append(_grown(due if index >= len(self.levels) else self.levels[index], changes))
        return Line(group, number, levels), due.group, entries

    def _level(self, zeros: int) -> Level | None:
        return self.levels[zeros] if zeros < len(self.levels) else None


def _grown(level: Level | None, changes: Mapping[StateKey, str | None]) -> Level | None:
    if level is None or len(level.changes) + len(changes) > MAX_REMEMBERED:
        return None
    return Level(level.group, {**level.changes, **changes})
