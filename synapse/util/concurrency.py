"""Doing things at the same time, and one after another, in the reactor's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from synapse.util.clock import Clock

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def spawn(coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
    """Lets a coroutine run by itself. Whoever calls it looks after its failure."""
    return Deferred.fromCoroutine(coroutine)


async def pause(clock: Clock, seconds: float = 0.0) -> None:
    """Waits so long; without a time, until everybody else has had a turn of the reactor. Whoever is cancelled meanwhile
    leaves no timer behind."""
    passed: Deferred[None] = Deferred()
    timer = clock.callLater(seconds, passed.callback, None)
    try:
        await passed
    finally:
        if timer.active():
            timer.cancel()


async def gather(awaitables: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Runs coroutines at the same time; their results, in order. When all are done, the first failure is raised."""
    running = [Deferred.fromCoroutine(each) for each in awaitables]
    results: list[T] = []
    problem: Exception | None = None
    for each in running:
        try:
            results.append(await each)
        except Exception as error:
            problem = problem or error
    if problem is not None:
        raise problem
    return results


async def run_for(clock: Clock, seconds: float, works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs coroutines, which raise nothing, at the same time. Returns when all are done, or after so many seconds: then
    they go on by themselves."""
    done: Deferred[None] = Deferred()
    running = [Deferred.fromCoroutine(each) for each in works]
    left = len(running)

    def one_less(_: object) -> None:
        nonlocal left
        left -= 1
        if not left and not done.called:
            done.callback(None)

    timer = clock.callLater(seconds, lambda: None if done.called else done.callback(None))
    for each in running:
        each.addBoth(one_less)
    try:
        if running:
            await done
    finally:
        if timer.active():
            timer.cancel()


class QueueFull(Exception):
    """A bounded queue has no room."""


class Slots:
    """So many at a time, in the order of asking; and so many more who wait, or any number.

    async with slots.taken():
        ...
    """

    def __init__(self, size: int, waiting: float = inf) -> None:
        self._free = size
        self._most_waiting = waiting
        self._waiting: deque[Deferred[None]] = deque()
        self._passing = False

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Waits for a slot. Raises `QueueFull` where too many wait already."""
        await self.take()
        try:
            yield
        finally:
            self.give_back()

    async def take(self) -> None:
        """The same for who gives the slot back by itself. One who is cancelled while waiting leaves the queue."""
        if self._free > 0 and not self._waiting:  # a slot just given back is for who waits
            self._free -= 1
            return
        if len(self._waiting) >= self._most_waiting:
            raise QueueFull(f"{self._most_waiting} wait already")
        turn: Deferred[None] = Deferred()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def give_back(self) -> None:
        """Whoever has waited longest has the slot now."""
        self._free += 1
        if self._passing:
            return  # whoever is in the loop below goes on; one within another could grow as deep as the queue is long
        self._passing = True
        try:
            while self._free and self._waiting:
                turn = self._waiting.popleft()
                if not turn.called:
                    self._free -= 1
                    turn.callback(None)
        finally:
            self._passing = False


class SlotsByKey(Generic[K]):
    """Slots for each key, which are made when somebody asks and gone when nobody has or wants one any more.

    :param make: makes those of a key.
    """

    def __init__(self, make: Callable[[K], Slots]) -> None:
        self._make = make
        self._slots: dict[K, tuple[Slots, int]] = {}

    def __len__(self) -> int:
        return len(self._slots)

    @asynccontextmanager
    async def taken(self, key: K) -> AsyncIterator[None]:
        """Waits for a slot of the key. Raises `QueueFull` where too many wait already."""
        slots, users = self._slots.get(key) or (self._make(key), 0)
        self._slots[key] = (slots, users + 1)
        try:
            await slots.take()
            try:
                yield
            finally:
                slots.give_back()
        finally:
            slots, users = self._slots.pop(key)
            if users > 1:
                self._slots[key] = (slots, users - 1)


class Linearizer(Generic[K]):
    """One at a time for each key, in the order of asking.

    async with linearizer.queue(room_id):
        ...
    """

    def __init__(self) -> None:
        self._slots: SlotsByKey[K] = SlotsByKey(lambda _: Slots(1))

    def __len__(self) -> int:
        """For how many keys somebody has, or waits for, their turn."""
        return len(self._slots)

    def queue(self, key: K) -> AbstractAsyncContextManager[None]:
        """Waits for those who asked for the same key earlier. One who is cancelled while waiting leaves the queue."""
        return self._slots.taken(key)
