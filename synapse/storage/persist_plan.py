"""What a batch of new events means for their rooms: extremities, state, memberships, statistics, as rows to be written.

Theory of operation. `BatchPlan.add` is called for one request after the other, in the order in which they came. Each
works on a copy of its room's end (`RoomEnd`) and on rows of its own; if it cannot be done, nothing of it remains. A
room's present state is the state of its end's group. In the straight case, an event refers to all extremities: it
finds the present state, and what it changes is the change of the present state. Otherwise it opens a branch, the
extremities disagree, and the present state becomes the resolution of theirs.

Nothing is written here and no position is announced; that is `synapse.storage.persist`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from synapse.api.errors import Codes, MatrixError, not_found
from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.state.groups import Delta, Line
from synapse.storage.persist_derived import Change, write_changes, write_event, write_redaction
from synapse.storage.persist_events import NewEvent, NewRoom, Persisted, Replaced, Request
from synapse.storage.persist_rows import HeadChange, Rows
from synapse.storage.persist_state import BatchState

if TYPE_CHECKING:
    from synapse.state.store import StateReader
    from synapse.storage.persist_resolution import Resolver
    from synapse.storage.persist_room import RoomEnd, RoomEnds


class Planned(NamedTuple):
    """An event with its place, and the changes of the room's present state that it brought."""

    new: NewEvent
    stream_ordering: int
    state_group: int
    changes: list[Change]

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
        self.position = 0  # of the last event planned
        self._positions = positions
        self._committed = ends
        self._state = state
        self._resolver = resolver
        self._reader = reader
        self._server_name = server_name
        self._now = now

    async def add(self, request: Request) -> list[Persisted]:
        """Plan a request. Raises `Stale`, or a MatrixError if the room does not exist or refuses the events."""
        end = await self._end_of(request)
        trusted = request.state_ordering == end.state_ordering
        if not request.may_fork and not (trusted and _fits(end, request)):
            raise Stale
        if not trusted:
            for new in request.events:
                await self._check_again(end, new.event)
        rows = Rows()
        planned = [await self._add_event(end, new, rows, trusted) for new in request.events]
        if request.room is not None:
            self._found(rows, request.room, request.events[0].event)
        self._keep(end, rows, planned)
        return [Persisted(step.new.event.event_id, step.stream_ordering) for step in planned]

    def _keep(self, end: RoomEnd, rows: Rows, planned: list[Planned]) -> None:
        assert end.line is not None
        position = planned[-1].stream_ordering
        head = HeadChange(end.room_id, list(end.extremities), end.line.group, end.state_ordering, position)
        rows.heads[end.room_id] = head
        self.ends[end.room_id] = end
        self.rows.add(rows)
        self.planned += planned
        self.position = position

    async def _end_of(self, request: Request) -> RoomEnd:
        room_id = request.room_id
        if request.room is not None:
            if room_id in self.ends:
                raise _room_exists()
            create = request.events[0].event
            return self._committed.new(room_id, create.room_version)
        end = self.ends.get(room_id) or await self._committed.get(room_id)
        if end is None:
            raise not_found("This server does not take part in that room.")
        return end.copy()

    # -- one event -------------------------------------------------------------------------------------------------

    async def _add_event(self, end: RoomEnd, new: NewEvent, rows: Rows, trusted: bool) -> Planned:
        event = new.event
        straight = end.is_after(event.prev_event_ids)
        before = end.line if straight else await self._line_before(end, event, rows)
        position = self._positions.next()
        self._state.add_event(event)
        after = await self._after(before, event, rows)
        end.advance(event, after.group)
        changes = await self._move(end, before, after, new, rows, trusted and straight)
        if changes:
            end.state_ordering = position
            end.changed.update((change.key, change.new) for change in changes)
        planned = Planned(new, position, after.group, changes)
        write_event(rows, new, position, after.group, self._now, planned.replaces)
        write_changes(rows, end.room_id, changes, position, self._server_name)
        if new.redacts is not None:
            await self._redact(end, rows, event.event_id, new.redacts)
        return planned

    async def _redact(self, end: RoomEnd, rows: Rows, redaction: str, target_id: str) -> None:
        target = await self._state.event(target_id)
        present = None
        if target is not None and target.state_key == "":
            present = await self._present(end, target.key)
        write_redaction(rows, end.room_id, redaction, target_id, present)

    async def _after(self, before: Line | None, event: Event, rows: Rows) -> Line:
        if before is None:
            return self._state.begin(rows, event.room_id, {event.key: event.event_id})
        if event.state_key is None:
            return before
        return await self._state.follow(rows, event.room_id, before, {event.key: event.event_id})

    async def _line_before(self, end: RoomEnd, event: Event, rows: Rows) -> Line | None:
        """The state before an event that opens a branch: where the branches that it refers to meet."""
        assert end.line is not None
        groups: set[int] = set()
        for event_id in event.prev_event_ids:
            extremity = end.extremities.get(event_id)
            group = extremity.group if extremity is not None else end.recent.get(event_id)
            groups.add(group if group is not None else await self._committed.group_after(event_id))
        if groups == {end.line.group}:
            return end.line
        if len(groups) == 1:
            return await self._state.line_of(groups.pop())
        base = await self._state.line_of(max(groups))
        changes = await self._resolver.meet(end.version, groups, base.group)
        return await self._state.follow(rows, end.room_id, base, changes) if changes else base

    async def _move(
        self, end: RoomEnd, before: Line | None, after: Line, new: NewEvent, rows: Rows, trusted: bool
    ) -> list[Change]:
        """Bring the room's present state up to date with its new extremities; what changed in it."""
        groups = {extremity.group for extremity in end.extremities.values()}
        present = end.line
        if present is not None and groups == {present.group}:
            return []
        if present is None or (present is before and groups == {after.group}):
            end.line = after
            old = new.replaces if trusted and new.replaces is not None else await self._entry(end, new.event.key)
            return [Change(new.event.key, old, new.event)]
        changes = await self._resolver.meet(end.version, groups, present.group)
        if changes:
            end.line = after if groups == {after.group} else await self._branch(rows, end, changes)
        return [await self._change(end, key, event_id) for key, event_id in changes.items()]

    async def _branch(self, rows: Rows, end: RoomEnd, changes: Delta) -> Line:
        assert end.line is not None
        return await self._state.follow(rows, end.room_id, end.line, changes)

    async def _change(self, end: RoomEnd, key: StateKey, event_id: str | None) -> Change:
        new = None if event_id is None else await self._state.event(event_id)
        return Change(key, await self._entry(end, key), new)

    async def _check_again(self, end: RoomEnd, event: Event) -> None:
        keys = auth.auth_types_for_event(event)
        state = {key: found for key in keys if (found := await self._present(end, key)) is not None}
        auth.check(event, state)

    async def _entry(self, end: RoomEnd, key: StateKey) -> Replaced:
        event = await self._present(end, key)
        return Replaced(None) if event is None else Replaced(event.event_id, event.membership)

    async def _present(self, end: RoomEnd, key: StateKey) -> Event | None:
        """An entry of the room's present state, with what the batch has changed so far."""
        if key in end.changed:
            return end.changed[key]
        stored = (await self._reader.current(end.room_id, [key])).get(key)
        return None if stored is None else stored.event

    def _found(self, rows: Rows, room: NewRoom, create: Event) -> None:
        version = create.room_version.identifier
        rows.rooms.append((create.room_id, room.creator, version, room.is_public, self._now))
        rows.aliases += [(alias, create.room_id, room.creator) for alias in room.aliases]


def _fits(end: RoomEnd, request: Request) -> bool:
    """Whether the request needs no branch of the room's state: messages may refer to what is not the end any more."""
    first = request.events[0].event
    return not any(new.event.is_state() for new in request.events) or end.is_after(first.prev_event_ids)


def _room_exists() -> MatrixError:
    return MatrixError(400, Codes.ROOM_IN_USE, "There is a room with this ID already.")
