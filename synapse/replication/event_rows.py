"""The rows of the events stream: what every process is told of a new event.

An event is one `EventRow`, and one `StateRow` for each entry of its room's present state that it changed. Both carry
what caches and waiting syncs need, so that they ask the database nothing; an event's JSON comes along when it is
small. The same rows are made from what the writer has just written and, for a process that was away, from the tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import orjson
from msgspec.structs import replace

from synapse.api.constants import EventTypes
from synapse.api.identifiers import is_event_id

if TYPE_CHECKING:
    from synapse.storage.persist_derived import Change
    from synapse.storage.persist_events import PushAction
    from synapse.storage.persist_plan import Planned
    from synapse.storage.transaction import Transaction

SMALL: Final = 8 * 1024
"""Characters of JSON that are sent along; a larger event is read from the database by those who want it."""


FEW: Final = 50
"""Users whom an event notifies that are sent along; more would cost more than each of them asking."""

NOTIFIES: Final = 1
HIGHLIGHTS: Final = 2


class EventRow(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="e"):
    """A new event. `json` is its federation form, "" where it is too large to be sent along.

    `redacts` names the event that this one redacts, where the redaction is in force; `replaces` the state event whose
    place it took. `unread` are the local users for whom it counts as unread, each with `NOTIFIES` and `HIGHLIGHTS`;
    None where that is to be asked of the database: they are many, or have perhaps read it since. `thread_id` is where
    it counts.

    `relay` says whether other servers are sent it, None: if its sender is one of ours. `after_gap`: what was just
    before it in its room is not here. `aside`: it is a membership of one of our users in a room that goes on without
    us, and in no timeline. `is_regular`: the room's extremities have moved as the references say, which else is to be
    read.
    """

    room_id: str
    event_id: str
    depth: int
    type: str
    state_key: str | None
    sender: str
    origin_server_ts: int
    prev_event_ids: tuple[str, ...]
    state_group: int | None
    contains_url: bool
    redacts: str | None
    json: str
    replaces: str | None = None
    unread: tuple[tuple[str, int], ...] | None = None
    thread_id: str = "main"
    relay: bool | None = None
    after_gap: bool = False
    aside: bool = False
    is_regular: bool = True


class StateRow(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="s"):
    """An entry of a room's present state that changed; `event_id` None: it went away.

    Of a member, `membership` is what the entry says now and `prev_membership` what it said before, None where there is
    no such event (or, in rows of an older process, where it is not told).
    """

    room_id: str
    type: str
    state_key: str
    event_id: str | None
    prev_event_id: str | None
    membership: str | None = None
    prev_membership: str | None = None


Row = EventRow | StateRow


def is_entry(row: Row) -> bool:
    """Whether this server enters the room, of which nothing holds any more that had been known before.

    It is told by the entry of m.room.create, which takes its own place. Of what else has changed, only our own users'
    memberships and the history visibility are sure to have rows of their own.
    """
    return (
        isinstance(row, StateRow)
        and row.type == EventTypes.CREATE
        and row.event_id is not None
        and row.event_id == row.prev_event_id
    )


def is_beginning(row: Row) -> bool:
    """Whether the room is made here: nobody was in it before, and all that becomes of it has rows."""
    return (
        isinstance(row, StateRow)
        and row.type == EventTypes.CREATE
        and row.event_id is not None
        and row.prev_event_id is None
    )


def rows_of(planned: Iterable[Planned]) -> list[tuple[int, Row]]:
    """The rows, with their positions, of events that were just written."""
    rows: list[tuple[int, Row]] = []
    for each in planned:
        event = each.new.event
        rows.append((each.stream_ordering, _event_row(each)))
        for change in each.changes:
            rows.append((each.stream_ordering, _state_row(event.room_id, change)))
    return rows


def _state_row(room_id: str, change: Change) -> StateRow:
    (event_type, state_key), old, new = change
    is_member = event_type == EventTypes.MEMBER
    return StateRow(
        room_id,
        event_type,
        state_key,
        None if new is None else new.event_id,
        old.event_id,
        new.membership if new is not None and is_member else None,
        old.membership if is_member else None,
    )


def _event_row(planned: Planned) -> EventRow:
    event = planned.new.event
    text = event.json.decode()
    return EventRow(
        room_id=event.room_id,
        event_id=event.event_id,
        depth=event.depth,
        type=event.type,
        state_key=event.state_key,
        sender=event.sender,
        origin_server_ts=event.origin_server_ts,
        prev_event_ids=tuple(event.prev_event_ids),
        state_group=planned.state_group,
        contains_url=isinstance(event.content.get("url"), str),
        redacts=planned.new.redacts,
        json=text if len(text) <= SMALL and planned.redacted_by is None else "",
        replaces=planned.replaces,
        unread=_unread(planned.new.push),
        thread_id=planned.new.thread_id,
        relay=planned.new.relay,
        after_gap=planned.after_gap,
        aside=planned.aside,
        is_regular=planned.is_regular,
    )


def _unread(push: Sequence[PushAction]) -> tuple[tuple[str, int], ...] | None:
    if len(push) > FEW:
        return None
    return tuple([(p.user_id, (NOTIFIES if p.notify else 0) | (HIGHLIGHTS if p.highlight else 0)) for p in push])


def read(txn: Transaction, after: int, until: int, limit: int) -> list[tuple[int, Row]]:
    """The rows of the positions `after` < p ≤ `until`; the first `limit` events, each with all of its rows."""
    txn.execute(_EVENTS, (after, until, limit))
    found = [_from_tables(row) for row in txn.rows()]
    found = _with_redacted(txn, found)
    if len(found) == limit:
        until = found[-1][0]
    rows: list[tuple[int, Row]] = list(found)
    txn.execute(_DELTAS, (after, until))
    rows += [(position, StateRow(*rest)) for position, *rest in txn.rows()]
    # The sort keeps the order of equals: an event comes before the changes that it brought.
    rows.sort(key=lambda row: row[0])
    return rows


def _with_redacted(txn: Transaction, rows: list[tuple[int, EventRow]]) -> list[tuple[int, EventRow]]:
    """The rows, each redaction with what it redacts, if it is the one in force."""
    targets = {row.redacts for _, row in rows if row.redacts is not None}
    if not targets:
        return rows
    txn.execute("SELECT event_id, redacted_by FROM events WHERE event_id = ANY(%s)", (list(targets),))
    in_force = set(txn.rows())
    return [
        (
            position,
            row if row.redacts is None or (row.redacts, row.event_id) in in_force else replace(row, redacts=None),
        )
        for position, row in rows
    ]


def _redacts(event: dict[str, Any]) -> str | None:
    """What a redaction names, wherever its room version keeps it. JSON of others may hold what the database reads
    nothing of."""
    content = event["content"]
    target = content["redacts"] if "redacts" in content else event.get("redacts")
    return target if isinstance(target, str) and is_event_id(target) else None


# Events that clients never see have no part in the stream: rejected and soft-failed ones, and outliers, which have
# positions below it; those that have not are memberships in rooms that go on without us.
_EVENTS: Final = """
    SELECT e.stream_ordering, e.room_id, e.event_id, e.depth, e.type, e.state_key, e.sender, e.origin_server_ts,
        e.state_group, e.contains_url, e.redacted_by, e.json, e.replaces, e.relay, e.after_gap, e.outlier
    FROM events e
    WHERE e.stream_ordering > %s AND e.stream_ordering <= %s
        AND NOT e.soft_failed AND e.rejected IS NULL
    ORDER BY e.stream_ordering LIMIT %s
"""
_DELTAS: Final = """
    SELECT d.stream_ordering, d.room_id, d.type, d.state_key, d.event_id, d.prev_event_id, n.membership, o.membership
    FROM current_state_deltas d
    LEFT JOIN memberships n ON d.type = 'm.room.member' AND n.event_id = d.event_id
    LEFT JOIN memberships o ON d.type = 'm.room.member' AND o.event_id = d.prev_event_id
    WHERE d.stream_ordering > %s AND d.stream_ordering <= %s ORDER BY d.stream_ordering
"""


def _from_tables(row: tuple[Any, ...]) -> tuple[int, EventRow]:
    position, room_id, event_id, depth, kind, state_key, sender, ts, group, url, redacted_by, text = row[:12]
    replaces, relay, after_gap, aside = row[12:]
    event = orjson.loads(text)
    # In the oldest room versions, references are pairs of an id and its hashes.
    ids = tuple(each if isinstance(each, str) else each[0] for each in event["prev_events"])
    return position, EventRow(
        room_id,
        event_id,
        depth,
        kind,
        state_key,
        sender,
        ts,
        ids,
        group,
        url,
        _redacts(event) if kind == EventTypes.REDACTION else None,
        text if len(text) <= SMALL and redacted_by is None else "",
        replaces,
        relay=relay,
        after_gap=after_gap,
        aside=aside,
        is_regular=False,  # where the extremities have moved to, this does not tell
    )
