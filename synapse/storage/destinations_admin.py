"""Other servers as administrators see them: those to which something was sent, or is to be, or that do not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

ORDERS: Final = {
    "destination": "destination",
    "retry_last_ts": "retry_last_ts",
    "retry_interval": "retry_interval",
    "failure_ts": "failure_ts",
    "last_successful_stream_ordering": "last_successful_stream_ordering",
}
"""What lists can be ordered by."""


class Selection(NamedTuple):
    """Which servers are wanted: those whose names contain a text, in an order, from an offset on."""

    contains: str
    order: str
    backwards: bool
    offset: int
    limit: int


class KnownDestination(NamedTuple):
    """A server. Times are milliseconds; 0 and None where it answers. The last is how far it has been sent the events
    that are for it, as a position of the stream; None: none yet."""

    destination: str
    retry_last_ts: int
    retry_interval: int
    failure_ts: int | None
    last_successful_stream_ordering: int | None


class RoomOfDestination(NamedTuple):
    """A room that a server is in, and the position of its last event."""

    room_id: str
    stream_ordering: int


class DestinationsAdminStore:
    """Reads, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(self, selection: Selection) -> tuple[int, list[KnownDestination]]:
        """How many servers there are, and those that are selected."""
        return await self._db.read("destinations_admin.page", _page, selection)

    async def get(self, destination: str) -> KnownDestination | None:
        """One server; None where nothing is known of it."""
        return await self._db.read("destinations_admin.get", _get, destination)

    async def rooms(
        self, destination: str, backwards: bool, offset: int, limit: int
    ) -> tuple[int, list[RoomOfDestination]]:
        """How many rooms the server is in, and some of them, by their ids."""
        return await self._db.read("destinations_admin.rooms", _rooms, destination, backwards, offset, limit)


_KNOWN: Final = """
    SELECT destination, COALESCE(d.retry_last_ts, 0) AS retry_last_ts, COALESCE(d.retry_interval, 0) AS retry_interval,
        d.failing_since AS failure_ts, q.acked AS last_successful_stream_ordering
    FROM (
        SELECT destination FROM federation_queues UNION SELECT destination FROM destinations
        UNION SELECT destination FROM federation_missed UNION SELECT destination FROM federation_audiences
    ) AS known LEFT JOIN destinations d USING (destination) LEFT JOIN federation_queues q USING (destination)
"""


def _page(txn: Transaction, selection: Selection) -> tuple[int, list[KnownDestination]]:
    order = ORDERS[selection.order]
    way = "DESC NULLS LAST" if selection.backwards else "ASC NULLS FIRST"
    txn.execute(
        f"""
        WITH known AS ({_KNOWN}), chosen AS (SELECT * FROM known WHERE strpos(destination, %s) > 0)
        SELECT (SELECT count(*) FROM chosen), page.* FROM (SELECT 1) AS one LEFT JOIN (
            SELECT * FROM chosen ORDER BY {order} {way}, destination OFFSET %s LIMIT %s
        ) AS page ON true
        """,
        (selection.contains, selection.offset, selection.limit),
    )
    rows = txn.rows()
    return rows[0][0], [KnownDestination(*rest) for _, *rest in rows if rest[0] is not None]


def _get(txn: Transaction, destination: str) -> KnownDestination | None:
    txn.execute(f"WITH known AS ({_KNOWN}) SELECT * FROM known WHERE destination = %s", (destination,))
    row = txn.one_or_none()
    return None if row is None else KnownDestination(*row)


def _rooms(
    txn: Transaction, destination: str, backwards: bool, offset: int, limit: int
) -> tuple[int, list[RoomOfDestination]]:
    txn.execute(
        f"""
        WITH shared AS (
            SELECT DISTINCT c.room_id FROM current_state c
            WHERE c.type = 'm.room.member' AND c.membership = 'join'
                AND substr(c.state_key, strpos(c.state_key, ':') + 1) = %s
        )
        SELECT (SELECT count(*) FROM shared), page.* FROM (SELECT 1) AS one LEFT JOIN (
            SELECT room_id, h.stream_ordering FROM shared JOIN room_heads h USING (room_id)
            ORDER BY room_id {"DESC" if backwards else "ASC"} OFFSET %s LIMIT %s
        ) AS page ON true
        """,
        (destination, offset, limit),
    )
    rows: list[Any] = txn.rows()
    return rows[0][0], [RoomOfDestination(*rest) for _, *rest in rows if rest[0] is not None]
