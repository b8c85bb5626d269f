"""What an update does to a list of devices that is kept: it comes next, or is known already, or something is missing.

Pure: values in, values out. The list was fetched as of a stream id, and has taken in updates with ids of their own
since. An update says which came before it; if one of those is not known here, there is a gap, and the list has to be
fetched anew. So it has where the update is the first of a sequence: whatever was before, it does not tell.

Server-server API, "Device Management".
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, NamedTuple

MAX_APPLIED: Final = 20
"""Ids of updates that are remembered one by one; earlier ones count as part of what was fetched."""

NEVER: Final = -1
"""In place of the id of a list that never was fetched."""


class Kept(NamedTuple):
    """A list as it is kept: fetched as of `base_id`, with updates of the ids `applied` since. `stale`: it has a gap."""

    base_id: int
    applied: tuple[int, ...] = ()
    stale: bool = False

    @property
    def latest(self) -> int:
        """The highest stream id that the list includes."""
        return max(self.base_id, *self.applied) if self.applied else self.base_id

    def knows(self, stream_id: int) -> bool:
        """Whether what that id stands for is in the list."""
        return stream_id <= self.base_id or stream_id in self.applied

    def with_update(self, stream_id: int) -> Kept:
        """The list with one more update."""
        applied = sorted((*self.applied, stream_id))
        base_id = max([self.base_id, *applied[:-MAX_APPLIED]])
        return Kept(base_id, tuple(each for each in applied[-MAX_APPLIED:] if each > base_id), self.stale)


class Verdict(enum.Enum):
    """What to do about an update."""

    NEXT = "next"
    KNOWN = "known"
    GAP = "gap"


def judge(kept: Kept | None, stream_id: int, prev_ids: Sequence[int]) -> Verdict:
    """`kept` is None where there is no list."""
    if kept is None or kept.stale or kept.base_id == NEVER:
        return Verdict.GAP
    if kept.knows(stream_id):
        return Verdict.KNOWN
    if prev_ids and all(kept.knows(each) for each in prev_ids):
        return Verdict.NEXT
    return Verdict.GAP
