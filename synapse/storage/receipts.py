"""Read receipts: how far each user has read in each room, and in each thread of it.

There is one receipt for each (room, type, user, thread); it moves forwards only, in the order of events here or in that
of the user's server. Private receipts (`m.read.private`) lie beside the public ones, and it is here that nobody but
their owner is given them. Written by the main process, which hands out the stream positions; a receipt of a local user
also settles the unread counts, in the same transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

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


class FarReceipt(msgspec.Struct, frozen=True):
    """A receipt of another server's user; `event_stream` is the position of its event, None where it is not here."""

    receipt: Receipt
    event_stream: int | None


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

    async def put(self, receipt: Receipt, event_stream: int, stream_id: int) -> bool:
        """A receipt of a user of this server. False where it lies at or behind the present one, and nothing was
        written. `event_stream` is the event's position in the events stream.
        """
        return await self._db.write_idempotent("receipts.put", _put, receipt, event_stream, stream_id)

    async def put_many(self, receipts: Sequence[FarReceipt], stream_ids: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Receipts of other servers' users, no two of which are for the same user, room and thread, each at a position
        of its own. Those that were written, as room and user by position: not those behind one of a later time, as
        their servers have the events in an order of their own. One statement.
        """
        return await self._db.write_idempotent("receipts.put_many", _put_many, receipts, stream_ids)

    async def of_rooms(self, room_ids: Sequence[str], user_id: str, until: int) -> list[Receipt]:
        """All that `user_id` may see in the rooms, as far as `until`. One statement."""
        return await self.changed(dict.fromkeys(room_ids, 0), user_id, until)

    async def changed(self, after: Mapping[str, int], user_id: str, until: int) -> list[Receipt]:
        """Those that `user_id` may see and that were set in each room after its position. One statement."""
        return await self._db.read("receipts.changed", _changed, after, user_id, until) if after else []

    async def event(self, room_id: str, event_id: str) -> ReceiptEvent | None:
        """Where the event lies; None where the room has no such event (that clients see)."""
        return (await self.events([(room_id, event_id)])).get((room_id, event_id))

    async def events(self, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], ReceiptEvent]:
        """The same of many, by room and event id. One statement."""
        return await self._db.read("receipts.events", _events, list(wanted)) if wanted else {}

    async def max_stream_id(self) -> int:
        return await self._db.read("receipts.max_stream_id", _max_stream_id)

    async def updates(self, after: int, until: int, limit: int) -> list[tuple[int, str, str, str]]:
        """For replication: (stream id, room, type, user) of receipts set at `after` < id ≤ `until`, in order."""
        return await self._db.read("receipts.updates", _updates, after, until, limit)


# What is there already was written before the connection broke: it is new to everybody.
_IS_FORWARD: Final = """
    r.event_stream_ordering IS NULL OR EXCLUDED.event_stream_ordering IS NULL
    OR r.event_stream_ordering < EXCLUDED.event_stream_ordering OR r.stream_id = EXCLUDED.stream_id
"""
_TS: Final = "({}.data::json ->> 'ts')::numeric"
_IS_LATER: Final = f"""
    {_TS.format("r")} < {_TS.format("EXCLUDED")} OR ({_TS.format("r")} = {_TS.format("EXCLUDED")} AND ({_IS_FORWARD}))
"""
_PUT: Final = """
    INSERT INTO receipts AS r
        (room_id, receipt_type, user_id, thread_id, event_id, data, event_stream_ordering, stream_id)
    {rows}
    ON CONFLICT (room_id, receipt_type, user_id, thread_id) DO UPDATE SET
        event_id = EXCLUDED.event_id, data = EXCLUDED.data,
        event_stream_ordering = EXCLUDED.event_stream_ordering, stream_id = EXCLUDED.stream_id
    WHERE {condition}
    RETURNING stream_id, room_id, user_id
"""
_PUT_ONE: Final = _PUT.format(rows="VALUES (%s, %s, %s, %s, %s, %s, %s, %s)", condition=_IS_FORWARD)
_PUT_MANY: Final = _PUT.format(
    rows="SELECT * FROM unnest(" + "%s::text[], " * 6 + "%s::bigint[], %s::bigint[])", condition=_IS_LATER
)


def _put(txn: Transaction, receipt: Receipt, event_stream: int, stream_id: int) -> bool:
    txn.execute(_PUT_ONE, (*receipt, event_stream, stream_id))
    if txn.one_or_none() is None:
        return False
    unread.mark_read(txn, receipt.user_id, receipt.room_id, receipt.thread_id, event_stream)
    return True


def _put_many(
    txn: Transaction, receipts: Sequence[FarReceipt], stream_ids: Sequence[int]
) -> dict[int, tuple[str, str]]:
    rows = sorted(
        (*each.receipt, each.event_stream, stream_id) for each, stream_id in zip(receipts, stream_ids, strict=True)
    )
    txn.execute(_PUT_MANY, [list(column) for column in zip(*rows, strict=True)])
    return {stream_id: (room_id, user_id) for stream_id, room_id, user_id in txn.rows()}


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


def _events(txn: Transaction, wanted: list[tuple[str, str]]) -> dict[tuple[str, str], ReceiptEvent]:
    # An event is in a thread if following its relations, three at most, leads to an m.thread relation.
    txn.execute(
        """
        WITH RECURSIVE chain AS (
            SELECT e.room_id, e.event_id, e.stream_ordering, e.relates_to, e.relation_type, 1 AS hops
            FROM unnest(%s::text[], %s::text[]) AS w (room_id, event_id) JOIN events e USING (room_id, event_id)
            WHERE NOT e.outlier AND e.rejected IS NULL
          UNION ALL
            SELECT c.room_id, c.event_id, e.stream_ordering, e.relates_to, e.relation_type, c.hops + 1
            FROM chain c JOIN events e ON e.event_id = c.relates_to AND e.room_id = c.room_id
            WHERE c.relation_type IS DISTINCT FROM 'm.thread' AND c.hops < 3
        )
        SELECT room_id, event_id, stream_ordering, relates_to, relation_type FROM chain ORDER BY hops
        """,
        ([room_id for room_id, _ in wanted], [event_id for _, event_id in wanted]),
    )
    chains: dict[tuple[str, str], list[tuple[int, str | None, str | None]]] = {}
    for room_id, event_id, *step in txn.rows():
        chains.setdefault((room_id, event_id), []).append(tuple(step))
    return {place: _placed(place[1], chain) for place, chain in chains.items()}


def _placed(event_id: str, chain: Sequence[tuple[int, str | None, str | None]]) -> ReceiptEvent:
    """Of the event and those that it is about: positions, what each relates to, and how."""
    thread = next((root for _, root, relation in chain if relation == "m.thread"), None)
    related = [thread] if thread is not None else ["main", *(target for _, target, _ in chain if target is not None)]
    return ReceiptEvent(chain[0][0], frozenset([event_id, *related]))


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
