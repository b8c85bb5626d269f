"""The threads of a room, in the order of their latest events.

The table `threads` has that order; for readers to whom some events do not count, because they ignore somebody or have
left, the latest one is looked for in each thread of the room. Written by `synapse.storage.persist_relations`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from synapse.storage.persist_relations import IN_THREAD
from synapse.storage.timeline import COLUMNS, NEWEST, SHOWN, TimelineRow

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Place(NamedTuple):
    """A point in the order of history."""

    depth: int
    stream: int


class WhichThreads(NamedTuple):
    """The threads of a room in which this user has taken part (None: all), with their latest event before a point.

    Events after position `until`, or of ignored users, do not count.
    """

    room_id: str
    participant: str | None
    before: Place | None
    until: int | None
    ignored: Sequence[str]


class Thread(NamedTuple):
    """Where a thread's latest event stands, and its root."""

    latest: Place
    root: TimelineRow


class ThreadStore:
    """Lists threads, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def threads(self, which: WhichThreads, limit: int) -> list[Thread]:
        """The first of them, the latest event first. One statement."""
        return await self._db.read("threads.threads", _threads, which, limit)


_KEPT = "threads l"
# See `synapse.storage.aggregations` for how positions are compared.
_LOOKED_FOR = f"""
    threads t CROSS JOIN LATERAL (
        SELECT t.room_id, t.root_id, c.depth, c.stream_ordering FROM events c
        WHERE c.relates_to = t.root_id AND c.room_id = t.room_id AND {IN_THREAD}
          AND (c.stream_ordering <= %(until)s) IS TRUE AND c.sender <> ALL(%(ignored)s)
        ORDER BY c.depth DESC, c.stream_ordering DESC LIMIT 1
    ) l
"""
_PARTICIPATED = """
    AND (e.sender = %(participant)s OR EXISTS (
        SELECT 1 FROM thread_senders s
        WHERE (s.room_id, s.root_id, s.sender) = (l.room_id, l.root_id, %(participant)s) AND s.events > 0
    ))
"""
_PARTICIPATED_THEN = f"""
    AND (e.sender = %(participant)s OR EXISTS (
        SELECT 1 FROM events c WHERE c.relates_to = l.root_id AND c.room_id = l.room_id AND {IN_THREAD}
          AND c.sender = %(participant)s AND (c.stream_ordering <= %(until)s) IS TRUE
    ))
"""


def _threads(txn: Transaction, which: WhichThreads, limit: int) -> list[Thread]:
    exact = bool(which.ignored) or which.until is not None
    txn.execute(
        f"""
        SELECT l.depth, l.stream_ordering, {COLUMNS} FROM {_LOOKED_FOR if exact else _KEPT}
        JOIN events e ON e.event_id = l.root_id AND e.room_id = l.room_id
        WHERE l.room_id = %(room)s AND l.depth IS NOT NULL AND e.relation_type IS NULL AND {SHOWN}
          {"AND t.room_id = %(room)s" if exact else ""}
          {"" if which.before is None else "AND (l.depth, l.stream_ordering) < (%(depth)s, %(stream)s)"}
          {"" if which.participant is None else _PARTICIPATED if which.until is None else _PARTICIPATED_THEN}
        ORDER BY l.depth DESC, l.stream_ordering DESC LIMIT %(limit)s
        """,
        {
            "room": which.room_id,
            "participant": which.participant,
            "until": NEWEST if which.until is None else which.until,
            "ignored": list(which.ignored),
            "depth": which.before and which.before.depth,
            "stream": which.before and which.before.stream,
            "limit": limit,
        },
    )
    return [Thread(Place(depth, stream), TimelineRow._make(row)) for depth, stream, *row in txn.rows()]
