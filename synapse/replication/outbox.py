"""Commands of a worker that must reach the main process: kept until it has said that it heard them.

Each batch that is sent is followed by a `SYNC` of a number; the main process says it back when it has carried out all
before. What was sent on a connection that ended without that is sent again on the next one, so commands may be
heard twice: all of them are such that this does no harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred

from synapse.replication.protocol import Command, InvalidateCache, Sync

MOST: Final = 10_000
"""Commands that are kept while the main process is away; beyond that, see `Outbox.add`."""


class _Kept(NamedTuple):
    command: Command
    done: Deferred[None]


class Outbox:
    """What has to be sent, and what was sent and is not confirmed."""

    def __init__(self) -> None:
        self._waiting: deque[_Kept] = deque()
        self._sent: deque[tuple[int, list[_Kept]]] = deque()
        self._number = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting) + sum(len(batch) for _, batch in self._sent)

    def add(self, command: Command) -> Deferred[None]:
        """Keeps a command; what is returned fires when it was heard.

        When there are far too many, because the main process has been away for long, the oldest that is not about
        caches is given up: where a device was seen is the only thing that comes in such numbers. Caches are never
        given up.
        """
        kept = _Kept(command, Deferred())
        self._waiting.append(kept)
        if len(self._waiting) > MOST:
            self._give_up_one()
        return kept.done

    def take(self) -> Iterator[Command]:
        """What has to be sent now."""
        if not self._waiting:
            return
        batch = list(self._waiting)
        self._waiting.clear()
        self._number += 1
        self._sent.append((self._number, batch))
        for kept in batch:
            yield kept.command
        yield Sync(self._number)

    def confirmed(self, number: int) -> None:
        """The main process has heard everything up to that number."""
        while self._sent and self._sent[0][0] <= number:
            for kept in self._sent.popleft()[1]:
                kept.done.callback(None)

    def connected(self) -> None:
        """A new connection: what was not confirmed on the last one is to be sent again."""
        while self._sent:
            self._waiting.extendleft(reversed(self._sent.pop()[1]))

    def _give_up_one(self) -> None:
        for index, kept in enumerate(self._waiting):
            if not isinstance(kept.command, InvalidateCache):
                del self._waiting[index]
                self.dropped += 1
                kept.done.callback(None)
                return
