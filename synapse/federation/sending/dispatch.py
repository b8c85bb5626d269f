"""Has transactions sent: to many servers at once, to each one after another, and to all in turn.

Servers that answer have slots of their own, so that those which hang, or have not been tried yet, do not hold them up.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from synapse.federation.errors import FederationError, Refused, Unreachable
from synapse.federation.sending.composing import Extras
from synapse.federation.sending.fairness import Turns
from synapse.federation.sending.queue import Contents, Queue
from synapse.metrics import table
from synapse.storage.federation_queue import Fenced, Progress, Told
from synapse.util.concurrency import spawn
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.federation.client import Retries
    from synapse.federation.sending.audience import Outgoing
    from synapse.federation.sending.composing import Composer, Draft
    from synapse.federation.sending.edus import Ephemeral, Taken
    from synapse.federation.sending.ledger import Ledger
    from synapse.federation.sending.loading import Loading
    from synapse.storage.federation_queue import Standing
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

AT_ONCE: Final = 100  # transactions to servers that answer
UNPROVEN_AT_ONCE: Final = 50  # besides, to those of which that is not known, or which take long
SLOW_SECONDS: Final = 5.0
PER_TURN: Final = 10  # transactions that are begun in one turn of the reactor
WRONG: Final = frozenset({400, 413})
"""Statuses by which a server says that it is the transaction that it does not like."""
FIRST_PAUSE: Final = 0.5  # seconds; each is twice the one before
MAX_PAUSE: Final = 86_400.0

Send = Callable[[str, str, bytes], Awaitable[dict[str, dict[str, Any]]]]
"""(destination, transaction id, body): what the server says of each event. Raises FederationError."""


class Peers(Protocol):
    """Which servers do not answer, as all processes know it. Times are milliseconds."""

    async def retry_at(self, destination: str) -> int | None: ...

    async def ready(self, destinations: Iterable[str]) -> list[str]: ...

    async def failed(self, destination: str) -> None: ...


class Dispatch:
    """The queues of all servers for which there is something, and what is under way to them.

    :param retries: how often a server is tried before all processes leave it alone, and the longest pause in between.
    """

    def __init__(
        self,
        composer: Composer,
        loading: Loading,
        send: Send,
        peers: Peers,
        clock: Clock,
        retries: Retries,
    ) -> None:
        self._composer = composer
        self._send = send
        self._peers = peers
        self._clock = clock
        self._loading = loading
        self._patience = retries
        self._ledger: Ledger | None = None  # None: the duty is another's
        self.queues: dict[str, Queue] = {}
        self._extras: dict[str, Extras] = {}
        self._taken: dict[str, Taken] = {}  # what transactions hold that are to be sent again
        self._proven: set[str] = set()
        self._known: set[str] = set()  # servers of which it was asked whether they answer
        self._turns = {True: Turns(), False: Turns()}
        self._busy = {True: 0, False: 0}
        self._retries: dict[str, Any] = {}
        self._pumping = False

    # -- the duty ----------------------------------------------------------------------------------------------------

    def begin(self, ledger: Ledger, standings: Iterable[Standing]) -> None:
        """The duty is ours; there is this to send."""
        self._ledger = ledger
        for each in standings:
            queue = self._queue(each.destination, each.acked)
            queue.missed = each.missed
            queue.behind = each.newest > each.acked
            queue.newest = each.newest
            queue.away = True
            if each.sending_until is not None and each.sending_txn is not None and each.sending_until > each.acked:
                queue.resume = (each.sending_until, each.sending_txn)
        self._wake(list(self.queues), "")

    def end(self) -> None:
        """Sends nothing more. What is under way to servers is not waited for."""
        self._ledger = None
        for timer in self._retries.values():
            if timer.active():
                timer.cancel()
        self._retries.clear()
        self.queues.clear()
        self._extras.clear()
        self._taken.clear()
        self._proven.clear()
        self._known.clear()
        self._turns = {True: Turns(), False: Turns()}
        self._busy = {True: 0, False: 0}

    # -- news --------------------------------------------------------------------------------------------------------

    def deliver(self, events: Sequence[Outgoing]) -> None:
        """Events that are on record."""
        for event in events:
            for name in event.audience.servers:
                self._queue(name, event.position - 1).offer(event.position)
            self._wake(event.audience.servers, event.room_id)

    def tell(self, destinations: Collection[str], cause: str, what: Callable[[Ephemeral], None]) -> None:
        """Something that is over soon."""
        if self._ledger is None:
            return
        for name in destinations:
            what(self._extra(name).ephemeral)
        self._wake(destinations, cause)

    def outbox_news(self, outbox: str, destinations: Collection[str]) -> None:
        """An outbox has something for these servers."""
        if self._ledger is None:
            return
        for name in destinations:
            self._extra(name).outboxes.add(outbox)
        self._wake(destinations, outbox)

    def missed(self, destinations: Iterable[str]) -> None:
        """These servers have missed events, which are no longer in the log."""
        for name in destinations:
            self._queue(name, 0).missed = True
        self._wake(list(destinations), "")

    def heard(self, destination: str | None) -> None:
        """The standing of a server has changed, or perhaps of all."""
        names = [destination] if destination is not None else list(self.queues)
        waiting = [name for name in names if (queue := self.queues.get(name)) and queue.retry_at is not None]
        if waiting and self._ledger is not None:
            spawn(self._look_again(waiting)).addErrback(_log)

    # -- whose turn it is --------------------------------------------------------------------------------------------

    def _queue(self, name: str, acked: int) -> Queue:
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name, acked)
        return queue

    def _extra(self, name: str) -> Extras:
        extras = self._extras.get(name)
        if extras is None:
            extras = self._extras[name] = Extras()
        self._queue(name, 0).extras = True
        return extras

    def _wake(self, names: Collection[str], cause: str) -> None:
        new = [name for name in names if name not in self._known]
        if new:
            self._known.update(new)
            spawn(self._introduce(new, cause)).addErrback(_log)
        now = self._clock.seconds()
        for name in names if not new else set(names).difference(new):
            self._ready(self.queues[name], cause, now)
        self._pump_soon()

    def _ready(self, queue: Queue, cause: str, now: float) -> None:
        if queue.may_try(now):
            self._turns[queue.name in self._proven].add(queue.name, cause)

    async def _introduce(self, names: list[str], cause: str) -> None:
        """Finds out which servers are left alone just now: asked once for all of them."""
        ledger = self._ledger
        try:
            ready = set(await self._peers.ready(names))
        except Exception as error:
            log_failure(logger, error, "Which servers answer could not be found out; they are tried")
            ready = set(names)
        for name in names:
            if ledger is not self._ledger:
                return
            queue = self.queues.get(name)
            if queue is None or queue.sending:
                continue
            retry_at = None if name in ready else await self._peers.retry_at(name)
            now = self._clock.seconds()
            if retry_at is not None:
                queue.leave_alone(now, retry_at / 1000)
                self._retry_later(queue)
            self._ready(queue, cause, now)
        self._pump_soon()

    async def _look_again(self, names: list[str]) -> None:
        ledger = self._ledger
        ready = set(await self._peers.ready(names))
        if ledger is not self._ledger:
            return
        for name in names:
            queue = self.queues.get(name)
            if queue is not None and name in ready and not queue.sending:
                queue.heard()
                self._ready(queue, "", self._clock.seconds())
        self._pump_soon()

    def _retry_later(self, queue: Queue) -> None:
        timer = self._retries.pop(queue.name, None)
        if timer is not None and timer.active():
            timer.cancel()
        if queue.retry_at is not None:
            delay = max(0.0, queue.retry_at - self._clock.seconds())
            self._retries[queue.name] = self._clock.callLater(delay, self._retry, queue)

    def _retry(self, queue: Queue) -> None:
        self._retries.pop(queue.name, None)
        if self.queues.get(queue.name) is queue:
            queue.heard()
            self._ready(queue, "", self._clock.seconds())
            self._pump_soon()

    def _pump_soon(self) -> None:
        if not self._pumping and (self._turns[True] or self._turns[False]):
            self._pumping = True
            self._clock.callLater(0, self._pump)

    def _pump(self) -> None:
        self._pumping = False
        begun = 0
        for proven, slots in ((True, AT_ONCE), (False, UNPROVEN_AT_ONCE)):
            while self._busy[proven] < slots and begun < PER_TURN and (name := self._turns[proven].take()) is not None:
                queue = self.queues.get(name)
                if queue is None or not queue.may_try(self._clock.seconds()):
                    continue
                begun += 1
                self._busy[proven] += 1
                queue.sending = True
                spawn(self._one(queue, proven)).addErrback(_log)
        if begun >= PER_TURN:
            self._pump_soon()

    # -- a transaction -----------------------------------------------------------------------------------------------

    async def _one(self, queue: Queue, proven: bool) -> None:
        """Sends a server its next transaction."""
        ledger = self._ledger
        try:
            if ledger is not None:
                await self._transmit(ledger, queue)
        except Fenced:
            pass  # the ledger has said so
        except Exception as error:
            log_failure(logger, error, "Sending to %s failed; it is tried again", queue.name)
            queue.failed(Contents(""), self._clock.seconds(), None)
        finally:
            queue.sending = False
            if ledger is not None and ledger is self._ledger:
                self._busy[proven] -= 1
                self._finish(queue)

    def _finish(self, queue: Queue) -> None:
        extras = self._extras.get(queue.name)
        queue.extras = bool(extras)
        if extras is not None and not extras:
            del self._extras[queue.name]
        if queue.retry_at is not None:
            self._retry_later(queue)
        elif queue.is_empty:
            del self.queues[queue.name]
        else:
            self._ready(queue, "", self._clock.seconds())
        self._pump_soon()

    async def _transmit(self, ledger: Ledger, queue: Queue) -> None:
        extras = self._extras.get(queue.name) or Extras()
        draft = await self._composer.draft(queue, extras)
        if draft is None or ledger is not self._ledger:
            return
        contents = draft.contents
        if not contents.pdus and not contents.edus:
            queue.passed(contents)
            await self._settle(ledger, queue, contents)
            return
        if contents.is_lasting:
            # Noted before it is sent, and only by who has the duty.
            await ledger.note(_under_way(queue, contents))
        if ledger is not self._ledger:
            return
        begun = self._clock.seconds()
        try:
            answer = await self._send(queue.name, contents.id, draft.body)
        except FederationError as error:
            if ledger is self._ledger:
                await self._not_sent(ledger, queue, draft, error)
            return
        if ledger is not self._ledger:
            return
        if self._clock.seconds() - begun < SLOW_SECONDS:
            self._proven.add(queue.name)
        else:
            self._proven.discard(queue.name)
        self._taken.pop(queue.name, None)
        queue.succeeded(contents)
        queue.sending = True  # until it is settled
        _count(contents, answer, queue.name)
        await self._settle(ledger, queue, contents)

    async def _settle(self, ledger: Ledger, queue: Queue, contents: Contents) -> None:
        """Notes down what the server has, before it could be told the same again."""
        progress = Progress(queue.name, queue.acked) if contents.is_lasting else None
        if contents.rooms:
            ledger.note_soon(None, [Told(queue.name, *room) for room in contents.rooms])
            await ledger.note(progress or Progress(queue.name, queue.acked))
        elif progress is not None:
            ledger.note_soon(progress)
        for outbox in dict.fromkeys(name for name, _ in contents.marks):
            marks = [mark for name, mark in contents.marks if name == outbox]
            await self._loading.sent[outbox](queue.name, marks)

    async def _not_sent(self, ledger: Ledger, queue: Queue, draft: Draft, error: FederationError) -> None:
        contents, now = draft.contents, self._clock.seconds()
        self._proven.discard(queue.name)
        taken = self._taken.pop(queue.name, draft.taken)
        if isinstance(error, Refused) and error.code in WRONG:
            table.FEDERATION_TRANSACTIONS.child("refused").inc()
            if queue.refused(contents, now):
                logger.warning("%s does not take %s, which is passed over: %s", queue.name, _named(contents), error)
                queue.succeeded(contents)
                await self._settle(ledger, queue, contents)
                return
            keeps = False
        else:
            table.FEDERATION_TRANSACTIONS.child("failed").inc()
            retry_at = await self._retry_at(queue, error)
            if ledger is not self._ledger:
                return
            keeps = queue.failed(contents, now, retry_at)
        logger.info("%s could not be sent to: %s", queue.name, error)
        if keeps:
            self._taken[queue.name] = taken
            return
        extras = self._extra(queue.name)
        extras.ephemeral.put_back(taken)
        extras.outboxes.update(name for name, _ in contents.marks)

    async def _retry_at(self, queue: Queue, error: FederationError) -> float:
        """When the server may be tried again, in seconds."""
        failures, (times, longest) = queue.failures + 1, self._patience
        pause = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 30), longest)
        if isinstance(error, Unreachable):
            if error.asked and failures > times:
                await self._peers.failed(queue.name)
            if not error.asked or failures > times:
                retry_at = await self._peers.retry_at(queue.name)
                pause = pause if retry_at is None else max(pause, retry_at / 1000 - self._clock.seconds())
        elif isinstance(error, Refused) and error.code == 429 and error.retry_after_ms:
            pause = error.retry_after_ms / 1000
        elif failures > times:  # it answers, and perhaps others what they ask
            pause = min(longest * 2.0 ** min(failures - times, 30), MAX_PAUSE)
        return self._clock.seconds() + pause


def _under_way(queue: Queue, contents: Contents) -> Progress:
    return Progress(queue.name, queue.acked, contents.until, contents.id if contents.until is not None else None)


def _named(contents: Contents) -> str:
    return f"the event at {contents.pdus[0]}" if contents.pdus else "an EDU"


def _count(contents: Contents, answer: dict[str, dict[str, Any]], name: str) -> None:
    table.FEDERATION_TRANSACTIONS.child("sent").inc()
    table.FEDERATION_PDUS.inc(len(contents.pdus))
    table.FEDERATION_EDUS.inc(len(contents.edus))
    for event_id, result in answer.items():
        if isinstance(result, dict) and "error" in result:
            table.FEDERATION_PDUS_REFUSED.inc()
            logger.info("%s does not take the event %s: %.200s", name, event_id, result["error"])


def _log(failure: Any) -> None:
    logger.error("Sending to other servers failed", exc_info=failure.value)
