"""Takes new events over from the events stream: finds out which servers each is for, puts it on record, and only then
hands it on to the queues. How far that has come is in the database, so that who takes over the duty goes on from there.

Rows that come faster than they are put on record are dropped, and read from the database when it is their turn.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import DeferredLock

from synapse.federation.sending.audience import Outgoing, RoomAudiences, up_to_entry
from synapse.replication import event_rows
from synapse.replication.event_rows import EventRow, Row
from synapse.replication.streams import PAGE
from synapse.storage.federation_queue import Fenced, Logged
from synapse.util.concurrency import spawn
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.federation.sending.loading import Pdus
    from synapse.replication.streams import Rows
    from synapse.storage.database import Database
    from synapse.storage.federation_events import FederationEventsStore
    from synapse.storage.federation_queue import FederationQueueStore, Trimmed
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

KEPT_ROWS: Final = 2_000
KEPT_AUDIENCES: Final = 5_000  # of which it is remembered that they are on record
KEEP_EVERY: Final = 1_000  # positions without an event for others
RETRY_SECONDS: Final = 2.0

Deliver = Callable[[Sequence[Outgoing]], None]


class TakeOver:
    """Follows the events stream while the duty is this process's.

    :param present: how far this process has heard of the stream.
    :param deliver: is given the events that are on record, in order.
    :param taken: is told how far the stream has been taken over.
    """

    def __init__(
        self,
        queues: FederationQueueStore,
        events: FederationEventsStore,
        db: Database,
        audiences: RoomAudiences,
        pdus: Pdus,
        present: Callable[[], int],
        clock: Clock,
        deliver: Deliver,
        taken: Callable[[int], None],
        fenced: Callable[[Fenced], None],
    ) -> None:
        self._queues = queues
        self._events = events
        self._db = db
        self._audiences = audiences
        self._pdus = pdus
        self._present = present
        self._clock = clock
        self._deliver = deliver
        self._taken = taken
        self._fenced = fenced
        self._epoch: int | None = None  # None: the duty is another's
        self._position = 0
        self._kept = 0
        self._rows: deque[tuple[int, Row]] = deque()
        self._rows_after = 0  # the rows that are here are all that come after this position
        self._running = False
        self._on_record: OrderedDict[bytes, None] = OrderedDict()
        self._logging = DeferredLock()

    @property
    def position(self) -> int:
        """Up to where the stream has been taken over."""
        return self._position

    def begin(self, epoch: int, position: int) -> None:
        """The duty is ours, and everything up to the position has been taken over."""
        self._audiences.forget_all()
        self._on_record.clear()
        self._epoch, self._position, self._kept = epoch, position, position
        self._forget_rows(self._present())
        self._go_on()

    def end(self) -> None:
        self._epoch = None
        self._rows.clear()

    def rows(self, position: int, rows: Rows) -> None:
        """News of the stream."""
        if self._epoch is None:
            return
        if self._pass_over(position, rows):
            return
        if len(self._rows) + len(rows) > KEPT_ROWS:
            self._forget_rows(position)
        else:
            self._rows.extend(rows)
        self._go_on()

    def _pass_over(self, position: int, rows: Rows) -> bool:
        """Takes over at once what is for nobody, if everything before it has been: most of what happens on a server
        that has little to do with others."""
        if (
            self._running
            or self._position < max(self._present(), self._rows_after)
            or position - self._kept >= KEEP_EVERY
            or not self._audiences.are_for_nobody(rows)
        ):
            return False
        self._position = self._rows_after = position
        self._remember(rows, set())
        self._taken(position)
        return True

    def missed(self, position: int) -> None:
        """The stream starts at a position: what was before will not come."""
        if self._epoch is not None:
            self._forget_rows(position)
            self._go_on()

    async def trim(self, epoch: int, before_ts: int, keep: int) -> Trimmed:
        """Gives up old parts of the log. Raises Fenced.

        Not while events are logged for audiences that seem to be on record.
        """
        await self._logging.acquire()
        try:
            trimmed = await self._queues.trim(epoch, before_ts, keep)
            for audience in trimmed.audiences:
                self._on_record.pop(audience, None)
        finally:
            self._logging.release()
        return trimmed

    def _forget_rows(self, position: int) -> None:
        self._rows.clear()
        self._rows_after = position

    def _go_on(self) -> None:
        if not self._running:
            self._running = True
            # A moment later: the position that everybody sees moves on after the listeners have heard.
            self._clock.callLater(0, lambda: spawn(self._run()))

    async def _run(self) -> None:
        epoch = self._epoch
        try:
            while epoch is not None and epoch == self._epoch:
                until, rows = await self._next()
                if until <= self._position or epoch != self._epoch:
                    break
                await self._take(epoch, until, rows)
        except Fenced as error:
            self._fenced(error)
        except Exception as error:
            log_failure(logger, error, "Events could not be taken over for other servers; it is tried again")
            self._audiences.forget_all()  # they may have gone on with rows that are to come again
            self._clock.callLater(RETRY_SECONDS, self._go_on)
        finally:
            self._running = False
        if epoch != self._epoch:
            self._go_on()

    async def _next(self) -> tuple[int, list[tuple[int, Row]]]:
        """The rows that follow, and up to where these are all."""
        if self._position >= self._rows_after:
            while self._rows and self._rows[0][0] <= self._position:
                self._rows.popleft()
            until = self._present()
            rows: list[tuple[int, Row]] = []
            while self._rows and self._rows[0][0] <= until:
                rows.append(self._rows.popleft())
            self._rows_after = until  # if they cannot be taken over, they are read
            return until, rows
        after, until = self._position, self._rows_after
        read = await self._db.read("federation.follow", event_rows.read, after, until, PAGE)
        events = sum(isinstance(row, EventRow) for _, row in read)
        return (read[-1][0] if events >= PAGE else until), read

    async def _take(self, epoch: int, until: int, rows: list[tuple[int, Row]]) -> None:
        count = up_to_entry(rows)
        while count < len(rows) and epoch == self._epoch:
            await self._take_known(epoch, rows[count - 1][0], rows[:count])
            rows = rows[count:]
            count = up_to_entry(rows)
        if epoch == self._epoch:
            await self._take_known(epoch, until, rows)

    async def _take_known(self, epoch: int, until: int, rows: list[tuple[int, Row]]) -> None:
        self._audiences.remember({row.room_id: {} for _, row in rows if event_rows.is_beginning(row)})
        unknown = self._audiences.unknown(rows)
        if unknown:
            self._audiences.remember(await self._events.hosts_at(unknown, self._position))
        outgoing = self._audiences.take(rows)
        if outgoing:
            await self._logging.acquire()
            try:
                await self._log(epoch, until, outgoing)
            finally:
                self._logging.release()
        elif until - self._kept >= KEEP_EVERY:
            await self._queues.keep_positions(epoch, {"events": until})
            self._kept = until
        if epoch != self._epoch:
            return
        self._position = until
        self._remember(rows, {each.position for each in outgoing})
        if outgoing:
            self._deliver(outgoing)
        self._taken(until)

    async def _log(self, epoch: int, until: int, outgoing: Sequence[Outgoing]) -> None:
        new: dict[bytes, Sequence[str]] = {
            each.audience.id: each.audience.servers for each in outgoing if each.audience.id not in self._on_record
        }
        logged = [Logged(each.position, each.room_id, each.audience.id) for each in outgoing]
        now = int(self._clock.seconds() * 1000)
        await self._queues.log(epoch, until, logged, new, now)
        self._kept = until
        for each in outgoing:
            self._on_record[each.audience.id] = None
            self._on_record.move_to_end(each.audience.id)
        while len(self._on_record) > KEPT_AUDIENCES:
            self._on_record.popitem(last=False)

    def _remember(self, rows: Sequence[tuple[int, Row]], sent: set[int]) -> None:
        for position, row in rows:
            if not isinstance(row, EventRow):
                continue
            if row.redacts is not None:
                self._pdus.forget(row.redacts)
            if position in sent and row.json:
                self._pdus.remember(position, row.event_id, row.json.encode())
