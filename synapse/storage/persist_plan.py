"""What a batch of new events means for their rooms: extremities, state, memberships, statistics, as rows to be written.

Theory of operation. `BatchPlan.add` is called for one request after the other, in the order in which they came. Each
works on a copy of its room's end (`RoomEnd`) and on rows of its own; if it cannot be done, nothing of it remains.
What received events mean is in `synapse.storage.persist_received`, which adds to the same plan. What becomes of a
room's present state is in `synapse.storage.persist_branches`.

Nothing is written here and no position is announced; that is `synapse.storage.persist`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from synapse.api.constants import EventTypes
from synapse.api.errors import Codes, MatrixError, not_found
from synapse.events.event import Event
from synapse.state.groups import Line
from synapse.storage.awaited import Redactor
from synapse.storage.persist_branches import Branches
from synapse.storage.persist_derived import Change, membership_row, write_changes, write_event, write_redaction
from synapse.storage.persist_events import NewEvent, NewRoom, Persisted, Request
from synapse.storage.persist_received_rows import PendingRedaction
from synapse.storage.persist_rows import HeadChange, Rows
from synapse.storage.persist_state import BatchState

if TYPE_CHECKING:
    from synapse.state.store import StateReader
    from synapse.storage.persist_resolution import Resolver
    from synapse.storage.persist_room import RoomEnd, RoomEnds


class Planned(NamedTuple):
    """An event with its place, and the changes of the room's present state that it brought.

    `is_regular`: the room's extremities have moved as its references say, and nothing else of it is new. `aside`: the
    room goes on without this server (`Kind.ASIDE`). `redacted_by` had come before the event. `after_gap`: what was just
    before it is not here.
    """

    new: NewEvent
    stream_ordering: int
    state_group: int | None
    changes: list[Change]
    is_regular: bool = True
    after_gap: bool = False
    aside: bool = False
    redacted_by: str | None = None

    @property
    def replaces(self) -> str | None:
        """The state event whose place the event took."""
        event = self.new.event
        return next((change.old.event_id for change in self.changes if change.new is event), None)


class Stale(Exception):
    """The room's state has moved on since the events of a request were checked."""


class Positions(Protocol):
    """Hands out positions of the events stream, each larger than the one before."""

    def next(self) -> int: ...


class BatchPlan:
    """A transaction in the making.

    :param positions: hands out the positions of the events stream, as its `next()`.
    :param ends: the ends of rooms as committed; not changed here.
    """

    def __init__(
        self,
        positions: Positions,
        ends: RoomEnds,
        state: BatchState,
        resolver: Resolver,
        reader: StateReader,
        server_name: str,
        now: int,
    ) -> None:
        self.rows = Rows()
        self.ends: dict[str, RoomEnd] = {}
        self.planned: list[Planned] = []
        self.written: dict[str, int] = {}  # all events that the transaction writes, with their positions
        self.reserved: set[str] = set()  # those of them that are outliers
        self.position = 0  # of the last event planned; 0 where none has a place in the stream
        self.positions = positions
        self.committed = ends
        self.state = state
        self.branches = Branches(ends, state, resolver, reader)
        self.server_name = server_name
        self.now = now

    async def add(self, request: Request) -> list[Persisted]:
        """Plan a request. Raises `Stale`, or a MatrixError if the room does not exist or refuses the events."""
        end = await self._end_of(request)
        trusted = request.state_ordering == end.state_ordering
        if not request.may_fork and not (trusted and _fits(end, request)):
            raise Stale
        if not trusted:
            for new in request.events:
                await self.branches.check_present(end, new.event)
        rows = Rows()
        planned = [await self._add_event(end, new, rows, trusted) for new in request.events]
        if request.room is not None:
            self._found(rows, request.room, request.events[0].event)
        self.keep(end, rows, planned, {step.new.event.event_id: step.stream_ordering for step in planned})
        return [Persisted(step.new.event.event_id, step.stream_ordering) for step in planned]

    def keep(self, end: RoomEnd | None, rows: Rows, planned: list[Planned], written: dict[str, int]) -> None:
        """Make what was planned for a room part of the transaction; `end` is None where that does not matter."""
        if end is not None:
            self.ends[end.room_id] = end
        if end is not None and planned:
            assert end.line is not None
            position = planned[-1].stream_ordering
            head = HeadChange(end.room_id, list(end.extremities), end.line.group, end.state_ordering, position)
            rows.heads[end.room_id] = head
        self.rows.add(rows)
        self.planned += planned
        self.written.update(written)
        self.position = max(self.position, *written.values())

    async def end_of(self, room_id: str) -> RoomEnd | None:
        """A copy of a room's end, as the plan leaves it so far."""
        end = self.ends.get(room_id) or await self.committed.get(room_id)
        return None if end is None else end.copy()

    async def _end_of(self, request: Request) -> RoomEnd:
        room_id = request.room_id
        if request.room is not None:
            if room_id in self.ends:
                raise _room_exists()
            create = request.events[0].event
            return self.committed.new(room_id, create.room_version)
        end = await self.end_of(room_id)
        if end is None:
            raise not_found("This server does not take part in that room.")
        return end

    # -- one event -------------------------------------------------------------------------------------------------

    async def _add_event(self, end: RoomEnd, new: NewEvent, rows: Rows, trusted: bool) -> Planned:
        event = new.event
        straight = end.is_after(event.prev_event_ids)
        before = end.line if straight else await self._line_before(end, event, rows)
        position = self.positions.next()
        self.state.add_event(event)
        after = await self.branches.after(before, event, rows)
        end.advance(event, after.group)
        old = new.replaces if trusted and straight else None
        changes = await self.branches.move(end, before, after, event, old, rows)
        planned = Planned(new, position, after.group, changes)
        write_event(rows, new, position, after.group, self.now, planned.replaces)
        self.change(end, rows, changes, position)
        if new.redacts is not None:
            await self.redact(end, rows, event.event_id, new.redacts)
        elif event.type == EventTypes.REDACTION and event.redacts is not None:
            await self._redact_unseen(end, rows, event, event.redacts, position)
        return planned

    async def _redact_unseen(self, end: RoomEnd, rows: Rows, event: Event, target_id: str, position: int) -> None:
        """A redaction of what was not here when it was made, by somebody who may redact anything."""
        target = await self.state.event(target_id)
        if target is None:
            await self.await_target(end, rows, PendingRedaction(end.room_id, target_id, event.event_id, None, position))
        elif target.room_id == end.room_id:
            await self.redact(end, rows, event.event_id, target_id)

    async def _line_before(self, end: RoomEnd, event: Event, rows: Rows) -> Line:
        groups = await self.branches.groups_after(end, event.prev_event_ids)
        for event_id in event.prev_event_ids:
            if event_id not in groups:
                raise not_found(f"This server does not have the event {event_id}, to which a new one refers.")
        return await self.branches.where_they_meet(end, set(groups.values()), rows)

    def position_after_gap(self) -> int:
        """A position with an unused one before it, at which stands what may be missing just before the event: between
        it and all that has arrived earlier."""
        self.positions.next()
        return self.positions.next()

    def change(self, end: RoomEnd, rows: Rows, changes: list[Change], position: int) -> None:
        """The room's present state changes."""
        if changes:
            end.change(changes, position, self.server_name)
            write_changes(rows, end.room_id, changes, position, self.server_name)
            for change in changes:
                new = change.new
                if new is not None and new.event_id not in self.state.new and new.type == EventTypes.MEMBER:
                    # One that has not counted so far: it was an outlier, or had soft-failed.
                    rows.memberships.append(membership_row(new, position))

    async def redact(self, end: RoomEnd, rows: Rows, redaction: str, target_id: str) -> None:
        """A redaction comes into force."""
        target = await self.state.event(target_id)
        present = None
        if target is not None and target.state_key == "":
            present = await self.branches.present(end, target.key)
        write_redaction(rows, end.room_id, redaction, target_id, present)

    async def await_target(self, end: RoomEnd, rows: Rows, pending: PendingRedaction) -> None:
        """A redaction comes into force once its target is here."""
        rows.pending.append(pending)
        awaited = await self.committed.awaited(end)
        waiting = (
            *awaited.redactors.get(pending.event_id, ()),
            Redactor(pending.redaction_id, pending.server_name),
        )
        end.awaited = awaited._replace(redactors={**awaited.redactors, pending.event_id: waiting})

    def _found(self, rows: Rows, room: NewRoom, create: Event) -> None:
        version = create.room_version.identifier
        rows.rooms.append((create.room_id, room.creator, version, room.is_public, self.now))
        rows.aliases += [(alias, create.room_id, room.creator) for alias in room.aliases]


def _fits(end: RoomEnd, request: Request) -> bool:
    """Whether the request needs no branch of the room's state: messages may refer to what is not the end any more."""
    first = request.events[0].event
    return not any(new.event.is_state() for new in request.events) or end.is_after(first.prev_event_ids)


def _room_exists() -> MatrixError:
    return MatrixError(400, Codes.ROOM_IN_USE, "There is a room with this ID already.")
