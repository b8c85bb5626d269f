"""Has transactions sent: to many servers at once, to each one after another, and to all in turn.

Servers that answer have slots of their own, so that those which hang, or have not been tried yet, do not hold them up.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from synapse.federation.errors import FederationError, Refused, Unreachable
from synapse.federation.sending.composing import Extras
from synapse.federation.sending.edus import NOTHING
from synapse.federation.sending.fairness import RoundRobin
from synapse.federation.sending.queue import MAX_PDUS, Contents, Queue, Reserved, id_of
from synapse.metrics import table
from synapse.storage.federation_queue import Fenced, Progress, Told
from synapse.util.concurrency import spawn
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.federation.client import Retries
    from synapse.federation.destinations import Destinations
    from synapse.federation.sending.audience import Outgoing
    from synapse.federation.sending.composing import Composer
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
RESERVED_SECONDS: Final = 5.0
"""For so long, what was noted down by who has the duty may be sent without asking again whether that holds."""
FIRST_PAUSE: Final = 0.5  # seconds; each is twice the one before
MAX_PAUSE: Final = 86_400.0

Send = Callable[[str, str, bytes], Awaitable[dict[str, dict[str, Any]]]]
"""(destination, transaction id, body): what the server says of each event. Raises FederationError."""


class Dispatch:
    """The queues of all servers for which there is something, and what is under way to them.

    :param retries: how often a server is tried before all processes leave it alone, and the longest pause in between.
    :param is_allowed: whether this server has to do with another; of events, that was asked before.
    """

    def __init__(
        self,
        composer: Composer,
        loading: Loading,
        send: Send,
        destinations: Destinations,
        clock: Clock,
        retries: Retries,
        is_allowed: Callable[[str], bool],
    ) -> None:
        self._composer = composer
        self._send = send
        self._destinations = destinations
        self._clock = clock
        self._loading = loading
        self._patience = retries
        self._is_allowed = is_allowed
        self._ledger: Ledger | None = None  # None: the duty is another's
        self.queues: dict[str, Queue] = {}
        self._extras: dict[str, Extras] = {}
        self._taken: dict[str, Taken] = {}  # what transactions hold that are to be sent again
        self._proven: set[str] = set()
        self._known: set[str] = set()  # servers of which it was asked whether they answer
        self._turns = {True: RoundRobin(), False: RoundRobin()}
        self._busy = {True: 0, False: 0}
        self._retries: dict[str, Any] = {}
        self._pumping = False
        self._reserving: set[str] = set()
        self._delivered = 0  # up to where events were delivered

    # -- the duty ----------------------------------------------------------------------------------------------------

    def begin(self, ledger: Ledger, position: int, standings: Iterable[Standing]) -> None:
        """The duty is ours; of what is on record, which goes up to the position, there is this to send."""
        self._ledger, self._delivered = ledger, position
        for each in standings:
            queue = self._queue(each.destination)
            queue.acked = each.acked
            queue.missed = each.missed
            queue.behind = each.newest > each.acked
            queue.newest = each.newest
            queue.away = True
            if each.sending_until and each.sending_txn and not each.missed and each.sending_until > each.acked:
                queue.resume = (each.sending_until, each.sending_txn)
        self._wake(dict.fromkeys(self.queues, ""))

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
        self._turns = {True: RoundRobin(), False: RoundRobin()}
        self._busy = {True: 0, False: 0}

    # -- news --------------------------------------------------------------------------------------------------------

    def deliver(self, events: Sequence[Outgoing]) -> None:
        """Events that are on record."""
        ledger = self._ledger
        if ledger is None:
            return
        causes: dict[str, str] = {}
        for event in events:
            for name in event.audience.servers:
                self._queue(name).offer(event.position)
                causes.setdefault(name, event.room_id)
            self._delivered = event.position
        ids = {event.position: event.event_id for event in events}
        reserving = [queue for name in causes if (queue := self._may_reserve(name)) and queue.positions[0] in ids]
        if reserving:
            spawn(self._reserve(ledger, reserving, ids, causes)).addErrback(_log)
        reserved = {queue.name for queue in reserving}
        self._wake({name: cause for name, cause in causes.items() if name not in reserved})

    def _may_reserve(self, name: str) -> Queue | None:
        queue = self.queues[name]
        return queue if name in self._known and queue.is_at_rest and name not in self._reserving else None

    async def _reserve(
        self, ledger: Ledger, queues: Sequence[Queue], event_ids: dict[int, str], causes: dict[str, str]
    ) -> None:
        """Notes down for all these at once what is sent to them, each in its turn."""
        notes: list[Progress] = []
        for queue in queues:
            pdus = [position for position in queue.positions if position in event_ids][:MAX_PDUS]
            txn_id = id_of(queue.name, [event_ids[position] for position in pdus], (), "")
            notes.append(Progress(queue.name, queue.acked, pdus[-1], txn_id))
        names = {queue.name for queue in queues}
        self._reserving |= names
        try:
            await ledger.note(notes)
        except Fenced:
            return
        finally:
            self._reserving -= names
        now = self._clock.seconds()
        for queue, note in zip(queues, notes, strict=True):
            if self.queues.get(queue.name) is queue:
                queue.reserve(Reserved(note.sending_until or 0, note.sending_txn or "", now))
                self._ready(queue, causes[queue.name], now)
        self._pump_soon()

    def tell(self, destinations: Collection[str], cause: str, what: Callable[[Ephemeral], None]) -> None:
        """Something that is over soon."""
        if self._ledger is None:
            return
        destinations = [name for name in destinations if self._is_allowed(name)]
        for name in destinations:
            what(self._extra(name).ephemeral)
        self._wake(dict.fromkeys(destinations, cause))

    def outbox_news(self, outbox: str, destinations: Collection[str]) -> None:
        """An outbox has something for these servers."""
        if self._ledger is None:
            return
        destinations = [name for name in destinations if self._is_allowed(name)]
        for name in destinations:
            self._extra(name).outboxes.add(outbox)
        self._wake(dict.fromkeys(destinations, outbox))

    def owes_receipts(self, patience: float) -> bool:
        """Whether a server that has not failed for more than so many seconds is still to be told of receipts."""
        owed = {name for name, taken in self._taken.items() if taken.receipts}
        owed.update(name for name, extras in self._extras.items() if extras.ephemeral.has_receipts)
        since = [queue.failing_since for name in owed if (queue := self.queues.get(name)) is not None]
        return any(each is None or self._clock.seconds() - each < patience for each in since)

    def trimmed(self, destinations: Iterable[str], until: int) -> None:
        """The log up to there was given up, in which there were events that these servers have not got."""
        if self._ledger is None:
            return
        for name in destinations:
            self._queue(name).trimmed(until)
        self._wake(dict.fromkeys(destinations, ""))

    def heard(self, destination: str | None) -> None:
        """The standing of a server has changed, or perhaps of all."""
        names = [destination] if destination is not None else list(self.queues)
        waiting = [name for name in names if (queue := self.queues.get(name)) and queue.retry_at is not None]
        if waiting and self._ledger is not None:
            spawn(self._look_again(waiting)).addErrback(_log)

    # -- whose turn it is --------------------------------------------------------------------------------------------

    def _queue(self, name: str) -> Queue:
        queue = self.queues.get(name)
        if queue is None:  # it has everything so far
            queue = self.queues[name] = Queue(name, self._delivered)
        return queue

    def _extra(self, name: str) -> Extras:
        extras = self._extras.get(name)
        if extras is None:
            extras = self._extras[name] = Extras()
        self._queue(name).extras = True
        return extras

    def _wake(self, causes: Mapping[str, str]) -> None:
        """There is something for these servers, each because of something."""
        new = {name: cause for name, cause in causes.items() if name not in self._known}
        if new:
            self._known.update(new)
            spawn(self._introduce(new)).addErrback(_log)
        now = self._clock.seconds()
        for name, cause in causes.items():
            if name not in new:
                self._ready(self.queues[name], cause, now)
        self._pump_soon()

    def _ready(self, queue: Queue, cause: str, now: float) -> None:
        if queue.may_try(now):
            self._turns[queue.name in self._proven].add(queue.name, cause)

    async def _introduce(self, names: Mapping[str, str]) -> None:
        """Finds out which servers are left alone just now: asked once for all of them."""
        ledger = self._ledger
        left_alone: Mapping[str, int] = {}
        try:
            left_alone = await self._destinations.left_alone(names)
        except Exception as error:
            log_failure(logger, error, "Which servers answer could not be found out; they are tried")
        if ledger is not self._ledger:
            return
        now = self._clock.seconds()
        for name, cause in names.items():
            queue = self.queues.get(name)
            if queue is None or queue.sending:
                continue
            if name in left_alone:
                queue.leave_alone(now, left_alone[name] / 1000)
                self._retry_later(queue)
            self._ready(queue, cause, now)
        self._pump_soon()

    async def _look_again(self, names: list[str]) -> None:
        ledger = self._ledger
        ready = set(await self._destinations.ready(names))
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
            if ledger is self._ledger:  # what the transaction held of them is not known here: they are all asked again
                self._put_back(queue.name, self._loading.outboxes)
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
        draft = draft._replace(contents=await self._noted(ledger, queue, contents))
        contents = draft.contents
        if ledger is not self._ledger:
            return
        begun = self._clock.seconds()
        self._taken.setdefault(queue.name, draft.taken)
        try:
            answer = await self._send(queue.name, contents.id, draft.body)
        except FederationError as error:
            if ledger is self._ledger:
                await self._not_sent(ledger, queue, contents, error)
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

    async def _noted(self, ledger: Ledger, queue: Queue, contents: Contents) -> Contents:
        """Has a transaction noted down before it is sent, by who has the duty. Raises Fenced."""
        reserved, queue.reserved = queue.reserved, None
        holds = reserved is not None and self._clock.seconds() - reserved.at < RESERVED_SECONDS
        if reserved is not None and holds and reserved.until == contents.until:
            return contents._replace(id=reserved.id)
        if contents.is_lasting:
            txn_id = contents.id if contents.until is not None else None
            await ledger.note([Progress(queue.name, queue.acked, contents.until, txn_id)])
        return contents

    async def _settle(self, ledger: Ledger, queue: Queue, contents: Contents) -> None:
        """Notes down what the server has, before it could be told the same again."""
        progress = Progress(queue.name, queue.acked)
        if contents.rooms:
            await ledger.note([progress], [Told(queue.name, *room) for room in contents.rooms])
        elif contents.until is not None:
            ledger.note_soon(progress)
        for outbox in dict.fromkeys(name for name, _ in contents.marks):
            marks = [mark for name, mark in contents.marks if name == outbox]
            await self._loading.sent[outbox](queue.name, marks)

    async def _not_sent(self, ledger: Ledger, queue: Queue, contents: Contents, error: FederationError) -> None:
        now = self._clock.seconds()
        self._proven.discard(queue.name)
        if isinstance(error, Refused) and error.code in WRONG:
            table.FEDERATION_TRANSACTIONS.child("refused").inc()
            if queue.refused(contents, now):
                logger.warning("%s does not take %s, which is passed over: %s", queue.name, _named(contents), error)
                self._taken.pop(queue.name, None)
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
        if not keeps:
            self._put_back(queue.name, [outbox for outbox, _ in contents.marks])

    def _put_back(self, name: str, outboxes: Iterable[str]) -> None:
        """What a transaction held besides events is told again in another; of the outboxes, by asking these."""
        extras = self._extra(name)
        extras.ephemeral.put_back(self._taken.pop(name, NOTHING))
        extras.outboxes.update(outboxes)

    async def _retry_at(self, queue: Queue, error: FederationError) -> float:
        """When the server may be tried again, in seconds."""
        failures, (times, longest) = queue.failures + 1, self._patience
        pause = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 30), longest)
        if isinstance(error, Unreachable):
            if error.asked and failures > times:
                await self._destinations.failed(queue.name)
            if not error.asked or failures > times:
                retry_at = await self._destinations.retry_at(queue.name)
                pause = pause if retry_at is None else max(pause, retry_at / 1000 - self._clock.seconds())
        elif isinstance(error, Refused) and error.code == 429 and error.retry_after_ms:
            pause = error.retry_after_ms / 1000
        elif failures > times:  # it answers, and perhaps others what they ask
            pause = min(longest * 2.0 ** min(failures - times, 30), MAX_PAUSE)
        return self._clock.seconds() + pause


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
