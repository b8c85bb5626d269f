"""What a process knows of the streams, and waking up those whom news concern.

The main process's writers, or a worker's replication client, say how far a stream has got and with which rows. First
the subscribers hear it, which keep caches right; then the positions that everybody sees move on; then, in a turn of
the reactor of its own, those who wait are woken. So whoever is woken finds caches that know what woke them.

Someone who waits costs nothing until a row concerns them: waiting users are found by the rooms of rows, not asked in
turn.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred

from synapse.replication.streams import BY_NAME, STREAMS, Rows, concerned

if TYPE_CHECKING:
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

Listener = Callable[[int, Rows], None]
Reset = Callable[[int], None]

KEPT_INTERESTS: Final = 10_000


class Contacts(Protocol):
    """Knows which rooms users are in."""

    def __call__(self, user_ids: set[str], /) -> Awaitable[Iterable[str]]:
        """The rooms that any of these users is joined to."""


class Notifier:
    """The streams as seen by this process.

    :param contacts: finds whom the presence and the devices of a user concern; None where nobody waits for these.
    """

    def __init__(self, clock: Clock, contacts: Contacts | None = None) -> None:
        self._clock = clock
        self._contacts = contacts
        self._positions = {stream.name: 0 for stream in STREAMS}
        self._listeners: dict[str, list[Listener]] = defaultdict(list)
        self._resets: dict[str, list[Reset]] = defaultdict(list)
        self._started: set[str] = set()
        self._waiting = _Waiting()
        self._users: set[str] = set()
        self._rooms: set[str] = set()
        self._contacts_of: set[str] = set()
        self._scheduled = False
        self._leaving = False
        self.on_first_listener: Callable[[str], None] = lambda stream: None
        """Is told of a stream that somebody begins to listen to, the first one here."""
        self._moved: list[tuple[Callable[[], bool], Deferred[bool]]] = []

    # -- hearing of news -------------------------------------------------------------------------------------------

    def subscribe(self, stream: str, listener: Listener, reset: Reset | None = None) -> None:
        """Has `listener(position, rows)` called whenever the stream advances, in order.

        `reset(position)` is called when the stream starts at a position, or starts anew: rows before it will not
        come, and what was known must be forgotten (`caches`) or is replaced by the rows that follow (`typing`).
        Who subscribes to a stream that has started already is called at once.
        """
        first = not self._listeners[_known(stream)]
        self._listeners[stream].append(listener)
        if first:
            self.on_first_listener(stream)
        if reset is not None:
            self._resets[stream].append(reset)
            if stream in self._started:
                _guarded(stream, reset, self._positions[stream])

    @property
    def listened_to(self) -> list[str]:
        """The streams that somebody here wants to hear of."""
        return [name for name in self._positions if self._listeners.get(name)]

    def position(self, stream: str) -> int:
        """Everything of the stream up to here has been heard of, and is in the database."""
        return self._positions[stream]

    @property
    def positions(self) -> dict[str, int]:
        """The position of every stream, by its name; not to be changed."""
        return self._positions

    # -- telling of news -------------------------------------------------------------------------------------------

    def start(self, stream: str, position: int) -> None:
        """The stream starts (anew) at this position."""
        self._positions[_known(stream)] = position
        self._started.add(stream)
        for reset in self._resets[stream]:
            _guarded(stream, reset, position)
        self._check_moved()

    def on_advance(self, stream: str, position: int, rows: Rows) -> None:
        """The stream has reached `position` with these rows, each with its own; they are committed."""
        for listener in self._listeners[stream]:
            _guarded(stream, listener, position, rows)
        self._positions[stream] = max(position, self._positions[stream])
        self._check_moved()
        if rows and self._waiting:
            users, rooms, contacts = concerned(BY_NAME[stream], rows)
            self.wake(users, rooms, contacts)

    def wake(self, users: Iterable[str] = (), rooms: Iterable[str] = (), contacts_of: Iterable[str] = ()) -> None:
        """Wakes these users, those who wait for news of these rooms, and those who share a room with `contacts_of`."""
        self._users.update(users)
        self._rooms.update(rooms)
        self._contacts_of.update(contacts_of)
        if not self._scheduled:
            self._scheduled = True
            # Not now: who has just written something is answered before everybody else is told of it.
            self._clock.callLater(0, self._wake)

    # -- waiting ---------------------------------------------------------------------------------------------------

    async def wait(self, user_id: str, room_ids: frozenset[str], seconds: float) -> bool:
        """Waits for a row that concerns the user or one of the rooms; False if the time is over or the process leaves.

        Rows that came before the call are not waited for; compare positions first.
        """
        if self._leaving or seconds <= 0:
            return False
        waiter = self._waiting.add(user_id, room_ids)
        timer = self._clock.callLater(seconds, self._waiting.end, user_id, waiter, False)
        try:
            return await waiter
        finally:
            self._waiting.discard(user_id, waiter)
            if timer.active():
                timer.cancel()

    async def wait_until(self, stream: str, position: int, seconds: float = 10.0) -> bool:
        """Waits until this process has heard of the stream up to `position`; False if the time is over before.

        A worker that has had the main process write something waits here to see its own write.
        """
        return await self.wait_for(lambda: self._positions[stream] >= position, seconds)

    async def wait_for(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Waits until `reached()`, which looks at `positions`; False if the time is over before."""
        if reached():
            return True
        waiter: Deferred[bool] = Deferred()
        entry = (reached, waiter)
        self._moved.append(entry)
        timer = self._clock.callLater(seconds, _end, waiter, False)
        try:
            return await waiter
        finally:
            if entry in self._moved:
                self._moved.remove(entry)
            if timer.active():
                timer.cancel()

    async def wait_until_started(self, seconds: float) -> bool:
        """Waits until the positions of all streams that somebody listens to are known; False if the time is over."""
        return await self.wait_for(lambda: self._started.issuperset(self.listened_to), seconds)

    def leave(self) -> None:
        """The process is about to end: whoever waits is answered, and nobody waits any more."""
        self._leaving = True
        self._waiting.end_all()
        for _, waiter in list(self._moved):
            _end(waiter, False)

    @property
    def waiting(self) -> int:
        """How many wait for news; for metrics."""
        return self._waiting.count

    # -- within ----------------------------------------------------------------------------------------------------

    def _check_moved(self) -> None:
        for reached, waiter in list(self._moved):
            if reached():
                _end(waiter, True)

    def _wake(self) -> None:
        self._scheduled = False
        users, rooms, contacts = self._users, self._rooms, self._contacts_of
        self._users, self._rooms, self._contacts_of = set(), set(), set()
        self._waiting.wake(users, rooms)
        if contacts and self._contacts is not None and self._waiting:
            Deferred.fromCoroutine(self._wake_contacts(contacts, self._contacts)).addErrback(_log)

    async def _wake_contacts(self, user_ids: set[str], contacts: Contacts) -> None:
        self._waiting.wake((), await contacts(user_ids))


class _Waiting:
    """Users who wait, found by their id and by the rooms that they are interested in.

    The interests of a user are kept from one wait to the next, since they are mostly the same.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiters: dict[str, list[Deferred[bool]]] = {}
        self._interests: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._by_room: dict[str, set[str]] = {}

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, user_id: str, room_ids: frozenset[str]) -> Deferred[bool]:
        self._interest(user_id, room_ids)
        waiter: Deferred[bool] = Deferred()
        self._waiters.setdefault(user_id, []).append(waiter)
        self.count += 1
        return waiter

    def discard(self, user_id: str, waiter: Deferred[bool]) -> None:
        """Forgets one who waits no more, woken or not."""
        waiters = self._waiters.get(user_id)
        if waiters is None or waiter not in waiters:
            return
        self.count -= 1
        waiters.remove(waiter)
        if not waiters:
            del self._waiters[user_id]

    def end(self, user_id: str, waiter: Deferred[bool], answer: bool) -> None:
        self.discard(user_id, waiter)
        _end(waiter, answer)

    def end_all(self) -> None:
        for user_id, waiters in list(self._waiters.items()):
            for waiter in list(waiters):
                self.end(user_id, waiter, False)

    def wake(self, users: Iterable[str], rooms: Iterable[str]) -> None:
        woken = {user_id for user_id in users if user_id in self._waiters}
        for room_id in rooms:
            woken.update(user_id for user_id in self._by_room.get(room_id, ()) if user_id in self._waiters)
        for user_id in woken:
            # A copy: who is woken may wait again at once.
            for waiter in list(self._waiters.get(user_id, ())):
                self.end(user_id, waiter, True)

    def _interest(self, user_id: str, room_ids: frozenset[str]) -> None:
        before = self._interests.get(user_id, frozenset())
        if before is not room_ids and before != room_ids:
            # Another device that waits now may have other rooms, because of its filter.
            wanted = room_ids | before if user_id in self._waiters else room_ids
            self._change(user_id, before, wanted)
            self._interests[user_id] = wanted
        elif user_id not in self._interests:
            self._interests[user_id] = room_ids
        self._interests.move_to_end(user_id)
        if len(self._interests) > KEPT_INTERESTS:
            self._forget_oldest()

    def _change(self, user_id: str, before: frozenset[str], wanted: frozenset[str]) -> None:
        for room_id in before - wanted:
            users = self._by_room[room_id]
            users.discard(user_id)
            if not users:
                del self._by_room[room_id]
        for room_id in wanted - before:
            self._by_room.setdefault(room_id, set()).add(user_id)

    def _forget_oldest(self) -> None:
        """Drops the interests of one who does not wait, if the first few are such."""
        for user_id in list(self._interests)[:10]:
            if user_id not in self._waiters:
                self._change(user_id, self._interests.pop(user_id), frozenset())
                return


def _known(stream: str) -> str:
    if stream not in BY_NAME:
        raise ValueError(f"there is no stream {stream}")
    return stream


def _guarded(stream: str, function: Callable[..., None], *args: Any) -> None:
    """One listener's fault must not keep others from hearing."""
    try:
        function(*args)
    except Exception:
        logger.exception("A listener to the stream %s failed", stream)


def _end(waiter: Deferred[bool], answer: bool) -> None:
    if not waiter.called:
        waiter.callback(answer)


def _log(failure: Any) -> None:
    logger.error("Waking up contacts failed", exc_info=failure.value)
