"""Sending notifications to push gateways: the duty `pusher`, which one process at a time performs.

The streams say for whom there is news: whom an event notifies, and who has read something. A moment later the pushers
of all of them are looked up at once, and each sends by itself, one notification after another, what its user has not
read. How far it has come is kept after every answer: a process that dies repeats at most what it had under way, and
the next one goes on from there.

A gateway that does not answer is asked again after a second, then ever more rarely; one that has failed for a day is
told what comes next, and not what it has missed.

Push Gateway API, "Homeserver behaviour".
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import orjson
from twisted.internet.defer import Deferred, DeferredSemaphore

from synapse.http.client import ClientError
from synapse.metrics import table
from synapse.push import notification
from synapse.replication.event_rows import NOTIFIES, EventRow
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.config.push import PushConfig
    from synapse.http.outside import OutsideClient
    from synapse.replication.streams import Rows
    from synapse.storage.events import EventsStore
    from synapse.storage.pushers import Due, Key, PusherStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

DELAY_SECONDS: Final = 0.1  # for more to come, so that it is looked up together
RETRY_SECONDS: Final = 5.0  # after the database has failed
PAGE: Final = 500  # pushers that are looked for at a time, at the start
AT_ONCE: Final = 100  # requests
RETRIES_AT_ONCE: Final = 20  # besides, to gateways that have failed: those that hang must not hold up the others
ANSWER_SECONDS: Final = 20.0
MAX_ANSWER: Final = 64 * 1024
FIRST_PAUSE: Final = 1.0  # seconds; each is twice the one before
LONGEST_PAUSE: Final = 3600.0
GIVE_UP_MS: Final = 24 * 3600 * 1000
_HEADERS: Final = (("Content-Type", "application/json"),)


class PushSending:
    """The duty.

    :param client: makes the client when there is something to send.
    :param present: how far this process has seen the stream of events.
    """

    def __init__(
        self,
        store: PusherStore,
        events: EventsStore,
        client: Callable[[], OutsideClient],
        present: Callable[[], int],
        clock: Clock,
        options: PushConfig,
    ) -> None:
        self.store = store
        self.present = present
        self.clock = clock
        self.slots = DeferredSemaphore(AT_ONCE)
        self.slots_of_retries = DeferredSemaphore(RETRIES_AT_ONCE)
        self._gateways = Gateways(events, client, options)
        self._on_duty = False
        self._users: set[str] = set()
        self._rooms: set[str] = set()
        self._sweep = False  # whether all pushers are to be looked through
        self._timer: Any = None
        self._looking = False
        self._senders: dict[Key, _Sender] = {}
        self._failing: set[Key] = set()

    async def begin(self) -> None:
        """Takes up what is left to send, and goes on with what comes."""
        self._on_duty = True
        self._sweep = True
        await self._look()

    async def end(self) -> None:
        self._on_duty = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        for sender in self._senders.values():
            sender.stop()
        self._senders.clear()
        self._failing.clear()
        table.PUSHERS_FAILING.set(0)
        await self._gateways.close()

    # -- news ------------------------------------------------------------------------------------------------------

    def events(self, position: int, rows: Rows) -> None:
        for _, row in rows:
            if not isinstance(row, EventRow):
                continue
            if row.unread is None:
                self._rooms.add(row.room_id)
            else:
                self._users.update(user_id for user_id, flags in row.unread if flags & NOTIFIES)
            self._users.add(row.sender)  # who has read what came before
        self._soon()

    def receipts(self, position: int, rows: Rows) -> None:
        self._users.update(row.user_id for _, row in rows)
        self._soon()

    def missed(self, position: int) -> None:
        """The stream of events starts anew: what was before will not come."""
        self._sweep = True
        self._soon()

    def _soon(self, delay: float = DELAY_SECONDS) -> None:
        if not self._on_duty:
            self._users.clear()
            self._rooms.clear()
        elif not self._looking and (self._timer is None or not self._timer.active()):
            self._timer = self.clock.callLater(delay, lambda: Deferred.fromCoroutine(self._look()))

    async def _look(self) -> None:
        """Finds the pushers that have something to tell, and has them do so."""
        users, rooms, sweep = self._users, self._rooms, self._sweep
        self._users, self._rooms, self._sweep = set(), set(), False
        self._looking = True
        delay = DELAY_SECONDS
        try:
            if sweep:
                await self._look_through_all()
            if users or rooms:
                self._wake(await self.store.concerned(users, rooms))
        except Exception as error:
            log_failure(logger, error, "Pushers could not be looked up; it is tried again")
            self._users |= users
            self._rooms |= rooms
            self._sweep |= sweep
            delay = RETRY_SECONDS
        finally:
            self._looking = False
        if self._users or self._rooms or self._sweep:
            self._soon(delay)

    async def _look_through_all(self) -> None:
        after: Key | None = None
        while self._on_duty:
            page = await self.store.behind(after, PAGE)
            self._wake(page)
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def _wake(self, pushers: list[tuple[Key, int]]) -> None:
        if not self._on_duty:
            return
        for key, set_ts in pushers:
            sender = self._senders.get(key)
            if sender is None:
                sender = self._senders[key] = _Sender(self, self._gateways, key)
            sender.wake(set_ts)

    def finished(self, key: Key) -> None:
        """A sender has told everything."""
        self._senders.pop(key, None)
        self.tell_failing(key, False)

    def tell_failing(self, key: Key, failing: bool) -> None:
        """Counts a sender among those that fail, or does not any more."""
        if failing:
            self._failing.add(key)
        else:
            self._failing.discard(key)
        table.PUSHERS_FAILING.set(len(self._failing))


class _Sender:
    """One pusher at work: it exists while there is something to tell, or to try again."""

    def __init__(self, duty: PushSending, gateways: Gateways, key: Key) -> None:
        self._duty = duty
        self._gateways = gateways
        self._key = key
        self._running = False
        self._again = False
        self._stopped = False
        self._failing = False
        self._pause = FIRST_PAUSE
        self._timer: Any = None
        self._set_ts = 0

    @property
    def is_waiting(self) -> bool:
        """Whether it pauses after a failure."""
        return self._timer is not None and bool(self._timer.active())

    def wake(self, set_ts: int) -> None:
        """There is something to tell. A gateway that fails is left alone until its time, or its pusher's change."""
        changed, self._set_ts = set_ts != self._set_ts, set_ts
        if self.is_waiting:
            if not changed:
                return
            self._timer.cancel()
            self._pause = FIRST_PAUSE
        self._run()

    def stop(self) -> None:
        self._stopped = True
        if self.is_waiting:
            self._timer.cancel()

    def _run(self) -> None:
        self._again = True
        if not self._running and not self._stopped:
            self._running = True
            Deferred.fromCoroutine(self._tell_all())

    async def _tell_all(self) -> None:
        try:
            while self._again and not self._stopped:
                self._again = False
                while await self._in_turn():
                    pass
        except ClientError as error:
            logger.info("A push gateway of %s (%s) cannot be told: %s", self._key.user_id, self._key.app_id, error)
            self._later()
        except Exception as error:
            if not self._stopped:
                log_failure(logger, error, "A pusher of %s failed; it is tried again", self._key.user_id)
            self._later()
        else:
            if not self._stopped:
                self._duty.finished(self._key)
        finally:
            self._running = False

    async def _in_turn(self) -> bool:
        slots = self._duty.slots_of_retries if self._failing else self._duty.slots
        await slots.acquire()
        try:
            return not self._stopped and await self._tell()
        finally:
            slots.release()

    async def _tell(self) -> bool:
        """Tells the next thing; False where there is none. Raises ClientError."""
        store, key, until = self._duty.store, self._key, self._duty.present()
        due = await store.due(key, until)
        if due is None or self._stopped:
            return False
        unread = self._gateways.unread(due)
        body = await self._gateways.body(key, due)
        if body is None and due.action is None:
            if due.failing_since is not None:  # to tell what has been read meanwhile
                await store.sent(key, None, due.badge)
            return False
        if body is not None:
            try:
                accepted = await self._gateways.post(key, due, body)
            except ClientError as error:
                await self._failed(due, until, unread, error)
                return True
            if self._stopped:
                return False
            if not accepted:
                logger.info("A push gateway refuses the pushkey of %s (%s) for good", key.user_id, key.app_id)
                await store.delete(key, due.set_ts)
                return True
        self._failing, self._pause = False, FIRST_PAUSE
        await store.sent(key, due.action and due.action.stream_ordering, due.badge if body is None else unread)
        return True

    async def _failed(self, due: Due, until: int, unread: int, error: ClientError) -> None:
        """Keeps since when it fails, and raises the error; returns where what was missed is given up."""
        now = int(self._duty.clock.seconds() * 1000)
        self._failing = True
        if self._stopped:
            raise error
        since = now if due.failing_since is None else due.failing_since
        if now - since < GIVE_UP_MS:
            if due.failing_since is None:
                await self._duty.store.failed(self._key, since)
            raise error
        logger.warning("Notifications of %s (%s) are given up: %s", self._key.user_id, self._key.app_id, error)
        table.PUSHES.child("given_up").inc()
        self._pause = FIRST_PAUSE
        await self._duty.store.sent(self._key, until, unread)

    def _later(self) -> None:
        if self._stopped:
            return
        self._timer = self._duty.clock.callLater(self._pause, self._run)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        self._duty.tell_failing(self._key, True)


class Gateways:
    """What is told to push gateways, and telling it."""

    def __init__(self, events: EventsStore, client: Callable[[], OutsideClient], options: PushConfig) -> None:
        self._events = events
        self._make_client = client
        self._client: OutsideClient | None = None
        self._options = options

    def unread(self, due: Due) -> int:
        """How much there is to read, in the unit that the configuration wants."""
        return due.rooms if self._options.group_unread_count_by_room else due.messages

    async def body(self, key: Key, due: Due) -> dict[str, Any] | None:
        """What is to be told; None where there is nothing, or of an event that was redacted meanwhile."""
        unread = self.unread(due)
        if due.action is None:
            return None if unread == due.badge else notification.of_count(key, due, unread)
        stored = await self._events.get(due.action.event_id)
        if stored is None or stored.redacted_by is not None:
            return None
        content = self._options.include_content
        return notification.of_event(key, due, due.action, stored.event, unread, include_content=content)

    async def post(self, key: Key, due: Due, body: dict[str, Any]) -> bool:
        """Tells it; False if the gateway does not know the pushkey. Raises ClientError, also for an error status."""
        if self._client is None:
            self._client = self._make_client()
        url = orjson.loads(due.data)["url"]
        try:
            answer = await self._client.request(
                "POST", url, orjson.dumps(body), _HEADERS, within=ANSWER_SECONDS, max_answer=MAX_ANSWER
            )
            if not 200 <= answer.code < 300:
                raise ClientError(f"it answers with the status {answer.code}.")
        except ClientError:
            table.PUSHES.child("failed").inc()
            raise
        accepted = not notification.rejects(answer, key.pushkey)
        table.PUSHES.child("sent" if accepted else "rejected").inc()
        return accepted

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()
