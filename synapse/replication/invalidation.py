"""Having every process forget what it has cached.

Services call `invalidate(cache, keys)`, in whichever process. This process forgets at once; the main process puts it
on the stream `caches`, which every worker follows; a worker's invalidations travel as commands that are repeated
until they are confirmed, also while the main process is away. A process that may have missed rows of the stream
forgets all caches that it keeps right by it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Final

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredList

from synapse.replication.protocol import InvalidateCache

if TYPE_CHECKING:
    from synapse.replication.client import ReplicationClient
    from synapse.replication.notifier import Notifier
    from synapse.replication.streams import Rows
    from synapse.replication.writing import MemoryWriter
    from synapse.util.caches import Caches
    from synapse.util.clock import Clock

Key = str | tuple[str, ...]
Invalidate = Callable[[str, Iterable[Key | None]], Awaitable[None]]

REDACTED: Final = "redacted"
"""No cache: its keys are a room and an event in it that a redaction of the past has come for. The events stream says
nothing of it, and whoever remembers the event does not forget it by its id alone."""

CONFIRM_SECONDS: Final = 2.0
"""How long a worker waits for the main process to confirm; after that it goes on, and the command is repeated."""


def follow(notifier: Notifier, caches: Caches) -> None:
    """Has the stream `caches` take effect in this process."""

    def forget(position: int, rows: Rows) -> None:
        for _, (name, key) in rows:
            caches.invalidate(name, tuple(key) if isinstance(key, list) else key)

    notifier.subscribe("caches", forget, lambda position: caches.forget_shared())


class MainInvalidator:
    """In the main process: straight onto the stream, which this process follows like all others."""

    def __init__(self, stream: MemoryWriter) -> None:
        self._stream = stream

    async def __call__(self, cache: str, keys: Iterable[Key | None]) -> None:
        """Has every process forget these keys of the cache (None: all of it); this one has when it returns."""
        self.tell(cache, *keys)

    def tell(self, cache: str, *keys: Key | None) -> None:
        """The same at once; None forgets the whole cache."""
        if keys:
            self._stream.tell(*((cache, key) for key in keys))


class WorkerInvalidator:
    """In a worker: through the main process."""

    def __init__(self, client: ReplicationClient, caches: Caches, clock: Clock) -> None:
        self._client = client
        self._caches = caches
        self._clock = clock

    async def __call__(self, cache: str, keys: Iterable[Key | None]) -> None:
        """Has every process forget these keys of the cache (None: all of it);

        This one at once, the others when the main process is there.
        """
        confirmed: list[Deferred[None]] = []
        for key in keys:
            self._caches.invalidate(cache, key)
            command = InvalidateCache(msgspec.json.encode([cache, key]).decode())
            confirmed.append(self._client.deliver(command))
        if confirmed:
            await self._wait(confirmed)

    async def _wait(self, confirmed: list[Deferred[None]]) -> None:
        # The commands' own Deferreds are not cancelled: they belong to the outbox, which goes on trying.
        done: Deferred[None] = Deferred()
        DeferredList(confirmed).addCallback(lambda _: None if done.called else done.callback(None))
        timer = self._clock.callLater(CONFIRM_SECONDS, lambda: None if done.called else done.callback(None))
        try:
            await done
        except CancelledError:
            return
        finally:
            if timer.active():
                timer.cancel()
