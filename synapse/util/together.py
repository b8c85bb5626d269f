"""Questions that many ask at the same time, asked once for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from twisted.internet.defer import Deferred

from synapse.util.concurrency import spawn

if TYPE_CHECKING:
    from synapse.util.clock import Clock

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")
R = TypeVar("R")


class Together(Generic[K, A, R]):
    """Collects what is asked within a turn of the reactor, and while the question before is under way.

    :param ask: answers all; `{key: argument}` to `{key: answer}`. A key that is missing from the answers has `default`.
    :param most: keys that are asked about at once.
    """

    def __init__(
        self,
        clock: Clock,
        ask: Callable[[Mapping[K, A]], Awaitable[Mapping[K, R]]],
        default: Callable[[], R],
        most: int = 1_000,
    ) -> None:
        self._clock = clock
        self._ask = ask
        self._default = default
        self._most = most
        self._waiting: dict[K, tuple[A, list[Deferred[R]]]] = {}
        self._busy = False

    async def __call__(self, key: K, argument: A) -> R:
        """The answer for one key. Who asks for the same key at the same time has the same argument."""
        waiter: Deferred[R] = Deferred()
        self._waiting.setdefault(key, (argument, []))[1].append(waiter)
        if not self._busy:
            self._busy = True
            self._clock.callLater(0, lambda: spawn(self._run()))
        return await waiter

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = {key: self._waiting.pop(key) for key in list(self._waiting)[: self._most]}
                try:
                    answers = await self._ask({key: argument for key, (argument, _) in batch.items()})
                except Exception as error:
                    _tell(batch, error)
                else:
                    for key, (_, waiters) in batch.items():
                        answer = answers[key] if key in answers else self._default()
                        for waiter in waiters:
                            waiter.callback(answer)
        finally:
            self._busy = False


def _tell(batch: Mapping[Any, tuple[Any, list[Deferred[Any]]]], error: Exception) -> None:
    for _, waiters in batch.values():
        for waiter in waiters:
            waiter.errback(error)
