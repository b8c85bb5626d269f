"""What the rows of the streams say to a process that syncs: new events come into memory, what is not true any more
goes.

Listens to the notifier, which tells its listeners before it wakes anybody. When a stream starts anew (the process was
cut off, or has just begun), what was remembered of it goes, and everything from there on will be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.constants import EventTypes
from synapse.replication.event_rows import EventRow, StateRow, is_entry
from synapse.replication.invalidation import REDACTED
from synapse.replication.streams import PrivateDeviceListRow
from synapse.storage.past_state import Delta
from synapse.storage.timeline import TimelineRow

if TYPE_CHECKING:
    from synapse.replication.notifier import Notifier
    from synapse.replication.streams import Rows
    from synapse.sync.changes import Changes
    from synapse.sync.ignored import IgnoredUsers
    from synapse.sync.memberships import Memberships
    from synapse.sync.recent import RecentEvents
    from synapse.sync.room_states import RoomState
    from synapse.sync.typing import TypingRooms
    from synapse.sync.visibility import VisibilityFilter
    from synapse.util.caches import Cache


class SyncFeed:
    """Keeps what syncs remember true."""

    def __init__(
        self,
        recent: RecentEvents,
        changes: Changes,
        typing: TypingRooms,
        memberships: Memberships,
        ignored: IgnoredUsers,
        visibility: VisibilityFilter,
        room_states: Cache[str, RoomState],
    ) -> None:
        self._recent = recent
        self._changes = changes
        self._typing = typing
        self._memberships = memberships
        self._ignored = ignored
        self._visibility = visibility
        self._room_states = room_states

    def follow(self, notifier: Notifier) -> None:
        """Listens from now on; what the streams have reached already counts as their start."""
        notifier.subscribe("events", self.events, self.start_events)
        notifier.subscribe("caches", self.caches)
        notifier.subscribe("typing", self.typists, self._typing.reset)
        self.start_events(notifier.position("events"))
        for stream in self._changes.by_stream:
            self._follow(notifier, stream)

    def start_events(self, position: int) -> None:
        self._recent.start(position)
        self._memberships.cache.clear()
        self._visibility.histories.clear()
        self._room_states.clear()

    def events(self, position: int, rows: Rows) -> None:
        for stream, row in rows:
            if isinstance(row, EventRow):
                self._event(stream, row)
            else:
                self._state(stream, row)

    def caches(self, position: int, rows: Rows) -> None:
        """Of what is not true any more, that which the events stream does not tell."""
        for _, (name, key) in rows:
            if name == REDACTED:
                room_id, event_id = key
                self._redacted(room_id, event_id)

    def typists(self, position: int, rows: Rows) -> None:
        for at, (room_id, user_ids) in rows:
            self._typing.record(room_id, at, user_ids)

    def changed(self, stream: str, rows: Rows) -> None:
        """Rows of a stream of which only matters who (or which room) changed."""
        for position, row in rows:
            entity: Any = row if isinstance(row, str | PrivateDeviceListRow) else row[0]
            self._changes.record(stream, entity, position)
            if stream == "account_data":
                self._ignored.cache.invalidate(entity)

    def started(self, stream: str, position: int) -> None:
        self._changes.start(stream, position)
        if stream == "account_data":
            self._ignored.cache.clear()

    def _follow(self, notifier: Notifier, stream: str) -> None:
        notifier.subscribe(
            stream, lambda _, rows: self.changed(stream, rows), lambda position: self.started(stream, position)
        )
        self.started(stream, notifier.position(stream))

    def _event(self, stream: int, row: EventRow) -> None:
        if not row.aside:
            self._recent.add_event(timeline_row(stream, row))
        if row.redacts is not None:
            self._redacted(row.room_id, row.redacts)
        if row.type == EventTypes.MEMBER and row.state_key is not None:
            self._memberships.cache.invalidate(row.state_key)

    def _redacted(self, room_id: str, event_id: str) -> None:
        self._recent.spoil(room_id, event_id)
        self._room_states.invalidate(room_id)

    def _state(self, stream: int, row: StateRow) -> None:
        self._recent.add_delta(Delta(stream, row.room_id, row.type, row.state_key, row.event_id, row.prev_event_id))
        self._room_states.invalidate(row.room_id)
        if row.type == EventTypes.MEMBER:
            self._memberships.cache.invalidate(row.state_key)
        elif row.type == EventTypes.HISTORY_VISIBILITY or is_entry(row):
            self._visibility.histories.invalidate(row.room_id)


def timeline_row(stream: int, row: EventRow) -> TimelineRow:
    """The event as the tables would give it. One that is too long for the stream has no JSON: it is to be read."""
    return TimelineRow(
        stream,
        row.room_id,
        row.event_id,
        row.depth,
        row.type,
        row.state_key,
        row.sender,
        row.origin_server_ts,
        row.state_group,
        None,
        row.contains_url,
        row.json,
        row.replaces,
        True,  # it may be related to by what comes later
        row.after_gap,
    )
