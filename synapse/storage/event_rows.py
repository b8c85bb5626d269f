"""Rows of the events stream: what the writer tells every process about new events and about changes of rooms' state.

A row carries the event itself unless that is large, so that processes which show it need not read it. Rows can be made of
what the writer has just written, or read from the database by whoever has missed some; both are the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from synapse.storage.database import Transaction
    from synapse.storage.persist_plan import Planned

MAX_JSON: Final = 16_384
"""Characters of JSON that travel with a row; longer events are read by those who need them."""


class EventRow(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="event"):
    """An event. `redacts` is the event on which it takes effect as a redaction; `json` is None where it is long."""

    stream_ordering: int
    room_id: str
    event_id: str
    type: str
    state_key: str | None
    sender: str
    room_version: str
    prev_event_ids: tuple[str, ...]
    depth: int
    state_group: int
    received_ts: int
    redacts: str | None
    json: str | None


class StateRow(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="state"):
    """An entry of a room's present state: `event_id` (None: nothing) takes the place of `prev_event_id`.

    `membership` is that of the new event, where it is an m.room.member.
    """

    stream_ordering: int
    room_id: str
    type: str
    state_key: str
    event_id: str | None
    prev_event_id: str | None
    membership: str | None


Row = EventRow | StateRow


def rows_of(planned: Iterable[Planned], received_ts: int) -> list[Row]:
    """The rows of events just written: each event, then the changes that it brought."""
    rows: list[Row] = []
    for new, position, group, changes in planned:
        event = new.event
        json = event.json.decode()
        rows.append(
            EventRow(
                position,
                event.room_id,
                event.event_id,
                event.type,
                event.state_key,
                event.sender,
                event.room_version.identifier,
                event.prev_event_ids,
                event.depth,
                group,
                received_ts,
                new.redacts,
                json if len(json) <= MAX_JSON else None,
            )
        )
        for key, old, entry in changes:
            event_id, membership = (None, None) if entry is None else (entry.event_id, entry.membership)
            rows.append(StateRow(position, event.room_id, *key, event_id, old.event_id, membership))
    return rows


def read_rows(txn: Transaction, after: int, until: int, limit: int) -> tuple[list[Row], int]:
    """The rows of at most `limit` events with after < position ≤ until, and the position that they reach."""
    txn.execute(
        """
        SELECT e.stream_ordering, e.room_id, e.event_id, e.type, e.state_key, e.sender, r.room_version,
            ARRAY(SELECT jsonb_array_elements_text(e.json::jsonb -> 'prev_events')), e.depth, e.state_group, e.received_ts,
            (SELECT t.event_id FROM events t WHERE e.type = 'm.room.redaction' AND t.redacted_by = e.event_id
                AND t.event_id = coalesce(e.json::jsonb ->> 'redacts', e.json::jsonb #>> '{content,redacts}')),
            CASE WHEN length(e.json) <= %s THEN e.json END
        FROM events e JOIN rooms r USING (room_id)
        WHERE e.stream_ordering > %s AND e.stream_ordering <= %s AND NOT e.outlier
        ORDER BY e.stream_ordering LIMIT %s
        """,
        (MAX_JSON, after, until, limit),
    )
    events = [msgspec.convert(row, EventRow) for row in (("event", *row) for row in txn.rows())]
    reached = events[-1].stream_ordering if len(events) == limit else until
    txn.execute(
        """
        SELECT d.stream_ordering, d.room_id, d.type, d.state_key, d.event_id, d.prev_event_id, m.membership
        FROM current_state_deltas d LEFT JOIN memberships m USING (event_id)
        WHERE d.stream_ordering > %s AND d.stream_ordering <= %s ORDER BY d.stream_ordering
        """,
        (after, reached),
    )
    states = [StateRow(*row) for row in txn.rows()]
    rows: list[Row] = sorted([*events, *states], key=lambda row: (row.stream_ordering, isinstance(row, StateRow)))
    return rows, reached
