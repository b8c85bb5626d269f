"""`Persister`: the one writer of events. All that wait are committed together, in the order in which they came.

Theory of operation. There is one queue and one batch under way. While a batch is being committed, requests gather;
they are the next batch. A batch is planned (`persist_plan`), written in one transaction of one round trip
(`persist_rows`), and then announced. If the transaction hits a primary key, something of it is there already: a
request that was sent again after its answer was lost, or the batch itself, committed by a connection that broke
before it could say so. What is there is looked up, and the batch is planned anew with that knowledge. Killed at any
moment, the process loses nothing that it has answered and leaves nothing half done.

Only the main process has one, since it alone holds the lease on writing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from psycopg2.errors import UniqueViolation
from twisted.internet.defer import Deferred

from synapse.api.errors import Codes, MatrixError, limit_exceeded
from synapse.metrics import table
from synapse.storage.errors import DatabaseProblem
from synapse.storage.event_txns import TxnKey
from synapse.storage.persist_events import Kind, Outcome, Persisted, Receipt, Received, Request
from synapse.storage.persist_plan import BatchPlan, Planned, Positions, Stale
from synapse.storage.persist_received import Reception
from synapse.storage.persist_resolution import Resolver
from synapse.storage.persist_rows import Rows
from synapse.storage.persist_state import BatchState, GroupIds
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.state.store import StateReader
    from synapse.storage.database import Database, Transaction
    from synapse.storage.event_txns import EventTxnsStore
    from synapse.storage.events import EventsStore, Mark
    from synapse.storage.memberships import MembershipsStore
    from synapse.storage.persist_outliers import OutlierWriter
    from synapse.storage.persist_room import RoomEnds
    from synapse.storage.state import StateStore
    from synapse.util.caches import LruCache

logger = logging.getLogger(__name__)

MAX_BATCH: Final = 100
"""Requests that are committed together at most."""

MAX_WAITING: Final = 20_000
"""Requests that may wait; beyond, whoever comes is asked to come again later."""

ATTEMPTS: Final = 4
"""How often a batch is planned, each time with more knowledge of what is stored."""

BUSY_MS: Final = 2_000

Changed = Callable[[Collection[str], Mapping[str, str]], None]
"""Is told of events that are not what they were, and of which the stream says nothing; of those among them that were
redacted, in which room they are."""

Announce = Callable[[int, Sequence[Planned]], None]
"""Is told the position that the events stream has reached, and the events that brought it there."""


class Stores(NamedTuple):
    """What the writer reads from when memory does not know."""

    ends: RoomEnds
    reader: StateReader
    states: StateStore
    events: EventsStore
    txns: EventTxnsStore
    memberships: MembershipsStore


Answer = Outcome | Receipt


class _Waiting(NamedTuple):
    request: Request | Received
    answer: Deferred[Any]


class Persister:
    """Writes events.

    :param positions: hands out positions of the events stream.
    :param groups: hands out ids of state groups.
    :param announce: called after each commit, before anybody is answered.
    :param now: the time in milliseconds.
    :param recent: remembers what was written a moment ago, by transaction id and event id.
    :param outliers: writes outliers, beside the queue.
    :param changed: called before `announce`.
    """

    def __init__(
        self,
        db: Database,
        stores: Stores,
        positions: Positions,
        groups: GroupIds,
        server_name: str,
        announce: Announce,
        now: Callable[[], int],
        recent: LruCache[TxnKey | str, Persisted],
        outliers: OutlierWriter,
        changed: Changed,
    ) -> None:
        self._db = db
        self._stores = stores
        self._positions = positions
        self._groups = groups
        self._server_name = server_name
        self._announce = announce
        self._now = now
        self._recent = recent
        self._outliers = outliers
        self._changed = changed
        self._queue: list[_Waiting] = []
        self._busy = False
        self._position = 0
        self._past: int | None = None

    async def persist(self, request: Request) -> Outcome:
        """Write the events of a request, and answer when they are committed and announced.

        A request that comes a second time (same event ids, or same transaction id) is answered like the first. Raises a
        MatrixError where the room's present state does not allow the events, or an alias is taken.
        """
        outcome: Outcome = await self._enqueue(request)
        return outcome

    async def receive(self, received: Received) -> Receipt:
        """Write received events, and answer when they are committed and announced.

        Outliers do not wait for others' events, nor others for them. Events that come a second time are known then.
        """
        if received.outliers:
            await self._outliers.write(received.room_id, received.version, received.outliers)
        if not received.events:
            return Receipt((), self._position)
        receipt: Receipt = await self._enqueue(received)
        return receipt

    async def _enqueue(self, request: Request | Received) -> Any:
        if len(self._queue) >= MAX_WAITING:
            raise limit_exceeded(BUSY_MS, "The server is writing as much as it can. Please try again in a moment.")
        waiting = _Waiting(request, Deferred())
        self._queue.append(waiting)
        if not self._busy:
            self._busy = True
            Deferred.fromCoroutine(self._work())
        return await waiting.answer

    async def past(self) -> int:
        """How far history has come, downwards: what is above this position is committed, or never will be. One
        statement, the first time."""
        await self._outliers.ready()
        if self._past is None:
            self._past = self._outliers.positions.lowest or 0
        return self._past

    @property
    def waiting(self) -> int:
        """Requests that wait for the batch under way."""
        return len(self._queue)

    async def _work(self) -> None:
        try:
            while self._queue:
                size = _batch_size(self._queue)
                batch, self._queue = self._queue[:size], self._queue[size:]
                try:
                    await self._write(batch)
                except Exception as error:
                    await self._write_singly(batch, error)
        finally:
            self._busy = False

    async def _write_singly(self, batch: list[_Waiting], error: Exception) -> None:
        """The batch could not be written. One request must not take others down with it."""
        for waiting in batch:
            self._stores.ends.forget(waiting.request.room_id)
        unanswered = [waiting for waiting in batch if not waiting.answer.called]
        if len(unanswered) == 1 or isinstance(error, DatabaseProblem):
            for waiting in unanswered:
                waiting.answer.errback(_as_told(error))
            return
        logger.warning("Events could not be written together and are now written one by one: %s", error)
        for waiting in unanswered:
            try:
                await self._write([waiting])
            except Exception as own:
                self._stores.ends.forget(waiting.request.room_id)
                if not waiting.answer.called:
                    waiting.answer.errback(_as_told(own))

    async def _write(self, batch: list[_Waiting]) -> None:
        marks = await self._look_ahead(batch)
        for _attempt in range(ATTEMPTS):
            plan, answers = await self._plan(batch, marks)
            if not plan.written:
                break
            try:
                await self._db.write_idempotent("events.persist", _write_rows, plan.rows)
            except UniqueViolation:
                found = await self._look_up(plan)
                if not found:
                    raise
                if not self._is_ours(plan, found):
                    marks.update(found)
                    continue
            self._commit(plan, marks)
            break
        else:
            raise RuntimeError("events could not be told from those that are stored")
        for waiting, answer in zip(batch, answers, strict=True):
            if isinstance(answer, Receipt):
                for fate, _why in answer.fates:
                    table.EVENTS_RECEIVED.child(fate.value).inc()
            if isinstance(answer, Answer):
                waiting.answer.callback(answer)
            else:
                waiting.answer.errback(answer)

    async def _plan(
        self, batch: Sequence[_Waiting], marks: Mapping[str, Mark]
    ) -> tuple[BatchPlan, list[Answer | Exception]]:
        await self._groups.ready()
        await self.past()
        stores = self._stores
        state = BatchState(self._groups, stores.states, stores.events)
        resolver = Resolver(state, stores.events)
        plan = BatchPlan(self._positions, stores.ends, state, resolver, stores.reader, self._server_name, self._now())
        reception = Reception(plan, self._outliers.positions, marks, self._recent.__contains__, stores.memberships)
        known: dict[TxnKey | str, Persisted] = {}
        answers: list[Answer | Exception] = []
        for waiting in batch:
            try:
                answers.append(await self._plan_one(plan, reception, waiting.request, known))
            except Stale:
                table.EVENTS_STALE.inc()
                answers.append(Outcome((), max(self._position, plan.position), stale=True))
            except MatrixError as error:
                answers.append(error)
            except Exception as error:
                log_failure(logger, error, "An event for %s could not be prepared for writing", waiting.request.room_id)
                answers.append(error)
        return plan, answers

    async def _plan_one(
        self, plan: BatchPlan, reception: Reception, request: Request | Received, known: dict[TxnKey | str, Persisted]
    ) -> Answer:
        if isinstance(request, Received):
            fates = await reception.add(request)
            return Receipt(tuple(fates), max(self._position, plan.position))
        earlier = self._earlier(request, known)
        if earlier is not None:
            return earlier
        persisted = await plan.add(request)
        for new, done in zip(request.events, persisted, strict=True):
            known[done.event_id] = done
            if new.txn is not None:
                known[new.txn] = done
        return Outcome(tuple(persisted), persisted[-1].stream_ordering)

    def _earlier(self, request: Request, known: dict[TxnKey | str, Persisted]) -> Outcome | None:
        """The answer to a request whose events have been written before, as far as memory knows."""
        found: list[Persisted] = []
        for new in request.events:
            for key in (new.txn, new.event.event_id):
                done = None if key is None else known.get(key) or self._recent.get(key)
                if done is not None:
                    found.append(done)
                    break
        if len(found) < len(request.events):
            return None
        return Outcome(tuple(found), max(done.stream_ordering for done in found))

    def _commit(self, plan: BatchPlan, marks: Mapping[str, Mark]) -> None:
        for end in plan.ends.values():
            self._stores.ends.commit(end)
        for event_id, position in plan.written.items():
            if event_id not in plan.reserved:
                self._recent.set(event_id, Persisted(event_id, position))
        self._past = min(self._past or 0, *plan.written.values())
        for step in plan.planned:
            if step.new.txn is not None:
                self._recent.set(step.new.txn, Persisted(step.new.event.event_id, step.stream_ordering))
        changed = {event_id for event_id in plan.written if event_id in marks}
        changed |= plan.rows.redactions.keys()
        changed |= {each.event_id for each in plan.rows.released}
        changed -= {event_id for step in plan.planned for event_id in (step.new.event.event_id, step.new.redacts)}
        if changed:
            redacted = {target: room_id for target, (_, room_id) in plan.rows.redactions.items() if target in changed}
            self._changed(changed, redacted)
        table.EVENTS_WRITTEN.inc(len(plan.written))
        table.EVENTS_BATCHES.inc()
        if plan.position:
            self._position = plan.position
            self._announce(plan.position, plan.planned)

    # -- what is there already ---------------------------------------------------------------------------------

    async def _look_ahead(self, batch: Sequence[_Waiting]) -> dict[str, Mark]:
        """What is stored of received events that may well be here: all but new ones."""
        likely: list[str] = []
        for waiting in batch:
            request = waiting.request
            if isinstance(request, Received):
                of_the_past = request.kind is not Kind.TIMELINE
                likely += [e.event.event_id for e in request.events if of_the_past or e.state_before is not None]
        return await self._stores.events.marks(likely)

    async def _look_up(self, plan: BatchPlan) -> dict[str, Mark]:
        """What is stored of the planned events, and of their transaction ids, which is remembered."""
        keys = [step.new.txn for step in plan.planned if step.new.txn is not None]
        sent = await self._stores.txns.get_many(keys)
        marks = await self._stores.events.marks(list({*plan.written, *sent.values()}))
        for event_id, mark in marks.items():
            if not mark.outlier:
                self._recent.set(event_id, Persisted(event_id, mark.stream_ordering))
        for key, event_id in sent.items():
            self._recent.set(key, Persisted(event_id, marks[event_id].stream_ordering))
        for end in plan.ends:
            self._stores.ends.forget(end)
        return marks

    def _is_ours(self, plan: BatchPlan, found: Mapping[str, Mark]) -> bool:
        """Whether it is this very plan that is stored: its COMMIT was done, and its answer lost."""
        event_id, position = next(iter(plan.written.items()))
        mark = found.get(event_id)
        return mark is not None and mark.stream_ordering == position


def _batch_size(queue: Sequence[_Waiting]) -> int:
    """How many of those who wait are written together. Who enters a room replaces all of it, and is the first."""
    for number, waiting in enumerate(queue[:MAX_BATCH]):
        request = waiting.request
        if number and isinstance(request, Received) and request.kind is Kind.JOIN:
            return number
    return MAX_BATCH


def _write_rows(txn: Transaction, rows: Rows) -> None:
    rows.write(txn)


def _as_told(error: Exception) -> Exception:
    if isinstance(error, UniqueViolation) and error.diag.constraint_name == "room_aliases_pkey":
        return MatrixError(400, Codes.ROOM_IN_USE, "The room alias is taken already.")
    return error
