"""What stands before and after events in the timelines of their rooms: for many events at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from synapse.storage.timeline import COLUMNS, NEWEST, TimelineRow

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Surroundings(NamedTuple):
    """The neighbours of an event: those before it with the nearest first, those after it in order."""

    before: list[TimelineRow]
    after: list[TimelineRow]


class SurroundingsStore:
    """Reads neighbours, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of(
        self, rows: Sequence[TimelineRow], before: int, after: int, until: Mapping[str, int | None]
    ) -> dict[str, Surroundings]:
        """So many neighbours of each event, by its id, in the order of history; none that arrived behind the position
        that `until` names for the room. One statement."""
        return await self._db.read("surroundings.of", _of, rows, before, after, until) if rows else {}


_SIDE = """
    (
        SELECT {later} AS later, e.* FROM events e
        WHERE e.room_id = w.room_id AND (e.depth, e.stream_ordering) {compare} (w.depth, w.stream)
          AND e.stream_ordering <= w.until AND NOT e.outlier AND NOT e.soft_failed AND e.rejected IS NULL
        ORDER BY e.depth {order}, e.stream_ordering {order} LIMIT %s
    )
"""


def _of(
    txn: Transaction, rows: Sequence[TimelineRow], before: int, after: int, until: Mapping[str, int | None]
) -> dict[str, Surroundings]:
    found = {row.event_id: Surroundings([], []) for row in rows}
    bounds = [NEWEST if until.get(row.room_id) is None else until[row.room_id] for row in rows]
    txn.execute(
        f"""
        SELECT w.event_id, e.later, {COLUMNS}
        FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
            AS w (event_id, room_id, depth, stream, until)
        CROSS JOIN LATERAL (
            {_SIDE.format(later="false", compare="<", order="DESC")} UNION ALL
            {_SIDE.format(later="true", compare=">", order="ASC")}
        ) e
        """,
        (
            [row.event_id for row in rows],
            [row.room_id for row in rows],
            [row.depth for row in rows],
            [row.stream for row in rows],
            bounds,
            before,
            after,
        ),
    )
    for event_id, later, *columns in txn.rows():
        (found[event_id].after if later else found[event_id].before).append(TimelineRow._make(columns))
    return found
