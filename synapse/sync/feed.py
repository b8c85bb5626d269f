"""What the rows of the streams say to a process that syncs: new events come into memory, and what is not true any
more goes.

Fed before anybody is woken. A gap in a stream (the process was cut off, or began later) makes everything start anew
from there: `start` says from which position on all rows will come.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import msgspec
from msgspec import UNSET, Raw, UnsetType

from synapse.api.constants import EventTypes
from synapse.storage.event_rows import EventRow, Row, StateRow
from synapse.storage.past_state import Delta
from synapse.storage.timeline import TimelineRow
from synapse.sync.changes import Changes
from synapse.sync.ignored import IgnoredUsers
from synapse.sync.memberships import Memberships
from synapse.sync.recent import RecentEvents
from synapse.sync.typing import TypingRooms
from synapse.sync.visibility import VisibilityFilter


class _Link(msgspec.Struct, gc=False):
    url: Raw | UnsetType = UNSET


class _Glance(msgspec.Struct, gc=False):
    """What a timeline row says besides what the stream's row does."""

    origin_server_ts: int
    content: _Link


_glance = msgspec.json.Decoder(_Glance)


class SyncFeed:
    """Takes in rows, in the order of each stream."""

    def __init__(
        self,
        recent: RecentEvents,
        changes: Changes,
        typing: TypingRooms,
        memberships: Memberships,
        ignored: IgnoredUsers,
        visibility: VisibilityFilter,
    ) -> None:
        self._recent = recent
        self._changes = changes
        self._typing = typing
        self._memberships = memberships
        self._ignored = ignored
        self._visibility = visibility

    def start_events(self, position: int) -> None:
        """Events after this position will be told; what was remembered may be out of date."""
        self._recent.start(position)
        self._memberships.cache.clear()
        self._visibility.histories.clear()

    def start(self, stream: str, position: int) -> None:
        """Rows of another stream, after this position, will be told."""
        self._changes.start(stream, position)
        if stream == "account_data":
            self._ignored.cache.clear()

    def events(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if isinstance(row, EventRow):
                self._event(row)
            else:
                self._state(row)

    def typists(self, position: int, room_id: str, user_ids: Sequence[str]) -> None:
        self._typing.record(room_id, position, user_ids)

    def changed(self, stream: str, position: int, entity: Hashable) -> None:
        """A row of a stream of which only matters who (or which room) changed."""
        self._changes.record(stream, entity, position)
        if stream == "account_data":
            self._ignored.cache.invalidate(str(entity))

    def _event(self, row: EventRow) -> None:
        self._recent.add_event(timeline_row(row))
        if row.redacts is not None:
            self._recent.spoil(row.room_id, row.redacts)
        if row.type == EventTypes.MEMBER and row.state_key is not None:
            self._memberships.cache.invalidate(row.state_key)

    def _state(self, row: StateRow) -> None:
        self._recent.add_delta(
            Delta(row.stream_ordering, row.room_id, row.type, row.state_key, row.event_id, row.prev_event_id)
        )
        if row.type == EventTypes.MEMBER:
            self._memberships.cache.invalidate(row.state_key)
        elif row.type == EventTypes.HISTORY_VISIBILITY:
            self._visibility.histories.invalidate(row.room_id)


def timeline_row(row: EventRow) -> TimelineRow:
    """The event as the tables would give it. One that is too long for the stream has no JSON: it is to be read."""
    glance = None if row.json is None else _glance.decode(row.json)
    return TimelineRow(
        row.stream_ordering,
        row.room_id,
        row.event_id,
        row.depth,
        row.type,
        row.state_key,
        row.sender,
        0 if glance is None else glance.origin_server_ts,
        row.state_group,
        None,
        glance is not None and glance.content.url is not UNSET,
        row.json or "",
    )
