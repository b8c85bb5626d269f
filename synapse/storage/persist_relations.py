"""What relations and redactions change beside the events that bring them: parents are marked, threads come to have
another latest event, and what was redacted counts no more.

Part of the one transaction that `synapse.storage.persist_rows` writes; the events themselves are inserted before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import RelationTypes

if TYPE_CHECKING:
    from synapse.storage.database import Transaction

IN_THREAD: Final = (
    f"c.relation_type = '{RelationTypes.THREAD}' AND c.redacted_by IS NULL "
    "AND NOT c.soft_failed AND NOT c.outlier AND c.rejected IS NULL"
)
"""That `c` belongs to a thread and is shown."""


def write_parents(txn: Transaction, parents: Collection[tuple[str, str]]) -> None:
    """Marks events (id, room) as related to, so that readers need not look for relations of all others."""
    if parents:
        txn.later(_PARENTS, [list(column) for column in zip(*parents, strict=True)])


def write_threads(txn: Transaction, events: Iterable[tuple[Any, ...]]) -> None:
    """Where the latest event of each thread stands now, and how many events are whose; `events` of (room, root,
    sender, depth, position).
    """
    latest: dict[tuple[str, str], tuple[int, int]] = {}
    senders: Counter[tuple[str, str, str]] = Counter()
    for room_id, root_id, sender, depth, position in events:
        latest[room_id, root_id] = max((depth, position), latest.get((room_id, root_id), (depth, position)))
        senders[room_id, root_id, sender] += 1
    txn.values(_THREADS, [(*thread, *place) for thread, place in latest.items()], later=True)
    txn.values(_SENDERS, [(*sender, count) for sender, count in senders.items()], later=True)


def write_redactions(txn: Transaction, redactions: Mapping[str, tuple[str, str]]) -> None:
    """Redactions (redaction, room) come into force, by their targets."""
    if not redactions:
        return
    changed = [(target, redaction, room_id) for target, (redaction, room_id) in redactions.items()]
    txn.later(_REDACTIONS, [list(column) for column in zip(*changed, strict=True)])
    targets = list(redactions)
    txn.later(_FEWER_IN_THREADS, [list(column) for column in zip(*changed, strict=True)][:2])
    for sql in (_SHORTER_THREADS, _NOT_UNREAD, _NAMELESS):
        txn.later(sql, (targets,))


_PARENTS: Final = """
    UPDATE events SET is_parent = true FROM unnest(%s::text[], %s::text[]) AS parent (event_id, room_id)
    WHERE events.event_id = parent.event_id AND events.room_id = parent.room_id AND NOT events.is_parent
"""
_THREADS: Final = """
    INSERT INTO threads (room_id, root_id, depth, stream_ordering) VALUES %s
    ON CONFLICT (room_id, root_id) DO UPDATE
    SET depth = excluded.depth, stream_ordering = excluded.stream_ordering
    WHERE threads.depth IS NULL OR (threads.depth, threads.stream_ordering) < (excluded.depth, excluded.stream_ordering)
"""
_SENDERS: Final = """
    INSERT INTO thread_senders (room_id, root_id, sender, events) VALUES %s
    ON CONFLICT (room_id, root_id, sender) DO UPDATE SET events = thread_senders.events + excluded.events
"""
# The first redaction stays the one in force.
_REDACTIONS: Final = """
    UPDATE events SET redacted_by = new.redaction, contains_url = false
    FROM unnest(%s::text[], %s::text[], %s::text[]) AS new (target, redaction, room_id)
    WHERE events.event_id = new.target AND events.room_id = new.room_id AND events.redacted_by IS NULL
"""
# Only of redactions that have come into force just now.
_FEWER_IN_THREADS: Final = f"""
    UPDATE thread_senders s SET events = s.events - gone.events FROM (
        SELECT e.room_id, e.relates_to, e.sender, count(*) AS events
        FROM unnest(%s::text[], %s::text[]) AS new (target, redaction)
        JOIN events e ON e.event_id = new.target AND e.redacted_by = new.redaction
        WHERE e.relation_type = '{RelationTypes.THREAD}' GROUP BY e.room_id, e.relates_to, e.sender
    ) gone WHERE (s.room_id, s.root_id, s.sender) = (gone.room_id, gone.relates_to, gone.sender)
"""
_SHORTER_THREADS: Final = f"""
    UPDATE threads t SET (depth, stream_ordering) = (
        SELECT c.depth, c.stream_ordering FROM events c
        WHERE c.relates_to = t.root_id AND c.room_id = t.room_id AND {IN_THREAD}
        ORDER BY c.depth DESC, c.stream_ordering DESC LIMIT 1
    )
    FROM events gone
    WHERE gone.event_id = ANY(%s) AND gone.relation_type = '{RelationTypes.THREAD}' AND gone.redacted_by IS NOT NULL
      AND (t.room_id, t.root_id, t.depth, t.stream_ordering)
        = (gone.room_id, gone.relates_to, gone.depth, gone.stream_ordering)
"""
# What is left of a redacted event is nothing that anybody has yet to read.
_NOT_UNREAD: Final = """
    DELETE FROM push_actions p USING events gone, local_memberships m
    WHERE gone.event_id = ANY(%s) AND gone.redacted_by IS NOT NULL AND m.room_id = gone.room_id
      AND (p.user_id, p.room_id, p.stream_ordering) = (m.user_id, gone.room_id, gone.stream_ordering)
"""
_NAMELESS: Final = """
    UPDATE memberships m SET display_name = NULL, avatar_url = NULL FROM events gone
    WHERE m.event_id = ANY(%s) AND gone.event_id = m.event_id AND gone.redacted_by IS NOT NULL
"""
