"""Where rooms end: their forward extremities and present state group, as `room_heads` keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Extremity(NamedTuple):
    """A forward extremity: an event that no other refers to yet. `group` is the state after it."""

    depth: int
    group: int


class HeadRow(NamedTuple):
    """The head of a room. Positions are of the events stream; `residents` are the joined users of this server."""

    room_id: str
    room_version: str
    extremities: dict[str, Extremity]
    state_group: int
    group_number: int
    state_ordering: int
    stream_ordering: int
    residents: int


class ExtremitiesStore:
    """Reads room heads, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def head(self, room_id: str) -> HeadRow | None:
        """The head of a room that this server takes part in, or did. One statement."""
        return await self._db.read("extremities.head", _head, room_id)


def _head(txn: Transaction, room_id: str) -> HeadRow | None:
    txn.execute(
        """
        SELECT h.state_group, g.number, h.state_ordering, h.stream_ordering, r.room_version,
            (SELECT count(*) FROM local_memberships l WHERE l.room_id = h.room_id AND l.membership = 'join'),
            e.event_id, e.depth, e.state_group
        FROM room_heads h JOIN rooms r USING (room_id) JOIN state_groups g ON g.id = h.state_group
        JOIN events e ON e.event_id = ANY(h.event_ids)
        WHERE h.room_id = %s
        """,
        (room_id,),
    )
    rows = txn.rows()
    if not rows:
        return None
    state_group, number, state_ordering, stream_ordering, version, residents = rows[0][:6]
    extremities = {row[6]: Extremity(row[7], row[8]) for row in rows}
    return HeadRow(room_id, version, extremities, state_group, number, state_ordering, stream_ordering, residents)
