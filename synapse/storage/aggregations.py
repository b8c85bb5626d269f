"""What relates to events, read for whoever looks at them: their latest edits, their references, their threads.

One statement for all events of an answer. Children that are redacted, hidden from clients or of other rooms have no
part in it, nor have those of users whom the reader ignores. Which of the children the reader may see is for the caller
to decide, so there may be several candidates for what is shown as the latest.

Client-server API, "Aggregations of child events", "Event replacements", "Reference relations", "Threading".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.api.constants import RelationTypes
from synapse.storage.persist_relations import IN_THREAD
from synapse.storage.timeline import COLUMNS, NEWEST, SHOWN, TimelineRow

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

MAX_REFERENCES: Final = 1_000
"""Of one event, that an answer lists: the first ones."""


class Parent(NamedTuple):
    """An event to whose children, up to and including position `until`, an answer points; so many of them may be the
    one that is shown as the latest.
    """

    event_id: str
    until: int
    candidates: int = 1


class Edit(NamedTuple):
    """A valid replacement of the parent; the most recent comes first. `txn_id` is the reader's device's own."""

    parent_id: str
    row: TimelineRow
    txn_id: str | None


class Reference(NamedTuple):
    """An event that refers to the parent, and what decides who may see it. The first comes first."""

    parent_id: str
    event_id: str
    stream: int
    state_group: int | None


class InThread(NamedTuple):
    """An event of the thread whose root is the parent; the latest comes first.

    `size` is how many there are; `participated`: one of them, or the root, is the reader's own.
    """

    parent_id: str
    row: TimelineRow
    txn_id: str | None
    size: int
    participated: bool


class Children(NamedTuple):
    """What was found, of the parents and of the latest events in their threads."""

    edits: list[Edit]
    references: list[Reference]
    threads: list[InThread]


class AggregationStore:
    """Reads relations, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def children(
        self,
        parents: Sequence[Parent],
        user_id: str,
        device_id: str | None,
        ignored: Collection[str],
    ) -> Children:
        """What relates to the parents, in the reader's view. One statement."""
        return await self._db.read("aggregations.children", _children, parents, user_id, device_id, sorted(ignored))


_FIELDS: Final = len(TimelineRow._fields)
_NO_EVENT: Final = ", ".join(["NULL"] * _FIELDS)
_IN_ORDER: Final = "ORDER BY e.depth, e.stream_ordering"
_TXN: Final = """
    (SELECT t.txn_id FROM event_txns t WHERE t.event_id = e.event_id AND t.user_id = %(user)s
        AND t.device_id = %(device)s AND e.sender = %(user)s)
"""

# That children are not newer than `until` is asked in a way that no index knows: nearly all are older, and the
# database would rather look through the whole room for what is older than through what relates to the parent.
# How many events a thread has is kept; for those who have left, the events of then are counted.
# The latest events of threads are parents as well: they come with their own edits and references. What is in a thread,
# or edits or annotates, cannot be the root of one ("Threading"), and what edits cannot be edited.
_CHILDREN: Final = f"""
    WITH parents AS (
        SELECT e.event_id, e.room_id, e.sender, e.type, e.redacted_by, e.relation_type, w.until,
            w.candidates
        FROM unnest(%(parents)s::text[], %(until)s::bigint[], %(candidates)s::int[]) AS w (event_id, until, candidates)
        JOIN events e USING (event_id)
    ), latest AS MATERIALIZED (
        SELECT p.event_id AS parent_id, p.sender = %(user)s AS is_own_root, p.until, p.candidates, c.*
        FROM parents p CROSS JOIN LATERAL (
            SELECT c.* FROM events c
            WHERE c.relates_to = p.event_id AND c.room_id = p.room_id AND {IN_THREAD}
              AND (c.stream_ordering <= p.until) IS TRUE AND c.sender <> ALL(%(ignored)s)
            ORDER BY c.depth DESC, c.stream_ordering DESC LIMIT p.candidates
        ) c WHERE p.relation_type IS NULL
    ), targets AS (
        SELECT event_id, room_id, sender, type, redacted_by, relation_type, until, candidates FROM parents
        UNION SELECT event_id, room_id, sender, type, redacted_by, relation_type, until, candidates FROM latest
        WHERE state_key IS NULL
    )
    SELECT '{RelationTypes.REPLACE}', p.event_id, {COLUMNS}, {_TXN}, 0, false, NULL, NULL, NULL
    FROM targets p CROSS JOIN LATERAL (
        SELECT * FROM events e
        WHERE e.relates_to = p.event_id AND e.relation_type = '{RelationTypes.REPLACE}' AND e.room_id = p.room_id
          AND e.type = p.type AND e.sender = p.sender AND e.state_key IS NULL AND e.redacted_by IS NULL AND {SHOWN}
          AND (e.stream_ordering <= p.until) IS TRUE AND e.sender <> ALL(%(ignored)s)
        ORDER BY e.origin_server_ts DESC, e.event_id COLLATE "C" DESC LIMIT p.candidates
    ) e WHERE p.redacted_by IS NULL AND p.relation_type IS DISTINCT FROM '{RelationTypes.REPLACE}'
    UNION ALL
    SELECT '{RelationTypes.REFERENCE}', p.event_id, {_NO_EVENT}, NULL, 0, false,
        array_agg(e.event_id {_IN_ORDER}), array_agg(e.stream_ordering {_IN_ORDER}),
        array_agg(e.state_group {_IN_ORDER})
    FROM targets p CROSS JOIN LATERAL (
        SELECT e.event_id, e.depth, e.stream_ordering, e.state_group FROM events e
        WHERE e.relates_to = p.event_id AND e.relation_type = '{RelationTypes.REFERENCE}' AND e.room_id = p.room_id
          AND e.redacted_by IS NULL AND {SHOWN}
          AND (e.stream_ordering <= p.until) IS TRUE AND e.sender <> ALL(%(ignored)s)
        {_IN_ORDER} LIMIT {MAX_REFERENCES}
    ) e GROUP BY p.event_id
    UNION ALL
    SELECT '{RelationTypes.THREAD}', e.parent_id, {COLUMNS}, {_TXN},
        COALESCE(n.count, 1), COALESCE(n.own, false) OR e.is_own_root, NULL, NULL, NULL
    FROM latest e CROSS JOIN LATERAL (
        SELECT sum(n.count)::bigint AS count, bool_or(n.own) AS own FROM (
            SELECT s.events AS count, s.sender = %(user)s AS own FROM thread_senders s
            WHERE e.until = {NEWEST} AND s.room_id = e.room_id AND s.root_id = e.parent_id AND s.events > 0
              AND s.sender <> ALL(%(ignored)s)
            UNION ALL
            SELECT 1, c.sender = %(user)s FROM events c
            WHERE e.until < {NEWEST} AND c.relates_to = e.parent_id AND c.room_id = e.room_id AND {IN_THREAD}
              AND (c.stream_ordering <= e.until) IS TRUE AND c.sender <> ALL(%(ignored)s)
        ) n
    ) n
"""


def _children(
    txn: Transaction,
    parents: Sequence[Parent],
    user_id: str,
    device_id: str | None,
    ignored: list[str],
) -> Children:
    ids, until, candidates = zip(*parents, strict=True)
    txn.planned(
        _CHILDREN,
        {
            "parents": list(ids),
            "until": list(until),
            "user": user_id,
            "device": device_id,
            "ignored": ignored,
            "candidates": list(candidates),
        },
    )
    found = Children([], [], [])
    for kind, parent_id, *rest in txn.rows():
        _add(found, kind, parent_id, rest)
    found.edits.sort(key=lambda edit: (edit.row.origin_server_ts, edit.row.event_id), reverse=True)
    found.threads.sort(key=lambda event: (event.row.depth, event.row.stream), reverse=True)
    return found


def _add(found: Children, kind: str, parent_id: str, values: list[Any]) -> None:
    txn_id, size, participated, ids, streams, groups = values[_FIELDS:]
    if kind == RelationTypes.REFERENCE:
        found.references.extend(map(Reference._make, zip([parent_id] * len(ids), ids, streams, groups, strict=True)))
        return
    row = TimelineRow._make(values[:_FIELDS])
    if kind == RelationTypes.REPLACE:
        found.edits.append(Edit(parent_id, row, txn_id))
    else:
        found.threads.append(InThread(parent_id, row, txn_id, size, participated))
