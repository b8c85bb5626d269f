"""What the rows of the events stream say to a process that creates events: heads, states, members and events stay
true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import orjson

from synapse.api.constants import EventTypes
from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events.event import Event
from synapse.replication.event_rows import EventRow, Row, StateRow, is_entry
from synapse.state.heads import Growth
from synapse.storage.events import StoredEvent

if TYPE_CHECKING:
    from synapse.state.heads import RoomHeads
    from synapse.state.store import StateReader
    from synapse.storage.events import EventsStore


class MembersFeed(Protocol):
    """Who is in which room; see `synapse.push.bulk.RoomMembers`."""

    def learn(self, room_id: str, user_id: str, event: Event | None) -> None: ...

    def learn_new_room(self, room_id: str) -> None: ...

    def forget(self, room_id: str) -> None: ...

    def forget_all(self) -> None: ...


class RoomFeed:
    """Takes in rows, in the order of the stream, before anybody else hears of them."""

    def __init__(self, heads: RoomHeads, state: StateReader, events: EventsStore, members: MembersFeed) -> None:
        self._heads = heads
        self._state = state
        self._events = events
        self._members = members

    def learn(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Rows of the events stream with their positions, as they come."""
        changed = {(row.room_id, position) for position, row in rows if isinstance(row, StateRow)}
        members: dict[str, Event] = {}
        for position, row in rows:
            if isinstance(row, EventRow):
                self._learn_event(position, row, (row.room_id, position) in changed, members)
            else:
                self._learn_state(position, row, members)

    def _learn_event(self, position: int, row: EventRow, changes_state: bool, members: dict[str, Event]) -> None:
        if row.aside:
            return  # nothing is known of that room
        self._events.has_arrived(row.event_id)
        growth = Growth(position, row.event_id, row.prev_event_ids, row.depth, changes_state)
        if row.type == EventTypes.CREATE and not row.prev_event_ids and row.json and row.is_regular:
            self._learn_create(row, growth)
        else:
            if row.state_key is not None and row.json:
                self._learn_state_event(position, row, members)
            if row.is_regular:
                self._heads.learn(row.room_id, (growth,))
            else:
                self._heads.forget(row.room_id)
        if row.redacts is not None:
            self._events.learn_redaction(row.redacts, row.event_id)

    def _learn_create(self, row: EventRow, growth: Growth) -> None:
        version = ROOM_VERSIONS[orjson.loads(row.json)["content"].get("room_version", "1")]
        self._heads.learn_new_room(row.room_id, version, growth)
        self._state.learn_new_room(row.room_id)
        self._members.learn_new_room(row.room_id)
        event = Event.from_json(row.json, version, event_id=row.event_id)
        self._events.learn(StoredEvent(event, growth.stream_ordering, row.state_group))

    def _learn_state_event(self, position: int, row: EventRow, members: dict[str, Event]) -> None:
        version = self._heads.version(row.room_id)
        if version is None:
            return  # nobody writes to that room here
        event = Event.from_json(row.json, version, event_id=row.event_id)
        self._events.learn(StoredEvent(event, position, row.state_group))
        if row.type == EventTypes.MEMBER:
            members[row.event_id] = event

    def _learn_state(self, position: int, row: StateRow, members: dict[str, Event]) -> None:
        if is_entry(row):
            self._heads.forget(row.room_id)
            self._state.forget(row.room_id)
            self._members.forget(row.room_id)
            return
        self._state.learn(row.room_id, (row.type, row.state_key), row.event_id, position)
        if row.type != EventTypes.MEMBER:
            return
        if row.event_id is not None and row.event_id not in members:
            self._members.forget(row.room_id)  # an older event is current again, or a long one has come
        else:
            self._members.learn(row.room_id, row.state_key, members.get(row.event_id or ""))

    def forget_all(self) -> None:
        """Rows may have been missed."""
        self._heads.forget_all()
        self._state.forget_all()
        self._members.forget_all()
        self._events.forget_all()  # some may have been redacted meanwhile
