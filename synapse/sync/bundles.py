"""Bundles: what an answer tells of the events that relate to an event, within that event.

The latest edit, the references, and the thread that begins there; reactions are not summed up. Only what the reader
may see: history visibility, ignored users and the end of their membership hold for children as for all events.
`Forms` writes them.

Client-server API, "Aggregations of child events".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.storage.aggregations import Edit, InThread, Parent
from synapse.storage.timeline import NEWEST, TimelineRow
from synapse.sync.visibility import Access, Seen

if TYPE_CHECKING:
    from synapse.storage.aggregations import AggregationStore, Children
    from synapse.sync.ignored import IgnoredUsers
    from synapse.sync.visibility import VisibilityFilter

CANDIDATES: Final = 10
"""How many children are tried as the latest one, where history visibility may hide some."""


class Child(NamedTuple):
    """An event within another's bundle, as the reader sees it; `txn_id` if their very device has sent it."""

    row: TimelineRow
    membership: str | None
    txn_id: str | None


class Thread(NamedTuple):
    """A thread as its root is shown with it."""

    latest: Child
    size: int
    participated: bool


class Bundle(NamedTuple):
    """What relates to one event; `references` are event ids."""

    edit: Child | None
    references: list[str]
    thread: Thread | None

    def redacted(self) -> Iterable[TimelineRow]:
        """Those of its events that are shown as redacted ones are."""
        latest = None if self.thread is None else self.thread.latest
        return [child.row for child in (self.edit, latest) if child is not None and child.row.redacted_by is not None]


Bundles = Mapping[str, Bundle]
NO_BUNDLES: Final[Bundles] = {}


class Bundler:
    """Finds the bundles of an answer's events."""

    def __init__(self, store: AggregationStore, visibility: VisibilityFilter, ignored: IgnoredUsers) -> None:
        self._store = store
        self._visibility = visibility
        self._ignored = ignored

    async def bundles(
        self, rows: Iterable[TimelineRow], user_id: str, device_id: str | None, access: Mapping[str, Access]
    ) -> Bundles:
        """By event id, for the rows of the rooms that `access` names; also for the events within bundles.

        One statement, none where nothing relates to any of them; in rooms where history is hidden from some, a few
        more.
        """
        # State events are shown without what relates to them.
        parents = [row for row in rows if row.is_parent and row.state_key is None and row.room_id in access]
        if not parents:
            return NO_BUNDLES
        rooms = {row.room_id: access[row.room_id] for row in parents}
        ignored = await self._ignored.of(user_id)
        ever_open = await self._visibility.ever_open(rooms)
        wanted = [
            Parent(row.event_id, _until(access[row.room_id]), 1 if row.room_id in ever_open else CANDIDATES)
            for row in parents
        ]
        children = await self._store.children(wanted, user_id, device_id, ignored)
        seen = await self._seen(children, {row.event_id: row.room_id for row in parents}, rooms, user_id)
        redacted = {row.event_id for row in parents if row.redacted_by is not None}
        redacted.update(event_id for event_id, each in seen.items() if each.row.redacted_by is not None)
        return _assembled(children, seen, redacted)

    async def _seen(
        self, children: Children, rooms_of: dict[str, str], access: Mapping[str, Access], user_id: str
    ) -> dict[str, Seen]:
        """Those of the children that the reader may see, by id."""
        rooms_of |= {event.row.event_id: event.row.room_id for event in children.threads}
        by_room: dict[str, dict[str, TimelineRow]] = {room_id: {} for room_id in access}
        for row in [*(edit.row for edit in children.edits), *(event.row for event in children.threads)]:
            by_room[row.room_id][row.event_id] = row
        for reference in children.references:
            room_id = rooms_of[reference.parent_id]
            by_room[room_id].setdefault(reference.event_id, _shadow(room_id, *reference[1:]))
        timelines = {room_id: list(rows.values()) for room_id, rows in by_room.items()}
        visible = await self._visibility.visible(timelines, access, user_id)
        return {seen.row.event_id: seen for room in visible.values() for seen in room}


def _assembled(children: Children, seen: Mapping[str, Seen], redacted: Collection[str]) -> Bundles:
    """The bundles; what is shown `redacted`, or as if it were, is not shown edited."""
    edits: dict[str, Child] = {}
    threads: dict[str, Thread] = {}
    references: dict[str, list[str]] = {}
    for edit in children.edits:
        if edit.parent_id not in edits and edit.parent_id not in redacted and edit.row.event_id in seen:
            edits[edit.parent_id] = _child(edit, seen)
    for event in children.threads:
        if event.parent_id not in threads and event.row.event_id in seen:
            threads[event.parent_id] = Thread(_child(event, seen), event.size, event.participated)
    for reference in children.references:
        if reference.event_id in seen:
            references.setdefault(reference.parent_id, []).append(reference.event_id)
    return {
        event_id: Bundle(edits.get(event_id), references.get(event_id, []), threads.get(event_id))
        for event_id in {**edits, **threads, **references}
    }


def _child(event: Edit | InThread, seen: Mapping[str, Seen]) -> Child:
    return Child(*seen[event.row.event_id], event.txn_id)


def _until(access: Access) -> int:
    return NEWEST if access.until is None else access.until


def _shadow(room_id: str, event_id: str, stream: int, state_group: int | None) -> TimelineRow:
    """As much of an event as decides who may see it."""
    return TimelineRow(stream, room_id, event_id, 0, "", None, "", 0, state_group, None, False, "")
