"""Transactions: what another server has to say, events and ephemeral data, taken in once.

Theory of operation. An origin's transactions are worked on one after another; it waits for each answer before it sends
the next, so a queue means that it repeats itself, and the same transaction, while it is under way, is the same work.
Answers are kept for a day, for an origin that did not get one. What must not happen twice is held apart from that: the
writer takes an event once, messages to devices have ids.

Events are worked on room by room, all rooms at the same time. A room may take long, because much has to be fetched;
the answer does not wait for it longer than the other server would. The work goes on, and what it is about is written
down (`unfinished`).

Server-server API, "Transactions".
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import msgspec
from twisted.internet.defer import CancelledError, Deferred

from synapse.api.errors import bad_json, forbidden, invalid_param, limit_exceeded, not_json
from synapse.api.identifiers import fits
from synapse.federation.receiving.checks import room_of
from synapse.federation.receiving.room_events import RoomEvents, count
from synapse.federation.receiving.unfinished import work_on
from synapse.metrics import table
from synapse.replication.calls import WITHIN
from synapse.util.concurrency import Linearizer, run_for

if TYPE_CHECKING:
    from synapse.federation.receiving.edus import EduRegistry
    from synapse.federation.receiving.outside import Outsider
    from synapse.federation.receiving.room_events import Entrance
    from synapse.federation.receiving.unfinished import Entered, Unfinished
    from synapse.storage.received_transactions import ReceivedTransactionsStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

MAX_PDUS: Final = 50
MAX_EDUS: Final = 100

ANSWER_WITHIN: Final = 40.0
"""Seconds after which a transaction is answered though some rooms still have work with it; others wait for a minute."""

EDUS_WITHIN: Final = WITHIN + 15.0
"""Seconds for the EDUs of a transaction; what has not been taken by then is given up. That is longer than the main
process is asked for: where it is away, the transaction is refused and comes again, and nothing is lost."""

MAX_UNFINISHED: Final = 100
"""Rooms that may still have work with earlier transactions of one origin when it sends the next."""

MAX_QUEUED: Final = 10
"""Different transactions of one origin that may wait for each other."""

_BUSY_MS: Final = 10_000


class Transaction(msgspec.Struct):
    """The body of a transaction. Events stay text until the version of their room is known."""

    pdus: list[msgspec.Raw] = []
    edus: list[msgspec.Raw] = []
    origin: str | None = None


class Transactions:
    """Takes transactions in.

    :param outside: for events of rooms that this server takes no part in.
    :param now: the time in milliseconds.
    """

    def __init__(
        self,
        entrance: Entrance,
        unfinished: Unfinished,
        edus: EduRegistry,
        rooms: Entered,
        outside: Outsider,
        answers: ReceivedTransactionsStore,
        clock: Clock,
        now: Callable[[], int],
    ) -> None:
        self._entrance = entrance
        self._unfinished = unfinished
        self._edus = edus
        self._rooms = rooms
        self._outside = outside
        self._answers = answers
        self._clock = clock
        self._now = now
        self._origins: Linearizer[str] = Linearizer()
        self._under_way: dict[tuple[str, str], list[Deferred[bytes]]] = {}
        self._queued: dict[str, int] = {}
        self._going_on: dict[str, int] = {}  # rooms that are worked on, by origin

    async def receive(self, origin: str, txn_id: str, body: bytes) -> bytes:
        """Take in a transaction; the answer as JSON: `{"pdus": {event id: {} or {"error": …}}}`.

        Raises 400 M_NOT_JSON, M_BAD_JSON, M_INVALID_PARAM for what is no transaction, 403 M_FORBIDDEN where it says to
        be of another server, 429 M_LIMIT_EXCEEDED where the origin asks for too much at a time, and what says that this
        server cannot do it just now (503).
        """
        key = (origin, txn_id)
        followers = self._under_way.get(key)
        if followers is not None:
            answer: Deferred[bytes] = Deferred()
            followers.append(answer)
            return await answer
        self._under_way[key] = []
        try:
            result = await self._receive_once(origin, txn_id, body)
        except Exception as error:
            for follower in self._under_way.pop(key):
                follower.errback(error)
            raise
        for follower in self._under_way.pop(key):
            follower.callback(result)
        return result

    async def _receive_once(self, origin: str, txn_id: str, body: bytes) -> bytes:
        transaction = _parse(origin, txn_id, body)
        if self._queued.get(origin, 0) >= MAX_QUEUED or self._going_on.get(origin, 0) >= MAX_UNFINISHED:
            raise limit_exceeded(_BUSY_MS, "This server still has work with earlier transactions of yours.")
        self._queued[origin] = self._queued.get(origin, 0) + 1
        try:
            async with self._origins.queue(origin):
                earlier = await self._answers.get(origin, txn_id)
                if earlier is not None:
                    return earlier.encode()
                results = await self._take_pdus(origin, transaction.pdus)
                await self._take_edus(origin, transaction.edus)
                answer = msgspec.json.encode({"pdus": {i: _told(problem) for i, problem in results.items()}})
                await self._answers.put(origin, txn_id, answer.decode(), self._now())
        finally:
            self._queued[origin] -= 1
            if not self._queued[origin]:
                del self._queued[origin]
        table.FEDERATION_TRANSACTIONS_RECEIVED.child().inc()
        return answer

    # -- events ------------------------------------------------------------------------------------------------------

    async def _take_pdus(self, origin: str, pdus: Sequence[msgspec.Raw]) -> dict[str, str | None]:
        rooms: dict[str, list[msgspec.Raw]] = {}
        for raw in pdus:
            room_id = room_of(raw)
            if room_id is None or not fits(room_id) or "\x00" in room_id:
                logger.info("%s sent an event that says of no room that it belongs to it", origin)
            else:
                rooms.setdefault(room_id, []).append(raw)
        entered = await self._rooms.versions(rooms.keys())
        outside = {room_id: raws for room_id, raws in rooms.items() if room_id not in entered}
        results = dict(await self._outside.receive(origin, outside)) if outside else {}
        works = [RoomEvents(origin, room_id, version, rooms[room_id]) for room_id, version in entered.items()]
        if works:
            await self._for_a_while(origin, works)
        for some in works:
            results.update(some.results)
        count(results)
        return results

    async def _for_a_while(self, origin: str, works: Sequence[RoomEvents]) -> None:
        """Let all work be done at the same time; returns when it is, or a while later, with what is not done written
        down. Raises what says that this server cannot do it just now."""
        going_on = set(works)
        problems: list[Exception] = []
        self._going_on[origin] = self._going_on.get(origin, 0) + len(works)

        async def run(some: RoomEvents) -> None:
            try:
                problem = await work_on(some, self._entrance, self._unfinished)
                if problem is not None:
                    problems.append(problem)
            finally:
                going_on.discard(some)
                self._finished(origin)

        await run_for(self._clock, ANSWER_WITHIN, [run(some) for some in works])
        if problems:
            raise problems[0]
        await self._unfinished.keep(works, going_on)

    def _finished(self, origin: str) -> None:
        self._going_on[origin] -= 1
        if not self._going_on[origin]:
            del self._going_on[origin]

    # -- ephemeral data ----------------------------------------------------------------------------------------------

    async def _take_edus(self, origin: str, edus: Sequence[msgspec.Raw]) -> None:
        """In their order, and for a while: the origin's next transaction is not to wait for a handler that hangs."""
        if not edus:
            return
        waiting = deque(edus)
        taking = Deferred.fromCoroutine(self._take_each(origin, waiting))
        done: Deferred[None] = Deferred()

        def late() -> None:
            logger.warning("Ephemeral data of %s take too long: %d are given up", origin, len(waiting) + 1)
            waiting.clear()
            taking.cancel()
            if not done.called:  # the handler is not to be stopped
                done.callback(None)

        timer = self._clock.callLater(EDUS_WITHIN, late)
        taking.addBoth(lambda result: None if done.called else done.callback(result))
        try:
            await done
        except CancelledError:
            if timer.active():
                raise
        finally:
            if timer.active():
                timer.cancel()

    async def _take_each(self, origin: str, waiting: deque[msgspec.Raw]) -> None:
        while waiting:
            try:
                edu = msgspec.json.decode(waiting.popleft())
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            await self._edus.take(origin, edu)


def _parse(origin: str, txn_id: str, body: bytes) -> Transaction:
    if not fits(txn_id) or "\x00" in txn_id:
        raise invalid_param("A transaction ID may have 255 bytes at most, and no NUL.")
    try:
        transaction = msgspec.json.decode(body, type=Transaction)
    except msgspec.ValidationError as error:
        raise bad_json(f"The transaction is not as it should be: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(f"The transaction is not valid JSON: {error}.") from None
    if transaction.origin is not None and transaction.origin != origin:
        raise forbidden(f"The transaction says to be of another server than {origin}, which sent it.")
    if len(transaction.pdus) > MAX_PDUS or len(transaction.edus) > MAX_EDUS:
        raise bad_json(f"A transaction may have {MAX_PDUS} PDUs and {MAX_EDUS} EDUs at most.")
    return transaction


def _told(problem: str | None) -> dict[str, str]:
    return {} if problem is None else {"error": str(problem)}
