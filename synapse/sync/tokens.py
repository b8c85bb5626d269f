"""Tokens: points in time that clients hand back to us.

A *stream token* (`next_batch`, `since`) is one position for each stream of the stream table, written
`s<events>_<typing>_…`; it means "everything up to and including these positions has been seen". Fields that are
missing count as 0, so tokens of older releases stay readable when a stream is added at the end.

A *room token* (`prev_batch`, `from`, `to`, `end`) is a point in the timeline of one room. Its short form `s<events>`
is a position in the order of arrival. Its long form `t<depth>-<stream>` is a point in the order in which history is
shown, just after the event of that depth and stream ordering. Paging back from a point of arrival shows exactly the
events that had arrived by then, in the order of history; so that the following pages know it too, they carry it
along: `t<depth>-<stream>~<events>`, and `t<depth>-<stream>.<events>` when paging onwards. Without that, an event of a
fork that arrived before the point but belongs after it would be in no page.

History that was fetched to fill a gap counts as arrived where it was missing, just before the event behind the gap.

Tokens are numbers only, so they mean the same on every process and after every restart. Nothing here asks a database.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from synapse.api.errors import MatrixError, invalid_param

_MAX: Final = 2**62
_STREAM: Final = re.compile(r"s(-?\d{1,19}(?:_\d{1,19})*)", re.ASCII)
_TOPOLOGICAL: Final = re.compile(r"t(\d{1,19})-(-?\d{1,19})(?:~(-?\d{1,19})|\.(-?\d{1,19}))?", re.ASCII)


class StreamToken(NamedTuple):
    """A position of every stream, in the order of the stream table."""

    events: int = 0
    typing: int = 0
    presence: int = 0
    receipts: int = 0
    account_data: int = 0
    to_device: int = 0
    device_lists: int = 0
    push_rules: int = 0

    def __str__(self) -> str:
        return "s" + "_".join(map(str, self))

    @classmethod
    def parse(cls, text: str, parameter: str = "since") -> StreamToken:
        """Raises M_INVALID_PARAM, which names the request's parameter."""
        match = _STREAM.fullmatch(text)
        positions = [int(part) for part in match[1].split("_")] if match else []
        if not match or len(positions) > len(cls._fields) or positions[0] < 0 or max(positions) > _MAX:
            raise _bad_token(parameter)
        return cls(*positions)

    def at_most(self, other: StreamToken) -> StreamToken:
        """Field by field the smaller: a token of the future counts as now."""
        return StreamToken(*map(min, self, other))

    def covers(self, other: StreamToken) -> bool:
        """Whether each field is at least that of `other`."""
        return all(mine >= theirs for mine, theirs in zip(self, other, strict=True))


class RoomToken(NamedTuple):
    """A point in a room's timeline.

    `stream` with `depth` None is a point in the order of arrival. With a depth it is one in the order of history, and
    pages back from here show only what arrived at `until` or before, pages onwards only what arrived after `after`.
    """

    depth: int | None
    stream: int
    until: int | None = None
    after: int | None = None

    def __str__(self) -> str:
        if self.depth is None:
            return f"s{self.stream}"
        bound = f"~{self.until}" if self.until is not None else f".{self.after}" if self.after is not None else ""
        return f"t{self.depth}-{self.stream}{bound}"

    @classmethod
    def parse(cls, text: str, parameter: str = "from") -> RoomToken:
        """Accepts stream tokens as well; raises M_INVALID_PARAM, which names the request's parameter."""
        if match := _TOPOLOGICAL.fullmatch(text):
            numbers = [None if part is None else int(part) for part in match.groups()]
            if all(number is None or abs(number) <= _MAX for number in numbers):
                depth, stream, until, after = numbers
                assert stream is not None
                return cls(depth, stream, until, after)
        elif match := _STREAM.fullmatch(text):
            stream = int(match[1].split("_")[0])
            if abs(stream) <= _MAX:
                return cls(None, stream)
        raise _bad_token(parameter)


def _bad_token(parameter: str) -> MatrixError:
    return invalid_param(
        f"The parameter '{parameter}' is not a token that this server has given out; "
        "leave it out to start from the present."
    )
