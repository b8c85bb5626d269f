"""What a handler of the main process needs of a stream: positions for what it writes, and telling everybody of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class StreamWriter(Protocol):
    """The writing end of one stream; it exists in the main process only."""

    async def append(self, write: Callable[[int], Awaitable[T]], rows: Callable[[T], Iterable[Any]]) -> T:
        """Calls `write` with a new position; when that is committed, and all before it, tells its rows.

        `rows` makes the stream's rows of what `write` returned. What `write` raises is raised here, and the position
        stays empty.
        """

    async def append_many(
        self,
        count: int,
        write: Callable[[Sequence[int]], Awaitable[T]],
        rows: Callable[[T], Mapping[int, Iterable[Any]]],
    ) -> T:
        """The same with so many positions, one after another, for what is written at once; `rows` by position."""
