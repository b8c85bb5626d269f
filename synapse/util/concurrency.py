"""Doing things at the same time, and one after another, in the reactor's thread."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable, Iterable
from contextlib import asynccontextmanager
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
    if running:
        await done
    if timer.active():
        timer.cancel()


class Linearizer(Generic[K]):
    """One at a time for each key, in the order of asking.

    async with linearizer.queue(room_id):
        ...
    """

    def __init__(self) -> None:
        self._waiting: dict[K, deque[Deferred[None]]] = {}
        self._passing: dict[K, bool] = {}  # keys whose turns are being handed on; whether whoever has one is done

    @asynccontextmanager
    async def queue(self, key: K) -> AsyncIterator[None]:
        """Waits for those who asked for the same key earlier. One who is cancelled while waiting leaves the queue."""
        queue = self._waiting.get(key)
        if queue is None:
            self._waiting[key] = deque()
        else:
            turn: Deferred[None] = Deferred()
            queue.append(turn)
            try:
                await turn
            except BaseException:
                if turn in queue:
                    queue.remove(turn)
                raise
        try:
            yield
        finally:
            self._next(key)

    def _next(self, key: K) -> None:
        if key in self._passing:
            self._passing[key] = True
            return  # whoever is in the loop below goes on; one within another could grow as deep as the queue is long
        queue = self._waiting[key]
        self._passing[key] = True
        try:
            while self._passing[key] and queue:
                turn = queue.popleft()
                if not turn.called:
                    self._passing[key] = False
                    turn.callback(None)
            if self._passing[key]:
                del self._waiting[key]
        finally:
            del self._passing[key]


class QueueFull(Exception):
    """A bounded queue has no room."""


class Slots:
    """So many at a time, and so many more who wait for their turn.

    async with slots.taken():
        ...
    """

    def __init__(self, size: int, waiting: int) -> None:
        self._free = size
        self._most_waiting = waiting
        self._waiting: deque[Deferred[None]] = deque()
        self._passing = False

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Waits for a slot. Raises `QueueFull` where too many wait already."""
        if self._free > 0:
            self._free -= 1
        else:
            await self._turn()
        try:
            yield
        finally:
            self._pass_on()

    async def _turn(self) -> None:
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

    def _pass_on(self) -> None:
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

    @asynccontextmanager
    async def taken(self, key: K) -> AsyncIterator[None]:
        """Waits for a slot of the key. Raises `QueueFull` where too many wait already."""
        slots, users = self._slots.get(key) or (self._make(key), 0)
        self._slots[key] = (slots, users + 1)
        try:
            async with slots.taken():
                yield
        finally:
            slots, users = self._slots.pop(key)
            if users > 1:
                self._slots[key] = (slots, users - 1)
