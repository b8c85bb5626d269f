"""What received events mean for their rooms: checks 5 and 6 of the specification, and what follows from them.

Theory of operation. `Reception.add` is called for one `Received` after the other and adds to the batch's plan. Each
event stands for itself. It finds the state in which its predecessors' branches meet, or the one that its receipt
brought along, where predecessors are missing. Whether it is allowed there is check 5; one that is not is *rejected*:
kept, since others may refer to it, without any effect. Whether the room's present state allows it too is check 6; one
that it does not allow *soft-fails*: it counts in the states of what comes after it, and is otherwise nowhere seen.
Neither is ever an extremity, so what an extremity has behind it is looked for through them.

Two things may have come before an event: one that refers to it, and one that redacts it. `Awaited` knows of both.
What redacts it was held back, as a soft-failed event is, unless the auth rules have judged it (until room version 2):
clients hear of it after its target.

Server-server API, "Checks performed on receipt of a PDU", "Rejection", "Soft failure"; room version 3, "Handling
redactions".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.api.constants import EventTypes
from synapse.api.errors import AuthError
from synapse.api.identifiers import domain_of, is_event_id
from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.events.power_levels import PowerLevels
from synapse.storage.awaited import Awaited, Gap
from synapse.storage.persist_derived import (
    Change,
    membership_row,
    received_row,
    relation_of_row,
    write_audience,
    write_auth_events,
    write_relation,
)
from synapse.storage.persist_entering import Entering
from synapse.storage.persist_events import Fate, Kind, NewEvent, Received, ReceivedEvent
from synapse.storage.persist_plan import BatchPlan, Planned
from synapse.storage.persist_received_rows import Lack, PendingRedaction, Released
from synapse.storage.persist_resolution import MAX_DISPUTED, TooDisputed
from synapse.storage.persist_rows import Rows

if TYPE_CHECKING:
    from synapse.state.groups import Line
    from synapse.storage.events import Mark
    from synapse.storage.memberships import MembershipsStore
    from synapse.storage.persist_plan import Positions
    from synapse.storage.persist_room import RoomEnd

MAX_EXTREMITIES: Final = 500
MAX_BRANCHES: Final = 50
"""Forward extremities of a room, and different states that they may have, beyond which no event opens a branch: what
becomes of the room's state is found out anew with each."""

MAX_BEHIND: Final = 100
"""Rejected and soft-failed events through which is looked for extremities."""

Verdict = tuple[Fate, str]
"""What became of an event, and why."""

NOT_HERE: Final = (Fate.REFUSED, "This server takes no part in the room.")
DISPUTED: Final = (Fate.REFUSED, "The room's branches disagree on more than this server resolves.")
EARLY: Final = "The event that it redacts is not here yet."
LOST: Final = (Fate.REFUSED, "The events that this one refers to are not here, nor is it known what the state was.")


class _Place(NamedTuple):
    """Where an event stands. `before` is the state that it finds (None: nothing, it is the room's first event); `lacks`
    are its predecessors that are not here. `is_straight`: it comes after everything in the room. `is_late`: others that
    are here refer to it already. `redactors` are the redactions that have come before it, the first of which is in
    force. `fills`: the position of the gap in which it was missing."""

    before: Line | None
    is_straight: bool = False
    is_late: bool = False
    lacks: Sequence[str] = ()
    redactors: Sequence[str] = ()
    fills: int | None = None

    @property
    def redactor(self) -> str | None:
        return next(iter(self.redactors), None)


class _Arrival(NamedTuple):
    """Where an event stands in the order of arrival; None: after all others. See `_Place.fills`."""

    position: int | None = None
    fills: int | None = None


NEW: Final = _Arrival()


class _Room:
    """A `Received` at work."""

    def __init__(self, end: RoomEnd, received: Received) -> None:
        self.end = end
        self.kind = received.kind
        self.most = None if received.kind is Kind.JOIN else MAX_DISPUTED  # entries that are resolved
        self.rows = Rows()
        self.planned: list[Planned] = []
        self.written: dict[str, int] = {}


class Reception:
    """Adds received events to a plan.

    :param backwards: hands out positions of history, each lower than the one before.
    :param marks: what is known of events that are stored, by id.
    :param is_known: whether an event was written a moment ago.
    """

    def __init__(
        self,
        plan: BatchPlan,
        backwards: Positions,
        marks: Mapping[str, Mark],
        is_known: Callable[[str], bool],
        memberships: MembershipsStore,
    ) -> None:
        self._plan = plan
        self._branches = plan.branches
        self._state = plan.state
        self._backwards = backwards
        self._marks = marks
        self._is_known = is_known
        self._entering = Entering(plan, backwards, marks, memberships)

    async def add(self, received: Received) -> list[Verdict]:
        """Plan received events; what becomes of each of them."""
        end = await self._plan.end_of(received.room_id)
        if received.kind is Kind.ASIDE:
            return await self._entering.aside(end, received)
        takes_part = end is not None and end.residents > 0
        if received.kind is Kind.JOIN and not takes_part and not self._is_here(received.events[0].event.event_id):
            return await self._entering.join(end, received)
        if end is None or not takes_part:
            return [NOT_HERE for _ in received.events]
        room = _Room(end, received)
        verdicts: list[Verdict] = []
        places = await self._places_in_history(end, received)
        for number, each in enumerate(received.events):
            if received.kind is Kind.JOIN:
                each = each._replace(relay=False)  # another server has let our user in, and tells the others
            if self._is_here(each.event.event_id) or each.event.event_id in room.written:
                verdicts.append((Fate.KNOWN, ""))
            else:
                verdicts.append(await self._add_event(room, each, places[number] if places else NEW))
        if room.written:
            self._plan.keep(room.end, room.rows, room.planned, room.written)
        return verdicts

    def _is_here(self, event_id: str) -> bool:
        mark = self._marks.get(event_id)
        if event_id in self._plan.written:
            return True
        return self._is_known(event_id) if mark is None else not mark.outlier

    async def _places_in_history(self, end: RoomEnd, received: Received) -> list[_Arrival]:
        """When events of the past count as arrived. Their positions: the later of them are the higher. What they fill:
        the gap that has been known of them, or of what refers to them; of who stands alone in it, the next one."""
        if received.kind is not Kind.HISTORY:
            return []
        awaited = await self._plan.committed.awaited_events(
            end, {each for event, *_ in received.events for each in (event.event_id, *event.prev_event_ids)}
        )
        filled: dict[str, Gap] = {}
        arrivals: list[_Arrival] = []
        for each in reversed(received.events):
            event = each.event
            gap = filled.get(event.event_id) or awaited.missing.get(event.event_id)
            if gap is None:
                gap = min((gap for gap in awaited.missing.values() if gap.depth > event.depth), default=None)
            arrivals.append(_Arrival(self._backwards.next(), None if gap is None else gap.position))
            if gap is not None:
                for before in event.prev_event_ids:
                    filled[before] = gap.joined(filled.get(before) or awaited.missing.get(before, gap))
        return arrivals[::-1]

    # -- one event -------------------------------------------------------------------------------------------------

    async def _add_event(self, room: _Room, each: ReceivedEvent, arrival: _Arrival) -> Verdict:
        event = each.event
        mark = self._marks.get(event.event_id)
        rejected = each.rejected or (None if mark is None else mark.rejected)
        try:
            place = await self._place(room, each)
        except TooDisputed:
            return DISPUTED
        if place is None:
            return self._leave_aside(room, each, rejected)
        place = place._replace(fills=arrival.fills)
        rejected = rejected or await self._why_rejected(room.end, event, place)
        position = arrival.position
        if position is None:
            plan = self._plan
            position = plan.positions.next() if place.is_straight else plan.position_after_gap()
        if rejected is not None:
            self._write(room, each, place, position, place.before, rejected=rejected)
            await self._note_obsolete(room.end, event, place)
            return (Fate.REJECTED, rejected)
        soft_failed = each.soft_failed
        if soft_failed is None and room.kind is Kind.TIMELINE and not place.is_straight:
            soft_failed = _why_one_too_many(room.end, event) or await self._why_soft_failed(room.end, event)
        redacts = each.redacts
        if soft_failed is None and redacts is None and event.type == EventTypes.REDACTION:
            redacts, soft_failed = await self._redacts(room, event, place, position)
        self._state.add_event(event)
        after = await self._branches.after(place.before, event, room.rows)
        if soft_failed is not None:
            self._write(room, each, place, position, after, soft_failed=soft_failed)
            await self._note_obsolete(room.end, event, place)
            return (Fate.SOFT_FAILED, soft_failed)
        kept = room.end if place.is_straight else room.end.copy()
        try:
            await self._accept(room, each, place, position, after, redacts)
        except TooDisputed:
            room.end = kept
            self._write(room, each, place, position, after, soft_failed=DISPUTED[1])
            return (Fate.SOFT_FAILED, DISPUTED[1])
        return (Fate.ACCEPTED, "")

    async def _place(self, room: _Room, each: ReceivedEvent) -> _Place | None:
        """Where the event stands; None where that cannot be known."""
        end, event = room.end, each.event
        previous = event.prev_event_ids
        is_late, redactors = await self._awaited(end, event)
        if end.line is not None and end.is_after(previous) and room.kind is not Kind.HISTORY:
            return _Place(end.line, True, False, (), redactors)
        if not previous:
            create = await self._branches.present(end, auth.CREATE_KEY)
            is_first = create is not None and create.event_id == event.event_id
            return _Place(None, False, True, (), redactors) if is_first else None
        groups = await self._branches.groups_after(end, previous)
        lacks = [event_id for event_id in previous if event_id not in groups]
        # In what state one of our users has entered is for the server to say that let them in.
        if not lacks and (room.kind is not Kind.JOIN or each.state_before is None):
            before = await self._branches.where_they_meet(end, set(groups.values()), room.rows, room.most)
            return _Place(before, False, is_late, (), redactors)
        state = None if each.state_before is None else await self._usable(room, each.state_before)
        if state is None:
            return None
        before = await self._branches.as_told(end, state, await self._nearby(room, event), room.rows)
        return _Place(before, False, is_late, lacks, redactors)

    async def _usable(self, room: _Room, state: Mapping[StateKey, str]) -> dict[StateKey, str] | None:
        """The state as it was told, without rejected events; None where some of it is not here."""
        odd = await self._plan.committed.odd_ones(room.end.room_id, list(state.values()))
        if None in odd.values():
            return None
        return {key: event_id for key, event_id in state.items() if event_id not in odd}

    async def _nearby(self, room: _Room, event: Event) -> Line | None:
        """A state that is likely to be much like the one that an event finds."""
        if room.kind is not Kind.HISTORY:
            return room.end.line
        group = await self._plan.committed.group_near(room.end.room_id, event.depth)
        return room.end.line if group is None else await self._state.line_of(group)

    async def _awaited(self, end: RoomEnd, event: Event) -> tuple[bool, list[str]]:
        """Whether others refer to the event already, and the redactions that have come before it. No statement when
        warm."""
        awaited = await self._plan.committed.awaited(end)
        if not awaited.is_all:
            awaited = await self._plan.committed.awaited_events(end, [event.event_id])
        redactors = awaited.redactors.get(event.event_id, ())
        sent_by = domain_of(event.sender)
        allowed = [each.event_id for each in redactors if each.server_name in (None, sent_by)]
        return event.event_id in awaited.missing, allowed

    # -- checks ----------------------------------------------------------------------------------------------------

    async def _why_rejected(self, end: RoomEnd, event: Event, place: _Place) -> str | None:
        """Check 5: the state before the event."""
        if place.before is None:
            return None
        keys = auth.auth_types_for_event(event)
        state = await self._branches.state_of(end, place.before, keys)
        why = await self._why_cited_wrongly(event, state)
        if why is None:
            try:
                auth.check(event, state)
            except AuthError as error:
                why = error.message
        return why

    async def _why_cited_wrongly(self, event: Event, state: Mapping[StateKey, Event]) -> str | None:
        """Check 4, of what its caller cannot know: auth events that are rejected in the same breath."""
        in_force = {entry.event_id for entry in state.values()}
        others = [cited for cited in event.auth_event_ids if cited not in in_force and cited not in self._state.new]
        bad = self._state.rejected.intersection(event.auth_event_ids)
        if others and not bad:
            stored = await self._state.stored(others)
            bad = {event_id for event_id, found in stored.items() if found.rejected is not None}
        return f"The event cites {min(bad)}, which was rejected." if bad else None

    async def _why_soft_failed(self, end: RoomEnd, event: Event) -> str | None:
        """Check 6: the room's present state."""
        try:
            await self._branches.check_present(end, event)
        except AuthError as error:
            return error.message
        return None

    # -- what follows ----------------------------------------------------------------------------------------------

    async def _accept(
        self, room: _Room, each: ReceivedEvent, place: _Place, position: int, after: Line, redacts: str | None
    ) -> None:
        end, event, rows = room.end, each.event, room.rows
        if room.kind is Kind.HISTORY:
            self._write(room, each, place, position, after, after_gap=bool(place.lacks))
            await self._note_obsolete(end, event, place)
        else:
            is_regular, gap = await self._advance(room, event, place, position, after)
            changes = await self._branches.move(end, place.before, after, event, None, rows, room.most)
            push = () if place.redactor is not None else each.push
            new = NewEvent(event, None, push, each.thread_id, redacts=redacts, relay=each.relay)
            planned = Planned(new, position, after.group, changes, is_regular, gap, redacted_by=place.redactor)
            room.planned.append(planned)
            self._write(room, each, place, position, after, replaces=planned.replaces, after_gap=gap)
            self._plan.change(end, rows, changes, position)
            if new.push or domain_of(event.sender) == self._plan.server_name:
                write_audience(rows, new, position)
        if redacts is not None:
            await self._plan.redact(end, rows, event.event_id, redacts)
        if place.redactor is not None:
            await self._plan.redact(end, rows, place.redactor, event.event_id)
            await self._release(room, place.redactors, event.event_id)

    def _write(
        self,
        room: _Room,
        each: ReceivedEvent,
        place: _Place,
        position: int,
        line: Line | None,
        *,
        rejected: str | None = None,
        soft_failed: str | None = None,
        replaces: str | None = None,
        after_gap: bool = False,
    ) -> None:
        """The event itself, and what is known of it; `line` is the state after it."""
        event, rows = each.event, room.rows
        counts = rejected is None and soft_failed is None
        relation = relation_of_row(event) if counts else None
        row = received_row(event, position, None if line is None else line.group, self._plan.now)._replace(
            soft_failed=soft_failed is not None,
            rejected=rejected,
            relates_to=None if relation is None else relation.event_id,
            relation_type=None if relation is None else relation.rel_type,
            replaces=replaces,
            relay=each.relay,
            after_gap=after_gap,
            fills=place.fills,
        )
        (rows.received if event.event_id not in self._marks else rows.arrived).append(row)
        room.written[event.event_id] = position
        if event.is_state():
            write_auth_events(rows, event)
            if counts and event.type == EventTypes.MEMBER:
                rows.memberships.append(membership_row(event, position))
        if relation is not None:
            write_relation(rows, event, relation, position)
        if line is not None:
            self._state.group_after[event.event_id] = line.group
        if not counts:
            self._state.left_out[event.event_id] = event
        if rejected is not None:
            self._state.rejected.add(event.event_id)
        # Whoever looks back looks behind what is hidden, too.
        self._note_awaited(room, event, place, position, place.lacks if counts or room.kind is Kind.HISTORY else ())

    def _note_awaited(self, room: _Room, event: Event, place: _Place, position: int, lacks: Sequence[str]) -> None:
        """The event has come, and may refer to what has not."""
        if lacks:
            self._await(room, event, place, position, lacks)
        awaited = room.end.awaited
        if place.is_late or place.redactor is not None:
            room.rows.come.append((event.room_id, event.event_id))
            if awaited is not None:
                gap = awaited.missing.get(event.event_id)
                missing = {lack: gap for lack, gap in awaited.missing.items() if lack != event.event_id}
                redactors = {target: each for target, each in awaited.redactors.items() if target != event.event_id}
                room.end.awaited = Awaited(missing, redactors, awaited.is_all)
                whole = awaited.is_all and room.kind is Kind.TIMELINE and len(lacks) == len(place.lacks)
                if gap is not None and whole and all(other.position != gap.position for other in missing.values()):
                    room.rows.closed.append((event.room_id, gap.position))

    def _leave_aside(self, room: _Room, each: ReceivedEvent, rejected: str | None) -> Verdict:
        """An event of which it is not known what it found."""
        if each.event.prev_event_ids and rejected is None:
            return LOST
        rejected = rejected or "The room has begun with another event."
        self._write(room, each, _Place(None), self._backwards.next(), None, rejected=rejected)
        return (Fate.REJECTED, rejected)

    async def _advance(self, room: _Room, event: Event, place: _Place, position: int, after: Line) -> tuple[bool, bool]:
        """The event becomes an extremity, unless others refer to it; whether that is all that its references say, and
        whether something of what is shown before it is not here."""
        end = room.end
        if place.is_straight:
            end.advance(event, after.group)
            return True, False
        behind, lacks = await self._behind(end, event.prev_event_ids, place.lacks)
        if lacks:
            self._await(room, event, place, position, lacks)
        is_regular = not end.leave_behind((*behind, *end.obsolete))
        end.obsolete = frozenset()
        if place.is_late and not end.extremities.keys() <= set(event.prev_event_ids):
            end.leave_behind(event.prev_event_ids)
            return False, bool(place.lacks or lacks)
        end.advance(event, after.group)
        return is_regular, bool(place.lacks or lacks)

    async def _note_obsolete(self, end: RoomEnd, event: Event, place: _Place) -> None:
        """The event moves nothing itself, but others that are shown have it behind them, and what is behind it."""
        if place.is_late:
            behind, _lacks = await self._behind(end, event.prev_event_ids, place.lacks)
            end.obsolete |= end.extremities.keys() & {*event.prev_event_ids, *behind}

    async def _behind(
        self, end: RoomEnd, event_ids: Sequence[str], lacks: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """What rejected and soft-failed events among these have behind them, through others of the kind too; and which
        of that is not here. Of the events themselves, it is known which are `lacks`."""
        found: list[str] = []
        missing: list[str] = []
        queue = [event_id for event_id in event_ids if event_id not in lacks]
        seen = set(event_ids)
        while queue and len(seen) <= MAX_BEHIND:
            unknown = [i for i in queue if i not in end.extremities and i not in end.recent]
            hidden = [self._state.left_out[i] for i in unknown if i in self._state.left_out]
            asked = [i for i in unknown if i not in self._state.new and i not in self._state.left_out]
            stored = await self._state.stored(asked)
            missing += [i for i in asked if i not in stored or stored[i].outlier]
            hidden += [s.event for s in stored.values() if s.soft_failed or s.rejected is not None]
            queue = [prev for event in hidden for prev in event.prev_event_ids if prev not in seen]
            seen.update(queue)
            found += queue
        return found, missing

    def _await(self, room: _Room, event: Event, place: _Place, position: int, lacks: Sequence[str]) -> None:
        """The event has events behind it that are not here. What is missing before an event that fills a gap is missing
        in that."""
        gap = Gap(event.depth, position - 1 if place.fills is None else place.fills)
        room.rows.lacks += [Lack(event.room_id, event_id, *gap) for event_id in lacks]
        awaited = room.end.awaited
        if awaited is not None:
            gaps = {lack: gap.joined(awaited.missing.get(lack, gap)) for lack in lacks}
            room.end.awaited = awaited._replace(missing={**awaited.missing, **gaps})

    # -- redactions ------------------------------------------------------------------------------------------------

    async def _redacts(self, room: _Room, event: Event, place: _Place, position: int) -> tuple[str | None, str | None]:
        """The event that a redaction takes effect on, and why it is not to be shown. One that is not here yet is
        remembered."""
        target_id = event.redacts
        if target_id in (None, event.event_id) or place.before is None or not is_event_id(target_id):
            return None, None
        # Where the auth rules have judged it, clients hear of it in any case; of state, for they are told what holds.
        is_judged = event.room_version.redaction_auth_rule or event.is_state()
        state = await self._branches.state_of(room.end, place.before, auth.auth_types_for_event(event))
        levels = PowerLevels.of_state(state, event.room_version)
        target = await self._state.event(target_id)
        if target is not None and auth.may_redact(event, target, levels):
            return target_id, None
        if target is not None:
            return None, None if is_judged else f"Its sender may not redact {target_id}."
        server_name = None if levels.user(event.sender) >= levels.redact else domain_of(event.sender)
        pending = PendingRedaction(event.room_id, target_id, event.event_id, server_name, position)
        await self._plan.await_target(room.end, room.rows, pending)
        return None, None if is_judged else EARLY

    async def _release(self, room: _Room, redactors: Sequence[str], target_id: str) -> None:
        """The redactions were held back until their target came; now they are shown. Those that had come with the
        stream come with it once more: nobody has been told of them. One whose state is another than the room's
        altogether stays hidden, as any event of the kind."""
        held = {i: self._state.left_out[i] for i in redactors if i in self._state.left_out}
        stored = await self._state.stored([i for i in redactors if i not in held])
        for redaction_id in redactors:
            found = stored.get(redaction_id)
            if redaction_id in held:
                event, group = held[redaction_id], self._state.group_after[redaction_id]
                position = room.written.get(redaction_id) or self._plan.written[redaction_id]
            elif found is not None and found.soft_failed and found.state_group is not None:
                event, group, position = found.event, found.state_group, found.stream_ordering
            else:
                continue
            after_gap = False
            if position > 0:
                position = self._plan.position_after_gap()
                redacts = target_id if redaction_id == redactors[0] else None
                try:
                    after_gap = await self._show(room, event, position, group, redacts)
                except TooDisputed:
                    continue
            self._state.left_out.pop(redaction_id, None)
            self._state.add_event(event)
            room.rows.released.append(Released(redaction_id, position, after_gap))

    async def _show(self, room: _Room, event: Event, position: int, group: int, redacts: str | None) -> bool:
        """A redaction that was held back is an event like others now; whether something is missing before it. It is an
        extremity, unless others have come between. Raises `TooDisputed`, and has changed nothing then."""
        end = room.end
        line = await self._state.line_of(group)
        behind, lacks = await self._behind(end, event.prev_event_ids, ())
        changes: list[Change] = []
        if not end.extremities.keys().isdisjoint({*event.prev_event_ids, *behind}):
            end = end.copy()
            end.leave_behind(behind)
            end.advance(event, group)
            changes = await self._branches.move(end, line, line, event, None, room.rows, room.most)
            room.end = end
        if lacks:
            self._await(room, event, _Place(line), position, lacks)
        new = NewEvent(event, redacts=redacts, relay=False)
        room.planned.append(Planned(new, position, group, changes, is_regular=False, after_gap=bool(lacks)))
        room.written[event.event_id] = position
        self._plan.change(end, room.rows, changes, position)
        return bool(lacks)


def _why_one_too_many(end: RoomEnd, event: Event) -> str | None:
    """Whether the event would open a branch where there are more already than servers come to by themselves."""
    if not end.extremities.keys().isdisjoint(event.prev_event_ids):
        return None
    groups = {extremity.group for extremity in end.extremities.values()}
    if len(end.extremities) < MAX_EXTREMITIES and len(groups) < MAX_BRANCHES:
        return None
    return "The room has too many branches."
