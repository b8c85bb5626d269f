"""The writing ends of all streams, in the main process; and what stands in their place in a worker.

    streams = MainStreams(db, notifier, clock)
    await streams.start()                       # once the lease `main` is held
    streams.writer("account_data")              # for a stream in the database: `append(write, rows)`
    streams.memory("typing").tell((room_id, user_ids))
    streams.positions.allocators["events"], streams.events_written(position, rows)   # for the writer of events

A worker has `NoStreams`, so that services can be built alike everywhere; what writes goes through calls to the main
process anyway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from synapse.replication.allocator import Positions, StreamWriter
from synapse.replication.streams import BY_NAME, STREAMS, Rows

if TYPE_CHECKING:
    from synapse.replication.notifier import Notifier
    from synapse.storage.database import Database
    from synapse.util.clock import Clock

T = TypeVar("T")


class MemoryWriter:
    """The writing end of a stream that is kept in memory.

    Its positions are milliseconds since the epoch, or one more than the last: so they go on across restarts. Of rows
    that are pairs of a key and its present value, the last of each key makes up the snapshot; no value, no row.
    """

    def __init__(self, name: str, notifier: Notifier, clock: Clock) -> None:
        self._name = name
        self._notifier = notifier
        self._clock = clock
        self._now: dict[Any, Any] | None = {} if BY_NAME[name].has_snapshot else None

    def next_position(self) -> int:
        return max(int(self._clock.seconds() * 1000), self._notifier.position(self._name) + 1)

    def tell(self, *rows: Any) -> int:
        """Tells everybody of rows, at a new position, which is returned."""
        position = self.next_position()
        if self._now is not None:
            for row in rows:
                self._now.pop(row[0], None)
                if row[1]:
                    self._now[row[0]] = row
        self._notifier.on_advance(self._name, position, [(position, row) for row in rows])
        return position

    def snapshot(self) -> list[Any]:
        """The rows that are true now."""
        return list((self._now or {}).values())


class MainStreams:
    """All streams, as their writer has them."""

    def __init__(self, db: Database, notifier: Notifier, clock: Clock) -> None:
        self._db = db
        self._notifier = notifier
        self._memory = {each.name: MemoryWriter(each.name, notifier, clock) for each in STREAMS if not each.in_database}
        self.positions = Positions(db)
        self._writers: dict[str, StreamWriter[Any]] = {}

    async def start(self) -> None:
        """Finds where each stream goes on. Before that, nothing can be written."""
        await self.positions.load()
        for name, allocator in self.positions.allocators.items():
            self._notifier.start(name, allocator.current_token)
        for name, memory in self._memory.items():
            self._notifier.start(name, memory.next_position())

    async def stop(self) -> None:
        """Gives back unused positions; nothing may be written any more."""
        await self.positions.release()

    def writer(self, name: str) -> StreamWriter[Any]:
        """The writing end of a stream in the database: one for all who write it, since it tells in order what they have
        written at the same time.
        """
        writer = self._writers.get(name)
        if writer is None:
            allocator = self.positions.allocators[name]
            writer = StreamWriter(BY_NAME[name], allocator, self._notifier.on_advance, self._db)
            self._writers[name] = writer
        return writer

    def memory(self, name: str) -> MemoryWriter:
        """The writing end of a stream in memory."""
        return self._memory[name]

    def snapshots(self) -> dict[str, Callable[[], list[Any]]]:
        """For the replication server: what is true now of each stream of which that is told."""
        return {name: memory.snapshot for name, memory in self._memory.items() if BY_NAME[name].has_snapshot}

    def events_written(self, position: int, rows: Rows) -> None:
        """The writer of events, which does one batch after another, has committed everything up to `position`."""
        allocator = self.positions.allocators["events"]
        self._notifier.on_advance("events", allocator.finish_up_to(position), rows)


class NoStreams:
    """A worker's: it writes no stream."""

    def writer(self, name: str) -> NoWriter:
        return NoWriter(BY_NAME[name].name)

    memory = writer


class NoWriter:
    """Refuses to write: this process is not the main process."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def append(self, write: Callable[[int], Awaitable[T]], rows: Callable[[T], Iterable[Any]]) -> T:
        self.tell()

    async def append_many(
        self,
        count: int,
        write: Callable[[Sequence[int]], Awaitable[T]],
        rows: Callable[[T], Mapping[int, Iterable[Any]]],
    ) -> T:
        self.tell()

    def tell(self, *rows: Any) -> NoReturn:
        raise RuntimeError(f"only the main process writes the stream {self._name}")
