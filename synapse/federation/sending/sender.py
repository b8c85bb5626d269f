"""The duty `federation_sender`: what is new goes to other servers, and what they missed once they are back.

One process at a time performs it, under its lease. Whoever takes over raises the `epoch` in the database, without which
nothing is put on record any more, and nothing lasting sent: one that has lost the lease without noticing stops there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from synapse.federation.sending.ledger import Ledger
from synapse.metrics import table
from synapse.storage.federation_queue import Fenced
from synapse.util.concurrency import spawn
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.federation.outboxes import Outbox
    from synapse.federation.sending.audience import Outgoing
    from synapse.federation.sending.dispatch import Dispatch
    from synapse.federation.sending.news import News
    from synapse.federation.sending.takeover import TakeOver
    from synapse.storage.federation_queue import FederationQueueStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

RETRY_SECONDS: Final = 5.0
KEEP_SECONDS: Final = 10.0  # between notes of how far streams of what is over soon are followed
OWED_SECONDS: Final = 3 * 3600.0  # for which receipts wait for a server that does not answer, whoever sends
TRIM_SECONDS: Final = 60.0
LOG_MS: Final = 3_600_000
"""How long the log goes back."""
LOG_LENGTH: Final = 50_000
MISSED_MS: Final = 90 * 86_400_000
"""How old an event may be that a server has missed."""
_TRIMS_PER_DAY: Final = 1440


class FederationSending:
    """The duty.

    :param make_take_over: the follower of events, given whom to hand them to, and what to do when fenced.
    :param present: how far this process has heard of a stream.
    """

    def __init__(
        self,
        store: FederationQueueStore,
        dispatch: Dispatch,
        news: News,
        outboxes: Mapping[str, Outbox],
        make_take_over: Callable[[Callable[[Sequence[Outgoing]], None], Callable[[Fenced], None]], TakeOver],
        present: Callable[[str], int],
        clock: Clock,
    ) -> None:
        self._store = store
        self.dispatch = dispatch
        self.news = news
        self._outboxes = outboxes
        self.take_over = make_take_over(dispatch.deliver, self._fenced)
        self._present = present
        self._clock = clock
        self._on_duty = False
        self._ledger: Ledger | None = None
        self._epoch = 0
        self._timers: list[Any] = []
        self._trims = 0
        self._seen: dict[str, int] = {}
        self._kept: dict[str, int] = {}
        self._owed_from = 0  # receipts up to here have been told to all that answer

    async def begin(self) -> None:
        """Takes up what is left to send, and goes on with what comes. Raises what the database fails with."""
        self._on_duty = True
        epoch, positions = await self._store.begin()
        if "events" not in positions:
            positions["events"] = await self._store.start_of_events(self._present("events"))
        standings = await self._store.standing()
        if not self._on_duty:
            return
        self._epoch = epoch
        ledger = self._ledger = Ledger(self._store, epoch, self._clock, self._fenced)
        self.dispatch.begin(ledger, positions["events"], standings)
        self.take_over.begin(epoch, positions["events"])
        self.news.typing.begin()
        self.news.receipts.begin(positions.get("receipts", self._present("receipts")))
        self.news.presence.begin(positions.get("presence", self._present("presence")))
        self._seen, self._kept = self._followed(), {}
        self._owed_from = self._seen["receipts"]
        self._every(KEEP_SECONDS, self._keep)
        self._every(TRIM_SECONDS, self._trim)
        for name, outbox in self._outboxes.items():
            self._begin_outbox(ledger, name, outbox)

    def _begin_outbox(self, ledger: Ledger, name: str, outbox: Outbox) -> None:
        async def begin() -> None:
            try:
                await outbox.begin(self._waking(name))
                if self._ledger is None:
                    outbox.end()  # the duty was over before it had begun
                    return
                self.dispatch.outbox_news(name, await outbox.destinations())
            except Exception as error:
                log_failure(logger, error, "The outbox %s could not be looked through; it is tried again", name)
                if ledger is self._ledger:
                    self._timers.append(self._clock.callLater(RETRY_SECONDS, lambda: spawn(begin())))

        spawn(begin())

    async def end(self) -> None:
        """Sends nothing more. What has been acknowledged is noted down, if this process still may."""
        self._on_duty = False
        ledger, self._ledger = self._ledger, None
        self._stop()
        if ledger is not None:
            await ledger.close()

    async def skip(self, destination: str, after: int, until: int) -> None:
        """Has a server told the last events of rooms, in place of all in this part of the log. Raises Fenced."""
        try:
            await self._store.skip(self._epoch, destination, after, until)
        except Fenced as error:
            self._fenced(error)
            raise

    def _fenced(self, error: Fenced) -> None:
        if self._ledger is not None:
            logger.warning("%s This one stops.", error)
            ledger, self._ledger = self._ledger, None
            self._stop()
            ledger.abandon()

    def _stop(self) -> None:
        self.dispatch.end()
        self.take_over.end()
        self.news.typing.end()
        self.news.receipts.end()
        self.news.presence.end()
        for outbox in self._outboxes.values():
            outbox.end()
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()
        self._measure()

    def _waking(self, name: str) -> Callable[[Collection[str]], None]:
        return lambda destinations: self.dispatch.outbox_news(name, destinations)

    # -- once in a while ---------------------------------------------------------------------------------------------

    def _every(self, seconds: float, work: Callable[[], Any]) -> None:
        ledger = self._ledger

        async def run() -> None:
            try:
                await work()
            except Fenced as error:
                self._fenced(error)
            except Exception as error:
                log_failure(logger, error, "Looking after the queues of other servers failed; it is tried again")
            again()

        def again() -> None:
            if ledger is not None and ledger is self._ledger:
                self._timers = [timer for timer in self._timers if timer.active()]
                self._timers.append(self._clock.callLater(seconds, lambda: spawn(run())))

        again()

    def _followed(self) -> dict[str, int]:
        return {
            "receipts": self.news.receipts.following.position,
            "presence": self.news.presence.following.position,
        }

    async def _keep(self) -> None:
        """Keeps where receipts and presence stood the last time: by now, that has been sent, but for receipts of which
        a server is not told yet that does not answer. Who takes over tells all servers of them once more."""
        self._measure()
        seen, self._seen = self._seen, self._followed()
        if self.dispatch.owes_receipts(OWED_SECONDS):
            seen = {**seen, "receipts": self._owed_from}
        self._owed_from = seen["receipts"]
        if seen != self._kept:
            await self._store.keep_positions(self._epoch, seen)
            self._kept = seen

    async def _trim(self) -> None:
        now = int(self._clock.seconds() * 1000)
        trimmed = await self.take_over.trim(self._epoch, now - LOG_MS, LOG_LENGTH)
        self.dispatch.trimmed(trimmed.destinations, trimmed.until)
        if self._trims % _TRIMS_PER_DAY == 0:
            await self._store.forget_missed(self._epoch, now - MISSED_MS)
        self._trims += 1

    def _measure(self) -> None:
        queues = self.dispatch.queues.values()
        states = {"sending": 0, "waiting": 0, "failing": 0, "catching_up": 0}
        for queue in queues:
            if queue.sending:
                states["sending"] += 1
            elif queue.retry_at is not None:
                states["failing"] += 1
            else:
                states["waiting"] += 1
            states["catching_up"] += queue.missed or queue.behind
        for state, count in states.items():
            table.FEDERATION_QUEUES.child(state).set(count)
        table.FEDERATION_WAITING.set(sum(len(queue.positions) for queue in queues))
        table.FEDERATION_POSITION.set(self.take_over.position)
