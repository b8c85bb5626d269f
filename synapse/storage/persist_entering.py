"""What it means that this server enters a room that others have, and what happens to its users beside such rooms.

Theory of operation. By a `JOIN`, the room's end becomes exactly one event, and its state what was told with it: as a
whole, whatever was known of the room from earlier times. Thousands of entries are written by the statements of
`persist_entering_rows`; neither is there a row of the history of the present state for each of them, nor is each
announced. One row of both kinds says it for all: the entry of m.room.create, which takes its own place
(`event_rows.is_entry`), and whoever remembers anything of the room forgets it. Where the room had been known before,
there are rows of its history for all that has changed meanwhile, so that those who left it then see it as it was.

A membership of one of our users in a room that goes on without us is an outlier with a place in the stream: it is what
the user is told, and in no timeline. The stripped state that came with it is kept in its `unsigned`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import AuthError
from synapse.api.identifiers import domain_of
from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.storage.awaited import Gap
from synapse.storage.extremities import Extremity
from synapse.storage.persist_derived import (
    Change,
    membership_row,
    received_row,
    stats_change,
    write_audience,
    write_auth_events,
)
from synapse.storage.persist_entering_rows import Entered, KnownRoom
from synapse.storage.persist_events import Fate, NewEvent, Received, ReceivedEvent, Replaced
from synapse.storage.persist_plan import BatchPlan, Planned
from synapse.storage.persist_received_rows import Lack
from synapse.storage.persist_rows import STATS_OF_STATE, Rows

if TYPE_CHECKING:
    from synapse.storage.events import Mark
    from synapse.storage.memberships import MembershipsStore
    from synapse.storage.persist_plan import Positions
    from synapse.storage.persist_received import Verdict
    from synapse.storage.persist_room import RoomEnd

MAX_STRIPPED: Final = 100
"""Entries of a stripped state that are kept."""

_STATS_KEYS: Final = frozenset((event_type, "") for event_type in STATS_OF_STATE)
_VISIBILITY: Final = (EventTypes.HISTORY_VISIBILITY, "")
_PENDING: Final = (Membership.INVITE, Membership.KNOCK)
_ASIDE: Final = (*_PENDING, Membership.LEAVE, Membership.BAN)
_INCOMPLETE: Final = (Fate.REFUSED, "Not all of the room's state is here.")
_NOT_ASKED: Final = (Fate.REFUSED, "The user is neither invited to the room nor has knocked at it.")
_NO_MEMBERSHIP: Final = (Fate.REFUSED, "This is not about the membership of a user of this server.")


class Entering:
    """Adds to a plan what brings this server into rooms, or its users to their doors.

    :param marks: what is known of events that are stored, by id.
    """

    def __init__(
        self, plan: BatchPlan, backwards: Positions, marks: Mapping[str, Mark], memberships: MembershipsStore
    ) -> None:
        self._plan = plan
        self._backwards = backwards
        self._marks = marks
        self._memberships = memberships

    # -- entering --------------------------------------------------------------------------------------------------

    async def join(self, end: RoomEnd | None, received: Received) -> list[Verdict]:
        """The server enters a room, of which `end` is what it knew. The first event is the way in, and the only one."""
        each = received.events[0]
        plan, event, rows = self._plan, each.event, Rows()
        odd = await plan.committed.odd_ones(received.room_id, list((each.state_before or {}).values()))
        if not each.state_before or None in odd.values():
            return [_INCOMPLETE]
        state = {key: event_id for key, event_id in each.state_before.items() if event_id not in odd}
        refused = each.rejected or await self._why_refused(event, state)
        if refused is not None:
            return [(Fate.REJECTED, refused)]
        old = {} if end is None or end.line is None else await plan.state.ids(end.line.group)
        end = end or plan.committed.new(received.room_id, received.version)
        groups = await plan.branches.groups_after(end, event.prev_event_ids)
        lacks = [event_id for event_id in event.prev_event_ids if event_id not in groups]
        before = await plan.branches.as_told(end, state, end.line, rows)
        plan.state.add_event(event)
        after = await plan.branches.after(before, event, rows)
        position = plan.position_after_gap() if lacks else plan.positions.next()
        await self._replace(end, old, {**state, event.key: event.event_id}, position, rows)
        changes = await self._changes(end, old, {**state, event.key: event.event_id}, event)
        awaited = await plan.committed.awaited(end)
        gap = Gap(event.depth, position - 1)
        missing = {**dict.fromkeys(lacks, gap), **awaited.missing}
        missing.pop(event.event_id, None)
        end.awaited = awaited._replace(missing=missing)
        end.extremities = {event.event_id: Extremity(event.depth, after.group)}
        end.recent.clear()
        end.changed.clear()
        end.line, end.is_new = after, True
        self._enter(end, rows, changes, position)
        planned = Planned(
            NewEvent(event, None, each.push, each.thread_id, relay=False),
            position,
            after.group,
            changes,
            is_regular=False,
            after_gap=bool(lacks),
        )
        # What it took the place of is a matter of the state that was told, not of what this server knew of the room.
        replaced = state.get(event.key)
        self._write(rows, planned, None if replaced == event.event_id else replaced)
        rows.lacks += [Lack(event.room_id, event_id, *gap) for event_id in lacks]
        rows.come.append((event.room_id, event.event_id))
        creator = changes[0].new.sender if changes[0].new is not None else None
        rows.known_rooms[end.room_id] = KnownRoom(end.room_id, received.version.identifier, creator, plan.now)
        plan.keep(end, rows, [planned], {event.event_id: position})
        return [(Fate.ACCEPTED, ""), *[_INCOMPLETE for _ in received.events[1:]]]

    async def _why_refused(self, event: Event, state: Mapping[StateKey, str]) -> str | None:
        """Check 5: whether the state that was told allows the way in."""
        keys = auth.auth_types_for_event(event)
        entries = await self._plan.state.events({key: state[key] for key in keys if key in state})
        try:
            auth.check(event, entries)
        except AuthError as error:
            return error.message
        return None

    async def _replace(
        self, end: RoomEnd, old: Mapping[StateKey, str], new: Mapping[StateKey, str], position: int, rows: Rows
    ) -> None:
        """The present state becomes another one. What it was is remembered, where it was known."""
        changed = {key: event_id for key, event_id in new.items() if old.get(key) != event_id}
        gone = old.keys() - new.keys()
        rows.entered.append(Entered(end.room_id, position, changed))
        for key in gone:
            rows.current[end.room_id, *key] = None
        if old:
            for key in (*changed, *gone):
                delta = (position, end.room_id, *key, new.get(key), old.get(key))
                rows.deltas[position, end.room_id, *key] = delta
        shown = {key: new[key] for key in _STATS_KEYS if key in changed}
        events = await self._plan.state.events(shown)
        for key in (*shown, *_STATS_KEYS.intersection(gone)):
            rows.change_stats(end.room_id, stats_change(key, Replaced(None), events.get(key)))

    async def _changes(
        self, end: RoomEnd, old: Mapping[StateKey, str], new: Mapping[StateKey, str], event: Event
    ) -> list[Change]:
        """What is announced of it: that everything is new, then what concerns our users, and who may see history."""
        ours = self._plan.server_name
        changed = [key for key, event_id in new.items() if old.get(key) != event_id]
        members = [key for key in changed if key[0] == EventTypes.MEMBER and domain_of(key[1]) == ours]
        if len(members) > 1:
            # Who was told of an invite already needs not be told again.
            told = await self._memberships.local(end.room_id)
            members = [key for key in members if told.get(key[1]) != new[key]]
        keys = [auth.CREATE_KEY, *members, *[key for key in changed if key == _VISIBILITY]]
        events = await self._plan.state.events({key: new[key] for key in keys if key in new})
        before = await self._plan.state.events({key: old[key] for key in members if key in old})
        create = events.get(auth.CREATE_KEY)
        changes = [Change(auth.CREATE_KEY, Replaced(new.get(auth.CREATE_KEY)), create)]
        for key in keys[1:]:
            was = before.get(key)
            replaced = Replaced(old.get(key), None if was is None else was.membership)
            changes.append(Change(key, replaced, events.get(key)))
        return changes

    def _enter(self, end: RoomEnd, rows: Rows, changes: Sequence[Change], position: int) -> None:
        """The rows of what is announced."""
        end.state_ordering = position
        end.residents = 0
        for key, old, new in changes:
            event_id = None if new is None else new.event_id
            rows.deltas[position, end.room_id, *key] = (position, end.room_id, *key, event_id, old.event_id)
            if new is not None and key[0] == EventTypes.MEMBER:
                end.residents += new.membership == Membership.JOIN
                rows.memberships.append(membership_row(new, position))
                local = (key[1], end.room_id, new.membership, new.sender, new.event_id, position)
                rows.local_memberships[key[1], end.room_id] = local

    def _write(self, rows: Rows, planned: Planned, replaced: str | None) -> None:
        event = planned.new.event
        row = received_row(event, planned.stream_ordering, planned.state_group, self._plan.now)
        row = row._replace(replaces=replaced, relay=False, after_gap=planned.after_gap)
        (rows.received if event.event_id not in self._marks else rows.arrived).append(row)
        write_auth_events(rows, event)

    # -- beside rooms ----------------------------------------------------------------------------------------------

    async def aside(self, end: RoomEnd | None, received: Received) -> list[Verdict]:
        """Memberships of our users in a room that this server takes no part in, as far as `end` tells."""
        return [await self._aside(end, received, each) for each in received.events]

    async def _aside(self, end: RoomEnd | None, received: Received, each: ReceivedEvent) -> Verdict:
        plan, event, rows = self._plan, each.event, Rows()
        mark = self._marks.get(event.event_id)
        user_id = event.state_key if event.type == EventTypes.MEMBER else None
        if user_id is None or domain_of(user_id) != plan.server_name or event.membership not in _ASIDE:
            return _NO_MEMBERSHIP
        if mark is not None and (not mark.outlier or mark.stream_ordering > 0):
            return (Fate.KNOWN, "")
        takes_part = end is not None and end.residents > 0
        if event.membership not in _PENDING and await self._standing(user_id, event.room_id) not in _PENDING:
            return _NOT_ASKED
        is_told = each.rejected is None and not takes_part
        position = plan.positions.next() if is_told else self._backwards.next()
        row = received_row(_with_stripped(event, each.stripped), position, None, plan.now)
        row = row._replace(outlier=True, rejected=each.rejected, relay=False)
        (rows.received if mark is None else rows.arrived).append(row)
        rows.known_rooms[event.room_id] = KnownRoom(event.room_id, received.version.identifier, None, plan.now)
        write_auth_events(rows, event)
        plan.reserved.add(event.event_id)
        planned: list[Planned] = []
        if is_told:
            new = NewEvent(event, None, each.push, each.thread_id, relay=False)
            rows.memberships.append(membership_row(event, position))
            local = (user_id, event.room_id, event.membership, event.sender, event.event_id, position)
            rows.local_memberships[user_id, event.room_id] = local
            write_audience(rows, new, position)
            planned.append(Planned(new, position, None, [], aside=True, is_regular=False))
        plan.keep(None, rows, planned, {event.event_id: position})
        return (Fate.ACCEPTED, "") if each.rejected is None else (Fate.REJECTED, each.rejected)

    async def _standing(self, user_id: str, room_id: str) -> str | None:
        planned = self._plan.rows.local_memberships.get((user_id, room_id))
        if planned is not None:
            return str(planned[2])
        stored = await self._memberships.of_user(user_id, room_id)
        return None if stored is None else stored.membership


def _with_stripped(event: Event, stripped: Sequence[Mapping[str, Any]]) -> Event:
    """The event with the stripped state that came with it, where sync looks for it."""
    if not stripped:
        return event
    name = "knock_room_state" if event.membership == Membership.KNOCK else "invite_room_state"
    unsigned = event.raw.get("unsigned")
    kept = {**(unsigned if isinstance(unsigned, dict) else {}), name: [dict(each) for each in stripped[:MAX_STRIPPED]]}
    return Event.from_json({**event.raw, "unsigned": kept}, event.room_version, event_id=event.event_id)
