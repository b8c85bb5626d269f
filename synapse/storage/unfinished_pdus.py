"""Events of other servers whose transactions were answered before it was known what becomes of them.

A row is held by whoever works on the event, as long as they say so; when that is over (`retry_at`), because they died
or the event is to be looked at again later, the main process takes it up. Several may work on the same event, which
does no harm: an event is taken in once. Times are milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

PER_ORIGIN: Final = 1_000
"""Events of one server that are kept, the latest: what comes before them is found by way of them."""

BYTES_PER_ORIGIN: Final = 16 * 1024 * 1024
IN_ALL: Final = 20_000

MAX_ATTEMPTS: Final = 8
"""How often an event is looked at, the first time included."""

MAX_AGE_MS: Final = 24 * 3600 * 1000

FIRST_PAUSE_MS: Final = 60_000
"""After so long an event is looked at again; after the second time, twice as long, and so on."""

AT_ONCE: Final = 50
"""Events of one server and room that are taken up together: as many as a transaction has."""

ROOMS_PER_ORIGIN: Final = 5
"""Rooms of one server whose events are taken up at the same time."""


class UnfinishedPdu(NamedTuple):
    """An event as it came: `pdu` is its JSON text."""

    origin: str
    room_id: str
    event_id: str
    pdu: str


class UnfinishedPdusStore:
    """Reads and writes the table, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def keep(self, pdus: Sequence[UnfinishedPdu], retry_at: Sequence[int], now: int) -> None:
        """Keeps events of one server, each until it is taken up at its `retry_at`; drops the server's oldest beyond
        what a server may have."""
        await self._db.write_idempotent("unfinished_pdus.keep", _keep, pdus, retry_at, now)

    async def hold(self, events: Sequence[tuple[str, str]], retry_at: int) -> None:
        """Somebody still works on these (origins and event ids)."""
        await self._db.write_idempotent("unfinished_pdus.hold", _hold, events, retry_at)

    async def settle(self, origin: str, done: Collection[str], again: Collection[str], now: int) -> None:
        """The events `done` need nothing more; those of `again` are to be looked at again later, unless they were often
        enough."""
        await self._db.write_idempotent("unfinished_pdus.settle", _settle, origin, list(done), list(again), now)

    async def take(self, now: int, retry_at: int, rooms: int, busy: Collection[str]) -> list[UnfinishedPdu]:
        """Events that are due, of so many rooms at most (of a server, ROOMS_PER_ORIGIN), and of none of the servers
        `busy`. They are held until `retry_at` then."""
        return await self._db.write("unfinished_pdus.take", _take, now, retry_at, rooms, list(busy))

    async def forget(self, now: int) -> list[tuple[str, str]]:
        """Gives events up that were looked at often enough, or are old, or too many; origins and event ids."""
        return await self._db.write_idempotent("unfinished_pdus.forget", _forget, now)


def _keep(txn: Transaction, pdus: Sequence[UnfinishedPdu], retry_at: Sequence[int], now: int) -> None:
    rows = [(*pdu, now, due) for pdu, due in sorted(zip(pdus, retry_at, strict=True))]  # one order: nobody waits twice
    txn.values(
        "INSERT INTO unfinished_pdus AS u (origin, room_id, event_id, pdu, received_ts, retry_at) VALUES %s"
        " ON CONFLICT (origin, event_id) DO UPDATE SET retry_at = greatest(u.retry_at, EXCLUDED.retry_at)",
        rows,
        later=True,
    )
    txn.later(
        """
        DELETE FROM unfinished_pdus u USING (
            SELECT event_id, row_number() OVER latest AS number, sum(octet_length(pdu)) OVER latest AS bytes
            FROM unfinished_pdus WHERE origin = %(origin)s
            WINDOW latest AS (ORDER BY received_ts DESC, event_id ROWS UNBOUNDED PRECEDING)
        ) o
        WHERE u.origin = %(origin)s AND u.event_id = o.event_id AND (o.number > %(number)s OR o.bytes > %(bytes)s)
        """,
        {"origin": pdus[0].origin, "number": PER_ORIGIN, "bytes": BYTES_PER_ORIGIN},
    )


def _hold(txn: Transaction, events: Sequence[tuple[str, str]], retry_at: int) -> None:
    origins, event_ids = zip(*sorted(events), strict=True)
    txn.execute(
        """
        UPDATE unfinished_pdus u SET retry_at = %s FROM unnest(%s::text[], %s::text[]) AS h (origin, event_id)
        WHERE u.origin = h.origin AND u.event_id = h.event_id
        """,
        (retry_at, list(origins), list(event_ids)),
    )


def _settle(txn: Transaction, origin: str, done: list[str], again: list[str], now: int) -> None:
    if done:
        txn.later("DELETE FROM unfinished_pdus WHERE origin = %s AND event_id = ANY(%s)", (origin, done))
    if again:
        txn.later(
            "DELETE FROM unfinished_pdus WHERE origin = %s AND event_id = ANY(%s) AND attempts >= %s",
            (origin, again, MAX_ATTEMPTS),
        )
        txn.later(
            "UPDATE unfinished_pdus SET retry_at = %s + %s * (1 << (attempts - 1))"
            " WHERE origin = %s AND event_id = ANY(%s)",
            (now, FIRST_PAUSE_MS, origin, again),
        )


def _take(txn: Transaction, now: int, retry_at: int, rooms: int, busy: list[str]) -> list[UnfinishedPdu]:
    txn.execute(
        """
        WITH rooms AS (
            SELECT origin, room_id, min(retry_at) AS due FROM unfinished_pdus
            WHERE retry_at <= %(now)s AND origin <> ALL(%(busy)s) GROUP BY origin, room_id
        ), turns AS (
            SELECT *, row_number() OVER (PARTITION BY origin ORDER BY due, room_id) AS turn FROM rooms
        ), chosen AS (
            SELECT * FROM turns WHERE turn <= %(rooms_each)s ORDER BY turn, due LIMIT %(rooms)s
        ), taken AS (
            SELECT t.origin, e.event_id FROM chosen t CROSS JOIN LATERAL (
                SELECT event_id FROM unfinished_pdus u
                WHERE u.origin = t.origin AND u.room_id = t.room_id AND u.retry_at <= %(now)s
                ORDER BY received_ts DESC, event_id LIMIT %(events)s
            ) e
        )
        UPDATE unfinished_pdus u SET attempts = attempts + 1, retry_at = %(until)s FROM taken t
        WHERE u.origin = t.origin AND u.event_id = t.event_id
        RETURNING u.origin, u.room_id, u.event_id, u.pdu
        """,
        {
            "now": now,
            "until": retry_at,
            "rooms": rooms,
            "rooms_each": ROOMS_PER_ORIGIN,
            "busy": busy,
            "events": AT_ONCE,
        },
    )
    return [UnfinishedPdu(*row) for row in txn.rows()]


def _forget(txn: Transaction, now: int) -> list[tuple[str, str]]:
    txn.execute(
        """
        DELETE FROM unfinished_pdus WHERE (retry_at <= %(now)s AND (attempts >= %(attempts)s OR received_ts < %(old)s))
            OR (origin, event_id) IN
                (SELECT origin, event_id FROM unfinished_pdus ORDER BY received_ts DESC, event_id OFFSET %(most)s)
        RETURNING origin, event_id
        """,
        {"now": now, "attempts": MAX_ATTEMPTS, "old": now - MAX_AGE_MS, "most": IN_ALL},
    )
    return [(origin, event_id) for origin, event_id in txn.rows()]
