"""Events of other servers on their way into a room: from checks 1 to 3, which they have passed, to the writer.

Theory of operation. Each event of a batch gets its predecessors, its auth events, check 4, the word of its policy
server, and the users whom it concerns; then the batch goes to the writer, which makes checks 5 and 6, since it alone
knows exactly what the room is. Batches that lack something, which has to be fetched, wait for each other
(`gap_queues`); no event overtakes those that it comes after. Several processes may do this at the same time, and the
same event may be in two batches: the writer takes it once.

Server-server API, "Checks performed on receipt of a PDU"; room version 3, "Handling redactions".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from synapse.api.constants import EventTypes
from synapse.api.errors import AuthError, invalid_param
from synapse.api.identifiers import create_id_of_room
from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.events.power_levels import PowerLevels
from synapse.federation.receiving.faults import Later, Unfit, is_passing
from synapse.federation.receiving.gap_queues import GapQueues
from synapse.federation.receiving.judging import judge, judge_many
from synapse.federation.receiving.order import ancestors_first, predecessors_of
from synapse.federation.receiving.work import Allowance, Work
from synapse.storage.persist_events import Fate, Kind, Persisted, PushAction, Receipt, Received, ReceivedEvent
from synapse.util.concurrency import Linearizer

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.federation.receiving.ancestors import Ancestors
    from synapse.state.heads import RoomHeads
    from synapse.state.store import StateReader
    from synapse.storage.events import EventsStore, StoredEvent
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

PER_WRITE: Final = 100
"""Events that are handed to the writer in one go."""

BYTES_PER_WRITE: Final = 8 * 1024 * 1024

_POLICY: Final = (EventTypes.POLICY, "")
_DECIDING: Final = [auth.CREATE_KEY, (EventTypes.POWER_LEVELS, ""), _POLICY]

State = Mapping[StateKey, "StoredEvent"]
T = TypeVar("T")


class Audience(Protocol):
    """Says whom an event concerns; see `synapse.push.bulk.BulkPush`."""

    async def __call__(self, event: Event, state: State) -> tuple[str, Collection[PushAction]]: ...


class Recommending(Protocol):
    """Knows what rooms' policy servers think; see `synapse.handlers.policy_server`."""

    async def objection(self, event: Event, state: State) -> str | None:
        """Why the event is not recommended for the room; None where it is, or the room uses no policy server. `state`
        is the room's present one, its m.room.policy included."""


Write = Callable[[Received], Awaitable[Receipt]]
"""Hands events to the writer, from whichever process."""


class Pipeline:
    """Takes events in, in any process.

    :param reader: reads events.
    :param ancestors: set after it is made, since it writes outliers through `keep`.
    :param caught_up: waits until this process has heard of that position of the events stream.
    """

    ancestors: Ancestors

    def __init__(
        self,
        heads: RoomHeads,
        state: StateReader,
        reader: EventsStore,
        audience: Audience,
        policy: Recommending,
        write: Write,
        caught_up: Callable[[int], Awaitable[None]],
        clock: Clock,
    ) -> None:
        self._heads = heads
        self._state = state
        self._reader = reader
        self._audience = audience
        self._policy = policy
        self._write = write
        self._caught_up = caught_up
        self._clock = clock
        self._gap_queues = GapQueues(clock)
        self._histories: Linearizer[str] = Linearizer()

    # -- ways in -----------------------------------------------------------------------------------------------------

    async def receive(
        self, origin: str, room_id: str, version: RoomVersion, events: Sequence[Event]
    ) -> dict[str, str | None]:
        """Take in events that a server has sent, in whatever order, all of one room and past checks 1 to 3.

        For each event id: why it is not kept, as a sentence for that server (a `Later`, where another time may be
        better), or None. An event that is kept may have been rejected or soft-failed; that is for this server to know.
        Answers when they are written, which may take as long as fetching their ancestors. Raises MatrixError (429, 503)
        or a `Problem` where this server cannot do it just now: nothing is lost then if the events are sent again.
        """
        work = await self._begin_from_memory(origin, room_id, version, events)
        if _is_complete(work, events):
            work.allowance = Allowance(self._clock, requests=0)
            return await self._receive(work, events)
        try:
            async with self._gap_queues.turn(origin, room_id, len(events)):
                return await self._receive(await self._begin(origin, room_id, version, events), events)
        except Unfit as unfit:
            return dict.fromkeys((event.event_id for event in events), Later(unfit.reason))

    async def _receive(self, work: Work, events: Sequence[Event]) -> dict[str, str | None]:
        ordered = ancestors_first(events, predecessors_of)
        results = {event.event_id: await self._receive_one(work, event) for event in ordered}
        await self._flush(work)
        return {event_id: work.refused.get(event_id, problem) for event_id, problem in results.items()}

    async def accept(self, origin: str, event: Event, *, relay: bool | None = None) -> Persisted:
        """Take in one event that a server asks this one to bring into a room (send_join, send_leave, send_knock,
        exchanged invites), past checks 1 to 3. Answers when it is written, and known in this process.

        Nothing is fetched for its sake: it was made from a template of ours. Raises 403 M_FORBIDDEN where the room does
        not allow it, at its place or now, or its policy server does not recommend it; 400 M_INVALID_PARAM where it
        refers to what is not here.
        """
        return await self._accept(await self._begin(origin, event.room_id, event.room_version, [event]), event, relay)

    async def history(
        self, origin: str, room_id: str, version: RoomVersion, events: Sequence[Event]
    ) -> dict[str, str | None]:
        """Take in what came before the events that are here, as another server tells it (backfill); results as those
        of `receive`. The states where history ends are fetched from `origin`."""
        results: dict[str, str | None] = {event.event_id: None for event in events}
        async with self._histories.queue(room_id):
            work = await self._begin(origin, room_id, version, events)
            for event in ancestors_first(events, predecessors_of):
                try:
                    await self._add_history(work, event)
                except Unfit as unfit:
                    results[event.event_id] = unfit.reason
            await self._flush(work, Kind.HISTORY)
        return {event_id: work.refused.get(event_id, problem) for event_id, problem in results.items()}

    async def auth_checked(self, events: Sequence[Event], version: RoomVersion) -> list[tuple[Event, str | None]]:
        """Check 4 of a set of events that is complete in itself (a room's state and its auth chain), those that are
        cited before those that cite them; each with the reason why its auth events do not allow it, or None.

        The room is that of the first m.room.create event among them. What belongs to another is left out, as is what
        cites an event that is not in the set.
        """
        room_id = next((event.room_id for event in events if event.type == EventTypes.CREATE), "")
        create_id = create_id_of_room(room_id) if version.room_id_from_create else None
        own = [event for event in events if event.room_id == room_id]
        return await judge_many(self._clock, own, create_id, lambda _: None)

    async def keep(self, work: Work) -> None:
        """Write the outliers that a batch has collected, and learn of them."""
        outliers = list(work.outliers.values())
        for piece in _pieces(outliers, lambda outlier: len(outlier.event.json)):
            await self._write(Received(work.room_id, work.version, (), piece))
        await work.written([outlier.event.event_id for outlier in outliers])

    # -- one event ---------------------------------------------------------------------------------------------------

    async def _receive_one(self, work: Work, event: Event) -> str | None:
        """Why the event is not kept. What goes wrong with one is no matter of the others, unless it is ours."""
        work.fell_short = False
        try:
            if work.has_place(event.event_id):
                return None
            _check_place(event)
            work.check_rooms(event)
            if work.gaps(event):
                await self._fill(work, event)
            await self._add(work, event, None)
        except Unfit as unfit:
            logger.info("The event %s of %s is not kept: %s", event.event_id, work.origin, unfit.reason)
            return Later(unfit.reason) if work.fell_short else unfit.reason
        except Exception as error:
            if is_passing(error):
                raise
            logger.error("The event %s of %s could not be looked at", event.event_id, work.origin, exc_info=error)
            return "This server failed to look at the event."
        return None

    async def _fill(self, work: Work, event: Event) -> None:
        """Fetch what leads to the event, and add it."""
        head = await self._heads.get(work.room_id)
        earliest = [] if head is None else head.prev_events
        try:
            for missing in await self.ancestors.fill(work, event, earliest):
                try:
                    await self._add_missing(work, missing)
                except Unfit as unfit:
                    logger.info("The event %s of %s is not kept: %s", missing.event_id, work.origin, unfit.reason)
            if work.gaps(event):
                raise Unfit("What came before the event cannot be had.")
        except Unfit:
            self._gap_queues.was_vain(work.origin, work.room_id)
            raise

    async def _add_missing(self, work: Work, event: Event) -> None:
        """Add an event that was fetched because another comes after it."""
        if work.has_place(event.event_id):
            return
        _check_place(event)
        work.check_rooms(event)
        gaps = work.gaps(event)
        if not gaps:
            await self._add(work, event, None)
            return
        await work.written(await self._flush(work))  # the state before the event may depend on those
        await self._add(work, event, await self.ancestors.state_before(work, event, gaps))

    async def _add(self, work: Work, event: Event, state_before: Mapping[StateKey, str] | None) -> None:
        """Check 4, and what is to be known besides, of an event whose place is known."""
        await self.ancestors.auth_chain(work, event)
        rejected = judge(event, work.create_id, work.find)
        state = await self._state.current(work.room_id, _DECIDING)
        received = ReceivedEvent(event, rejected, state_before=state_before)
        if rejected is None:
            objection = await self._objection(work, event, state)
            received = received._replace(soft_failed=objection)
            if objection is None:
                thread_id, push = await self._audience(event, state)
                received = received._replace(push=tuple(push), thread_id=thread_id)
        work.new[event.event_id] = received

    async def _objection(self, work: Work, event: Event, state: State) -> str | None:
        """Why clients are not to see the event, though it is allowed."""
        if (
            event.type == EventTypes.REDACTION
            and event.redacts is not None
            and not event.room_version.redaction_auth_rule
        ):
            await work.look_up([event.redacts])
            target = work.find(event.redacts)
            levels = PowerLevels.of_state({key: stored.event for key, stored in state.items()}, event.room_version)
            if target is not None and not auth.may_redact(event, target.event, levels):
                return f"Its sender may not redact {event.redacts}."
        return await self._policy.objection(event, state) if _POLICY in state else None

    async def _add_history(self, work: Work, event: Event) -> None:
        if work.has_place(event.event_id):
            return
        if event.type != EventTypes.CREATE:
            _check_place(event)
        state_before = None
        if work.gaps(event):
            await work.written(await self._flush(work, Kind.HISTORY))
            state_before = await self.ancestors.state_at(work, event, event.event_id)
        await self.ancestors.auth_chain(work, event)
        rejected = judge(event, work.create_id, work.find)
        work.new[event.event_id] = ReceivedEvent(event, rejected, state_before=state_before)

    # -- an event that is asked for ----------------------------------------------------------------------------------

    async def _accept(self, work: Work, event: Event, relay: bool | None) -> Persisted:
        try:
            known = work.stored.get(event.event_id)
            if known is None or known.outlier:
                _check_place(event)
                if work.gaps(event):
                    raise Unfit("The event comes after events that this server does not have.")
                rejected = judge(event, work.create_id, work.find)
                if rejected is not None:
                    raise AuthError(rejected)
        except Unfit as unfit:
            raise invalid_param(unfit.reason) from None
        if known is None or known.outlier:
            await self._add(work, event, None)
            received = work.new[event.event_id]._replace(relay=relay)
            if received.soft_failed is not None:
                raise AuthError(received.soft_failed)
            receipt = await self._write(Received(work.room_id, work.version, (received,)))
            await self._caught_up(receipt.position)
            fate, reason = receipt.fates[0]
            if fate in (Fate.REJECTED, Fate.SOFT_FAILED, Fate.REFUSED):
                raise AuthError(reason or "The room does not allow the event.")
            await work.written([event.event_id])
            known = work.stored.get(event.event_id)
        if known is None or known.rejected is not None or known.soft_failed:
            raise AuthError(
                "The room does not allow the event."
                if known is None
                else known.rejected or "The room does not allow the event now."
            )
        return Persisted(event.event_id, known.stream_ordering)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _flush(self, work: Work, kind: Kind = Kind.TIMELINE) -> Collection[str]:
        """Hand to the writer what is ready; returns the events' ids."""
        await self._keep_if_any(work)
        ready = list(work.new.values())
        for piece in _pieces(ready, lambda received: len(received.event.json)):
            receipt = await self._write(Received(work.room_id, work.version, piece, (), kind))
            for received, (fate, reason) in zip(piece, receipt.fates, strict=True):
                event_id = received.event.event_id
                if fate is Fate.REFUSED:
                    work.refused[event_id] = reason or "This server takes no part in the room."
                elif fate in (Fate.REJECTED, Fate.SOFT_FAILED):
                    logger.info("The event %s of %s is %s: %s", event_id, work.origin, fate.value, reason)
        return [received.event.event_id for received in ready]

    async def _keep_if_any(self, work: Work) -> None:
        if work.outliers:
            await self.keep(work)

    async def _begin(self, origin: str, room_id: str, version: RoomVersion, events: Sequence[Event]) -> Work:
        """The work with a batch of events, of which is known what is here."""
        work = Work(origin, room_id, version, self._reader, Allowance(self._clock))
        await work.look_up(work.cited_by(events))
        return work

    async def _begin_from_memory(
        self, origin: str, room_id: str, version: RoomVersion, events: Sequence[Event]
    ) -> Work:
        """The same. The database is only asked where memory does not know enough; of messages that come after what is
        the room's end, it does."""
        work = Work(origin, room_id, version, self._reader, Allowance(self._clock))
        lacking = work.recall(events)
        if lacking and lacking.issubset(event_id for event in events for event_id in event.prev_event_ids):
            head = await self._heads.get(room_id)
            work.ends = () if head is None else head.extremities
            lacking.difference_update(work.ends)
        if lacking:
            await work.look_up(work.cited_by(events))
        return work


def _is_complete(work: Work, events: Sequence[Event]) -> bool:
    """Whether everything that the events refer to is here, or among them."""
    own = {event.event_id for event in events}
    return all(
        event_id in own or work.has_place(event_id) for event in events for event_id in event.prev_event_ids
    ) and all(event_id in own or work.find(event_id) for event in events for event_id in event.auth_event_ids)


def _check_place(event: Event) -> None:
    """Raises Unfit for what could have no place in a room that exists."""
    if event.type == EventTypes.CREATE:
        raise Unfit("The room has been created already.")
    if not event.prev_event_ids:
        raise Unfit("The event comes after nothing, and is not the first of its room.")


def _pieces(items: Sequence[T], size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """The items in their order, in pieces that fit into one call of the writer."""
    piece: list[T] = []
    total = 0
    for item in items:
        if piece and (len(piece) >= PER_WRITE or total + size(item) > BYTES_PER_WRITE):
            yield piece
            piece, total = [], 0
        piece.append(item)
        total += size(item)
    if piece:
        yield piece
