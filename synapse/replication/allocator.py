"""Handing out stream positions, in the one process that writes.

A position is announced when everything up to it is done: committed, or given up. Until then, rows of later positions
wait, so that whoever is told "the stream has reached N" finds all rows up to N in the database.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from twisted.internet.defer import Deferred

from synapse.api.identifiers import random_letters
from synapse.replication.streams import STREAMS, Rows, Stream
from synapse.storage.errors import DatabaseProblem, DatabaseUnavailable, OutcomeUnknown
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.storage.database import Database
    from synapse.storage.transaction import Transaction

logger = logging.getLogger(__name__)

T = TypeVar("T")
Row = TypeVar("Row")
Advance = Callable[[str, int, Rows], None]

RESERVE: Final = 100_000
"""Positions that may be handed out before the database has to be told again."""


class StreamIdAllocator:
    """Positions of one stream, each larger than the one before.

    :param current: the last position that is in use.
    """

    def __init__(self, current: int) -> None:
        self._last = current
        self._current = current
        self._open: deque[int] = deque()  # handed out and not done, or done behind one that is not; in order
        self._done: set[int] = set()

    @property
    def current_token(self) -> int:
        """The position up to which everything is done."""
        return self._current

    @property
    def last(self) -> int:
        """The last position that was handed out."""
        return self._last

    def next(self) -> int:
        """A new position. It must be `finish`ed, whatever becomes of it."""
        self._last += 1
        self._open.append(self._last)
        return self._last

    def next_many(self, count: int) -> list[int]:
        """So many new positions, one after another, or none."""
        return [self.next() for _ in range(count)]

    def finish(self, positions: Iterable[int]) -> int:
        """These positions are committed, or will stay empty; returns `current_token`."""
        self._done.update(positions)
        while self._open and self._open[0] in self._done:
            self._current = self._open.popleft()
            self._done.discard(self._current)
        return self._current

    def begin(self, current: int) -> None:
        """Goes on after this position; for an allocator that was made before it was known."""
        self._last = self._current = current

    def finish_up_to(self, position: int) -> int:
        """Everything up to this position is done; for a writer that does one thing after another."""
        return self.finish(open_ for open_ in list(self._open) if open_ <= position)


class StreamWriter(Generic[Row]):
    """The writing end of one stream.

    :param advance: is told the stream's name, the position it has reached, and the rows that brought it there.
    """

    def __init__(self, stream: Stream, allocator: StreamIdAllocator, advance: Advance, db: Database) -> None:
        self._stream = stream
        self._allocator = allocator
        self._advance = advance
        self._db = db
        self._ready: dict[int, Sequence[Row]] = {}
        self._waiting: dict[int, Deferred[None]] = {}

    async def append(self, write: Callable[[int], Awaitable[T]], rows: Callable[[T], Iterable[Row]]) -> T:
        """Calls `write` with a new position; when that is committed, and all before it, tells its rows.

        `rows` makes the stream's rows of what `write` returned. What `write` raises is raised here, and the position
        stays empty.
        """
        position = self._allocator.next()
        return await self._append([position], lambda: write(position), lambda result: {position: rows(result)})

    async def append_many(
        self,
        count: int,
        write: Callable[[Sequence[int]], Awaitable[T]],
        rows: Callable[[T], Mapping[int, Iterable[Row]]],
    ) -> T:
        """The same with so many positions, one after another, for what is written at once; `rows` by position."""
        positions = self._allocator.next_many(count)
        return await self._append(positions, lambda: write(positions), rows)

    async def _append(
        self,
        positions: Sequence[int],
        write: Callable[[], Awaitable[T]],
        rows: Callable[[T], Mapping[int, Iterable[Row]]],
    ) -> T:
        told: dict[int, list[Row]] = {}
        try:
            result = await write()
            told = {position: list(each) for position, each in rows(result).items()}
        except OutcomeUnknown:
            told = await self._as_stored(positions)
            raise
        finally:
            self._finish(positions, told)
        if self._allocator.current_token < positions[-1]:
            waiting = self._waiting[positions[-1]] = Deferred()
            await waiting
        return result

    def _finish(self, positions: Sequence[int], rows: Mapping[int, Sequence[Row]]) -> None:
        for position in positions:
            self._ready[position] = rows.get(position, ())
        before = self._allocator.current_token
        current = self._allocator.finish(positions)
        if current == before:
            return
        reached = sorted(each for each in self._ready if each <= current)
        told = [(each, row) for each in reached for row in self._ready.pop(each)]
        self._advance(self._stream.name, current, told)
        for each in reached:
            waiting = self._waiting.pop(each, None)
            if waiting is not None:
                waiting.callback(None)

    async def _as_stored(self, positions: Sequence[int]) -> dict[int, list[Row]]:
        """What was written after all, although the COMMIT got no answer."""
        assert self._stream.read is not None, "only streams in the database are written this way"
        first, last = positions[0], positions[-1]
        stored: dict[int, list[Row]] = {}
        try:
            read = await self._db.read("streams.as_stored", self._stream.read, first - 1, last, len(positions))
        except Exception as error:
            log_failure(
                logger,
                error,
                "What was written at the positions %d to %d of %s is not known",
                first,
                last,
                self._stream.name,
            )
            return stored
        for position, row in read:
            stored.setdefault(position, []).append(row)
        return stored


class Positions:
    """The allocators of all streams that are kept in the database.

    The highest position in a table is not the highest that was handed out: rows are deleted. So positions are
    reserved in the table `stream_positions`, many at a time, and after a crash the next process goes on behind the
    reservation. The reservation also names its owner: one that may have been superseded stops (`suspend`), and goes on
    only if nobody else has written since (`resume`).
    """

    def __init__(self, db: Database, reserve: int = RESERVE) -> None:
        self._db = db
        self._owner = random_letters(16)
        self._suspended = False
        self._reserve = reserve
        self._reserved: dict[str, int] = {}
        self._extending = False
        self.allocators: dict[str, StreamIdAllocator] = {
            stream.name: _Reserving(stream.name, self) for stream in STREAMS if stream.in_database
        }

    async def load(self) -> None:
        """Finds where each stream goes on; once, before anything is written."""
        found = await self._db.write("streams.load_positions", _load, self._reserve, self._owner)
        for name, (current, reserved) in found.items():
            self.allocators[name].begin(current)
            self._reserved[name] = reserved

    async def release(self) -> None:
        """Gives back what was reserved and not used; at the end, when nothing is written any more."""
        used = [(name, self.allocators[name].last, reserved) for name, reserved in self._reserved.items()]
        await self._db.write("streams.release_positions", _release, used)

    def suspend(self) -> None:
        """Hands out nothing from now on: another process may believe that it is the one which writes."""
        self._suspended = True

    async def resume(self) -> None:
        """Goes on handing out. Raises `DatabaseProblem` if another process has written in the meantime."""
        owners = await self._db.read("streams.owners", _owners)
        if owners != [self._owner]:
            raise DatabaseProblem("Another main process of this server has begun to write; this one may not go on.")
        self._suspended = False

    def check(self, name: str, last: int) -> None:
        """Positions up to `last` are to be handed out. Raises `DatabaseUnavailable` if suspended."""
        if self._suspended:
            raise DatabaseUnavailable("The main process has lost its lease, and writes nothing until it has it back.")
        if name not in self._reserved:
            raise RuntimeError(f"the stream {name} is not started yet, so nothing can be written to it")
        if last > self._reserved[name]:
            raise RuntimeError(f"the positions of the stream {name} are used up; the database took no reservation")

    def handed_out(self, name: str, last: int) -> None:
        """Positions up to `last` are in use: reserve more in good time."""
        if self._reserved[name] - last < self._reserve // 2 and not self._extending:
            self._extending = True
            Deferred.fromCoroutine(self._extend()).addErrback(
                lambda failure: logger.error("Stream positions could not be reserved", exc_info=failure.value)
            )

    async def _extend(self) -> None:
        try:
            wanted = {name: allocator.last + self._reserve for name, allocator in self.allocators.items()}
            await self._db.write_idempotent("streams.reserve_positions", _reserve, list(wanted.items()))
            self._reserved.update(wanted)
        finally:
            self._extending = False


class _Reserving(StreamIdAllocator):
    """An allocator that keeps within what is reserved."""

    def __init__(self, name: str, positions: Positions) -> None:
        super().__init__(0)
        self._name = name
        self._positions = positions

    def next(self) -> int:
        self._positions.check(self._name, self._last + 1)
        position = super().next()
        self._positions.handed_out(self._name, position)
        return position

    def next_many(self, count: int) -> list[int]:
        # What was handed out before another one is refused would stay open, and hold up the stream, for ever.
        self._positions.check(self._name, self._last + count)
        return super().next_many(count)


def _owners(txn: Transaction) -> list[str]:
    txn.execute("SELECT DISTINCT owner FROM stream_positions")
    return [owner for (owner,) in txn.rows()]


def _load(txn: Transaction, reserve: int, owner: str) -> dict[str, tuple[int, int]]:
    stored = [stream for stream in STREAMS if stream.in_database]
    current = "UNION ALL ".join(f"SELECT '{stream.name}', COALESCE(({stream.maximum}), 0) " for stream in stored)
    txn.execute(
        f"""
        WITH current (stream, highest) AS ({current}), known AS (
            SELECT stream, GREATEST(highest, COALESCE(reserved, 0)) AS position
            FROM current LEFT JOIN stream_positions USING (stream)
        ), saved AS (
            INSERT INTO stream_positions (stream, reserved, owner) SELECT stream, position + %s, %s FROM known
            ON CONFLICT (stream) DO UPDATE SET reserved = EXCLUDED.reserved, owner = EXCLUDED.owner
        )
        SELECT stream, position FROM known
        """,
        (reserve, owner),
    )
    return {name: (position, position + reserve) for name, position in txn.rows()}


def _reserve(txn: Transaction, wanted: list[tuple[str, int]]) -> None:
    txn.values(
        """
        UPDATE stream_positions SET reserved = GREATEST(stream_positions.reserved, wanted.reserved)
        FROM (VALUES %s) AS wanted (stream, reserved) WHERE stream_positions.stream = wanted.stream
        """,
        wanted,
    )


def _release(txn: Transaction, used: list[tuple[str, int, int]]) -> None:
    # Only what is still ours: another main process may have taken over meanwhile.
    txn.values(
        """
        UPDATE stream_positions SET reserved = used.last FROM (VALUES %s) AS used (stream, last, ours)
        WHERE stream_positions.stream = used.stream AND stream_positions.reserved = used.ours
        """,
        used,
    )
