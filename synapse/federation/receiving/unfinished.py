"""Events whose transactions are answered before it is known what becomes of them: their sender does not send them
again, so they are written down, and are not lost if this process dies. Other transactions pay nothing for that.

Theory of operation. Work on a room's events that outlasts the answer goes on; its events are in the table
`unfinished_pdus`, held by this process, which says so again and again, and are deleted when the work is done. Events
that lack what cannot be fetched just now are there as well, to be looked at again later. What nobody holds any more
the main process takes up (`TakingUp`). Should two work on one event, the writer takes it once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from synapse.api.identifiers import is_event_id
from synapse.federation.receiving.faults import is_passing
from synapse.federation.receiving.room_events import RoomEvents
from synapse.storage.unfinished_pdus import FIRST_PAUSE_MS, UnfinishedPdu
from synapse.util.concurrency import run_for, spawn
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.federation.receiving.room_events import Entrance
    from synapse.storage.unfinished_pdus import UnfinishedPdusStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

HELD_MS: Final = 180_000
"""For so long after their last word, the events of a process that may have died are left alone."""

HOLD_SECONDS: Final = 60.0
"""How often a process says that it still works on them."""

MAX_TEXT: Final = 256 * 1024
"""Bytes of an event's text: four times what an event may have, for those that escape much."""

ROOMS_AT_ONCE: Final = 20
"""Rooms whose events are taken up at the same time."""

ROUND_SECONDS: Final = 60.0
"""How long these are waited for, before others are taken up."""


class Entered(Protocol):
    """Knows the rooms that this server takes part in."""

    async def versions(self, room_ids: Collection[str]) -> Mapping[str, RoomVersion]:
        """The versions of those of the rooms that a user of this server is joined to."""


class _Hold:
    """What is held of some events."""

    def __init__(self, event_ids: Sequence[str], *, is_written: bool) -> None:
        self.event_ids = event_ids
        self.is_written = is_written
        self.is_over = False


class Unfinished:
    """What this process works on, in any process.

    :param now: the time in milliseconds.
    """

    def __init__(self, store: UnfinishedPdusStore, clock: Clock, now: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock
        self._now = now
        self._held: dict[RoomEvents, _Hold] = {}
        self._timer: Any = None

    async def keep(self, works: Sequence[RoomEvents], going_on: Collection[RoomEvents]) -> None:
        """Write down what is waiting of a server's events, which are about to be answered; no statement where nothing
        is. `going_on`: those that are worked on still. `end` is called for each when it is done with."""
        pdus: list[UnfinishedPdu] = []
        due: list[int] = []
        now = self._now()
        held: dict[RoomEvents, _Hold] = {}
        for some in works:
            found = _pdus_of(some)
            if found and some in going_on:
                held[some] = _Hold([each.event_id for each in found], is_written=False)
            pdus += found
            due += [now + (HELD_MS if some in going_on else FIRST_PAUSE_MS)] * len(found)
        if not pdus:
            return
        logger.info("%d events of %s are to be looked at later", len(pdus), pdus[0].origin)
        self._held.update(held)
        try:
            await self._store.keep(pdus, due, now)
        except BaseException:
            for some in held:
                self._held.pop(some, None)
            raise
        for some, hold in held.items():
            hold.is_written = True
            if hold.is_over:
                await self._settle(some)
        self._go_on_holding()

    def adopt(self, some: RoomEvents) -> None:
        """These have been taken up; `end` is called when they are done with."""
        event_ids = [event_id for event_id in some.ids if event_id is not None]
        self._held[some] = _Hold(event_ids, is_written=True)
        self._go_on_holding()

    async def end(self, some: RoomEvents, *, failed: bool = False) -> None:
        """The work with these is over; or it `failed` for a reason of this server's, and is begun anew by whoever takes
        them up when they are not held any more."""
        hold = self._held.get(some)
        if hold is None:
            return
        hold.is_over = True
        if failed:
            del self._held[some]
        elif hold.is_written:
            await self._settle(some)

    async def _settle(self, some: RoomEvents) -> None:
        hold = self._held.pop(some, None)
        if hold is None:
            return
        waiting = set(some.waiting)
        again = [event_id for event_id in hold.event_ids if event_id in waiting]
        done = [event_id for event_id in hold.event_ids if event_id not in waiting]
        try:
            await self._store.settle(some.origin, done, again, self._now())
        except Exception as error:  # they will be taken up, and found to be here
            log_failure(logger, error, "It was not written down that events of %s are done with", some.origin)

    def _go_on_holding(self) -> None:
        if self._held and self._timer is None:
            self._timer = self._clock.callLater(HOLD_SECONDS, lambda: spawn(self._hold_all()))

    async def _hold_all(self) -> None:
        self._timer = None
        events = [(some.origin, i) for some, hold in self._held.items() if hold.is_written for i in hold.event_ids]
        try:
            if events:
                await self._store.hold(events, self._now() + HELD_MS)
        except Exception as error:
            log_failure(logger, error, "It was not written down that %d events are worked on", len(events))
        self._go_on_holding()


class TakingUp:
    """Takes up, in the main process, what nobody holds.

    :param entrance: made when there is something to take up.
    """

    def __init__(
        self,
        store: UnfinishedPdusStore,
        rooms: Entered,
        entrance: Callable[[], Entrance],
        unfinished: Unfinished,
        clock: Clock,
        now: Callable[[], int],
    ) -> None:
        self._store = store
        self._rooms = rooms
        self._entrance = entrance
        self._unfinished = unfinished
        self._clock = clock
        self._now = now
        self._busy: dict[str, int] = {}  # rooms under way, by origin

    async def round(self) -> None:
        """Takes up what is due. Returns when that is done, or a while later."""
        now = self._now()
        for origin, event_id in await self._store.forget(now):
            logger.info("The event %s of %s is given up: what it lacks could not be fetched", event_id, origin)
        end = self._clock.seconds() + ROUND_SECONDS
        while (left := end - self._clock.seconds()) > 0:
            now, rooms = self._now(), ROOMS_AT_ONCE - sum(self._busy.values())
            pdus = await self._store.take(now, now + HELD_MS, rooms, self._busy) if rooms > 0 else []
            if not pdus:
                return
            taken: dict[tuple[str, str], list[UnfinishedPdu]] = {}
            for pdu in pdus:
                taken.setdefault((pdu.origin, pdu.room_id), []).append(pdu)
            versions = await self._rooms.versions({room_id for _, room_id in taken})
            works = [self._take(some, versions.get(room_id)) for (_, room_id), some in taken.items()]
            await run_for(self._clock, left, works)

    async def _take(self, pdus: Sequence[UnfinishedPdu], version: RoomVersion | None) -> None:
        """Works on events of one server and room."""
        origin, room_id = pdus[0].origin, pdus[0].room_id
        self._busy[origin] = self._busy.get(origin, 0) + 1
        try:
            if version is None:
                logger.info("%d events of %s are given up: nobody is in %s any more", len(pdus), origin, room_id)
                await self._store.settle(origin, [pdu.event_id for pdu in pdus], [], self._now())
                return
            logger.info("%d events of %s for %s are looked at again", len(pdus), origin, room_id)
            some = RoomEvents(origin, room_id, version, [msgspec.Raw(pdu.pdu.encode()) for pdu in pdus])
            self._unfinished.adopt(some)
            await work_on(some, self._entrance(), self._unfinished)
            logger.info("%d of them are to be looked at again later", len(some.waiting))
        except Exception as error:
            log_failure(logger, error, "Events of %s for %s could not be looked at again", origin, room_id)
        finally:
            self._busy[origin] -= 1
            if not self._busy[origin]:
                del self._busy[origin]


async def work_on(some: RoomEvents, entrance: Entrance, unfinished: Unfinished) -> Exception | None:
    """Brings events into their room, as far as they may be; what says that this server cannot do it just now."""
    problem = None
    try:
        await entrance.take(some)
    except Exception as error:
        if is_passing(error):
            problem = error
        else:
            logger.error("Events of %s could not be looked at", some.origin, exc_info=error)
    await unfinished.end(some, failed=problem is not None)
    return problem


def _pdus_of(some: RoomEvents) -> list[UnfinishedPdu]:
    """Those of the events that are waiting, as far as they can be stored. (Others are not well-formed.)"""
    found: dict[str, UnfinishedPdu] = {}
    waiting = set(some.waiting)
    for event_id, raw in zip(some.ids, some.raws, strict=True):
        if event_id not in waiting or event_id is None or not is_event_id(event_id) or len(bytes(raw)) > MAX_TEXT:
            continue
        try:
            event_id.encode()
            text = bytes(raw).decode()
        except UnicodeError:
            continue
        if "\x00" not in text:
            found.setdefault(event_id, UnfinishedPdu(some.origin, some.room_id, event_id, text))
    return list(found.values())
