"""Read receipts: how far each user has read in each room, and in each thread of it.

There is one receipt for each (room, type, user, thread); it moves forwards only, in the order of events here or in that
of the user's server. Private receipts (`m.read.private`)
lie beside the public ones, and it is here that nobody but their owner is given them. Written by the main process,
which hands out the stream positions; a receipt of a local user also settles the unread counts, in the same
transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.api.constants import ReceiptTypes
from synapse.storage import unread

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Receipt(NamedTuple):
    """`thread_id` is "" for unthreaded receipts, "main" or a thread's root; `data` the JSON text of an object with
    `ts`.
    """

    room_id: str
    receipt_type: str
    user_id: str
    thread_id: str
    event_id: str
    data: str


class ReceiptEvent(NamedTuple):
    """Where an event that a receipt points to lies: its arrival, and the threads that it has to do with.

    Those are its own ("main" outside of threads), the one that it may be the root of, and outside of threads also those
    of what it is about: reactions to a root are in the main timeline, and are shown with the thread.
    """

    stream: int
    threads: frozenset[str]


class ReceiptStore:
    """Reads receipts anywhere; writes them in the main process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(self, receipt: Receipt, event_stream: int | None, stream_id: int, local: bool) -> bool:
        """False where the receipt lies at or behind the present one, and nothing was written. Those of other servers'
        users (`local` false) are behind one of a later time: their servers have the events in an order of their own.

        `event_stream` is the event's position in the events stream, None if we do not have the event.
        """
        return await self._db.write_idempotent("receipts.put", _put, receipt, event_stream, stream_id, local)

    async def of_rooms(self, room_ids: Sequence[str], user_id: str, until: int) -> list[Receipt]:
        """All that `user_id` may see in the rooms, as far as `until`. One statement."""
        return await self.changed(dict.fromkeys(room_ids, 0), user_id, until)

    async def changed(self, after: Mapping[str, int], user_id: str, until: int) -> list[Receipt]:
        """Those that `user_id` may see and that were set in each room after its position. One statement."""
        return await self._db.read("receipts.changed", _changed, after, user_id, until) if after else []

    async def event(self, room_id: str, event_id: str) -> ReceiptEvent | None:
        """Where the event lies; None where the room has no such event (that clients see)."""
        return await self._db.read("receipts.event", _event, room_id, event_id)

    async def max_stream_id(self) -> int:
        return await self._db.read("receipts.max_stream_id", _max_stream_id)

    async def updates(self, after: int, until: int, limit: int) -> list[tuple[int, str, str, str]]:
        """For replication: (stream id, room, type, user) of receipts set at `after` < id ≤ `until`, in order."""
        return await self._db.read("receipts.updates", _updates, after, until, limit)


_IS_FORWARD: Final = """
    r.event_stream_ordering IS NULL OR EXCLUDED.event_stream_ordering IS NULL
    OR r.event_stream_ordering < EXCLUDED.event_stream_ordering
"""
_TS: Final = "({}.data::json ->> 'ts')::numeric"
_IS_LATER: Final = f"""
    {_TS.format("r")} < {_TS.format("EXCLUDED")} OR ({_TS.format("r")} = {_TS.format("EXCLUDED")} AND ({_IS_FORWARD}))
"""


def _put(txn: Transaction, receipt: Receipt, event_stream: int | None, stream_id: int, local: bool) -> bool:
    txn.execute(
        f"""
        INSERT INTO receipts AS r
            (room_id, receipt_type, user_id, thread_id, event_id, data, event_stream_ordering, stream_id)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (room_id, receipt_type, user_id, thread_id) DO UPDATE SET
            event_id = EXCLUDED.event_id, data = EXCLUDED.data,
            event_stream_ordering = EXCLUDED.event_stream_ordering, stream_id = EXCLUDED.stream_id
        WHERE {_IS_FORWARD if local else _IS_LATER}
        RETURNING true
        """,
        (*receipt, event_stream, stream_id),
    )
    if txn.one_or_none() is None:
        return False
    if local and event_stream is not None:
        unread.mark_read(txn, receipt.user_id, receipt.room_id, receipt.thread_id, event_stream)
    return True


def _changed(txn: Transaction, after: Mapping[str, int], user_id: str, until: int) -> list[Receipt]:
    txn.planned(
        """
        SELECT r.room_id, r.receipt_type, r.user_id, r.thread_id, r.event_id, r.data
        FROM unnest(%s::text[], %s::bigint[]) AS w (room_id, after)
        JOIN receipts r ON r.room_id = w.room_id AND r.stream_id > w.after AND r.stream_id <= %s
        WHERE r.receipt_type <> %s OR r.user_id = %s
        ORDER BY r.stream_id
        """,
        (list(after), list(after.values()), until, ReceiptTypes.READ_PRIVATE, user_id),
    )
    return [Receipt._make(row) for row in txn.rows()]


def _event(txn: Transaction, room_id: str, event_id: str) -> ReceiptEvent | None:
    # An event is in a thread if following its relations, three at most, leads to an m.thread relation.
    txn.execute(
        """
        WITH RECURSIVE chain AS (
            SELECT e.stream_ordering, e.relates_to, e.relation_type, 1 AS hops FROM events e
            WHERE e.event_id = %s AND e.room_id = %s AND NOT e.outlier AND e.rejected IS NULL
          UNION ALL
            SELECT e.stream_ordering, e.relates_to, e.relation_type, c.hops + 1
            FROM chain c JOIN events e ON e.event_id = c.relates_to AND e.room_id = %s
            WHERE c.relation_type IS DISTINCT FROM 'm.thread' AND c.hops < 3
        )
        SELECT stream_ordering, relates_to, relation_type FROM chain ORDER BY hops
        """,
        (event_id, room_id, room_id),
    )
    rows = txn.rows()
    if not rows:
        return None
    thread = next((root for _, root, relation in rows if relation == "m.thread"), None)
    related = [thread] if thread is not None else ["main", *(target for _, target, _ in rows if target is not None)]
    return ReceiptEvent(rows[0][0], frozenset([event_id, *related]))


def _max_stream_id(txn: Transaction) -> int:
    txn.execute("SELECT COALESCE(MAX(stream_id), 0) FROM receipts")
    return int(txn.one()[0])


def _updates(txn: Transaction, after: int, until: int, limit: int) -> list[tuple[int, str, str, str]]:
    txn.execute(
        """
        SELECT stream_id, room_id, receipt_type, user_id FROM receipts
        WHERE stream_id > %s AND stream_id <= %s ORDER BY stream_id LIMIT %s
        """,
        (after, until, limit),
    )
    return [(stream_id, room_id, kind, user_id) for stream_id, room_id, kind, user_id in txn.rows()]
