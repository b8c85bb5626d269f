"""The background update `event_relations`: gives events that were written before schema version 2 what newer ones are
written with, see `synapse.storage.persist_relations`. Until it is finished, what relates to old events is not shown
with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.storage.background_updates import Batch
from synapse.storage.persist_relations import IN_THREAD
from synapse.storage.relations import AGGREGATED

if TYPE_CHECKING:
    from synapse.storage.database import Transaction

NAME: Final = "event_relations"


def relate_events(txn: Transaction, progress: dict[str, Any], size: int) -> Batch | None:
    """The next `size` events in the order of arrival."""
    after = progress.get("after", -(2**62))
    txn.execute(
        """
        SELECT max(stream_ordering), count(*) FROM (
            SELECT stream_ordering FROM events WHERE stream_ordering > %s ORDER BY stream_ordering LIMIT %s
        ) AS batch
        """,
        (after, size),
    )
    until, count = txn.one()
    if until is None:
        return None
    txn.later(_REPLACES, (after, until))
    txn.later(_PARENTS, (after, until, sorted(AGGREGATED)))
    txn.later(_THREADS, (after, until))
    txn.later(_SENDERS, (after, until))
    return Batch({"after": until}, count)


_REPLACES: Final = """
    UPDATE events e SET replaces = d.prev_event_id FROM current_state_deltas d
    WHERE e.stream_ordering > %s AND e.stream_ordering <= %s AND e.state_key IS NOT NULL AND e.replaces IS NULL
      AND (d.room_id, d.stream_ordering, d.type, d.state_key) = (e.room_id, e.stream_ordering, e.type, e.state_key)
      AND d.event_id = e.event_id AND d.prev_event_id IS NOT NULL
"""
_PARENTS: Final = """
    UPDATE events p SET is_parent = true FROM events c
    WHERE c.stream_ordering > %s AND c.stream_ordering <= %s AND c.relation_type = ANY(%s)
      AND p.event_id = c.relates_to AND p.room_id = c.room_id AND NOT p.is_parent
"""
_THREADS: Final = f"""
    INSERT INTO threads (room_id, root_id, depth, stream_ordering)
    SELECT DISTINCT ON (c.room_id, c.relates_to) c.room_id, c.relates_to, c.depth, c.stream_ordering FROM events c
    WHERE c.stream_ordering > %s AND c.stream_ordering <= %s AND {IN_THREAD}
    ORDER BY c.room_id, c.relates_to, c.depth DESC, c.stream_ordering DESC
    ON CONFLICT (room_id, root_id) DO UPDATE
    SET depth = excluded.depth, stream_ordering = excluded.stream_ordering
    WHERE threads.depth IS NULL OR (threads.depth, threads.stream_ordering) < (excluded.depth, excluded.stream_ordering)
"""
# Counted as a whole, as others may be written meanwhile.
_SENDERS: Final = f"""
    INSERT INTO thread_senders (room_id, root_id, sender, events)
    SELECT c.room_id, c.relates_to, c.sender, count(*) FROM events c
    WHERE {IN_THREAD} AND (c.room_id, c.relates_to) IN (
        SELECT b.room_id, b.relates_to FROM events b
        WHERE b.stream_ordering > %s AND b.stream_ordering <= %s AND b.relation_type = 'm.thread'
    )
    GROUP BY c.room_id, c.relates_to, c.sender
    ON CONFLICT (room_id, root_id, sender) DO UPDATE SET events = excluded.events
"""
