"""Reading what spaces say of their children: the m.space.child events of many spaces at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from synapse.storage.timeline import COLUMNS, TimelineRow

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class SpacesStore:
    """Reads spaces, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def children(self, room_ids: Sequence[str], limit: int) -> list[TimelineRow]:
        """The rooms' present m.space.child events; of each room so many at most, the oldest. One statement."""
        return await self._db.read("spaces.children", _children, list(room_ids), limit) if room_ids else []


def _children(txn: Transaction, room_ids: list[str], limit: int) -> list[TimelineRow]:
    txn.execute(
        f"""
        SELECT {COLUMNS} FROM unnest(%s::text[]) AS r (room_id)
        CROSS JOIN LATERAL (
            SELECT event_id FROM current_state
            WHERE room_id = r.room_id AND type = 'm.space.child' ORDER BY stream_ordering LIMIT %s
        ) cs
        JOIN events e ON e.event_id = cs.event_id
        """,
        (room_ids, limit),
    )
    return [TimelineRow._make(row) for row in txn.rows()]
