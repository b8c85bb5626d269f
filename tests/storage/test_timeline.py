"""Pages of timelines read what they show and little more, also where the database has one plan for all of them."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from synapse.storage.database import Database, Transaction
from synapse.storage.timeline import ALWAYS, NEWEST, OLDEST, Page, TimelineRow, TimelineStore, _annotations, _page

ROOM, USER, DEVICE = "!room:test", "@alice:test", "DEVICE"
EVENTS = 2_000

FIRST = Page(ROOM, True, NEWEST, NEWEST, OLDEST, EVENTS, None, 50)
PAGES = {
    "newest first": FIRST,
    "in the middle": FIRST._replace(depth=EVENTS // 2, stream=EVENTS // 2),
    "up to an earlier position": FIRST._replace(until=EVENTS - 100),
    "oldest first": FIRST._replace(backwards=False, depth=-1, stream=OLDEST),
    "from a position on": FIRST._replace(backwards=False, depth=-1, stream=OLDEST, after=EVENTS - 100),
    "back to a position": FIRST._replace(after=EVENTS - 40),
    "what has filled a gap": FIRST._replace(backwards=False, depth=-1, stream=OLDEST, after=EVENTS - 60),
    "back to an event": FIRST._replace(end=(EVENTS - 40, EVENTS - 40)),
}


def _fill(txn: Transaction) -> None:
    """A room in which one device has said much; another, as long, in which many have."""
    txn.execute(
        """
        INSERT INTO events
            (stream_ordering, event_id, room_id, depth, type, sender, origin_server_ts, received_ts, json)
        SELECT n, '$' || n, CASE WHEN n <= %(n)s THEN %(room)s ELSE '!other:test' END, n, 'm.room.message', %(user)s,
            n, n, '{}' FROM generate_series(1, 2 * %(n)s) AS n
        """,
        {"n": EVENTS, "room": ROOM, "user": USER},
    )
    txn.execute(
        """
        INSERT INTO event_txns (user_id, device_id, room_id, txn_id, event_id, sent_ts)
        SELECT sender, CASE WHEN room_id = %s THEN %s ELSE event_id END, room_id, 'txn' || event_id, event_id, 0
        FROM events
        """,
        (ROOM, DEVICE),
    )
    # Some of the room's history has been fetched.
    txn.execute("UPDATE events SET stream_ordering = -stream_ordering, fills = %s WHERE depth <= 20", (EVENTS - 50,))
    txn.execute("ANALYZE events, event_txns")


def _rows_read(txn: Transaction) -> int:
    """How many events this transaction has looked at so far."""
    txn.execute("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'events'")
    return int(txn.one()[0])


def _page_and_costs(txn: Transaction, page: Page) -> tuple[list[TimelineRow], int]:
    """The page, and how many events that takes."""
    before = _rows_read(txn)
    rows = _page(txn, page, ALWAYS)
    return rows, _rows_read(txn) - before


def _plan_of_notes(txn: Transaction, own: list[str]) -> str:
    _annotations(txn, [], [], own, USER, DEVICE)
    txn.execute("SELECT name FROM pg_prepared_statements WHERE statement LIKE '%FROM event_txns%'")
    txn.execute(f"EXPLAIN EXECUTE {txn.one()[0]} (%s, %s, %s)", (own, USER, DEVICE))
    return "\n".join(line for (line,) in txn.rows())


@ensureDeferred
async def test_a_page_reads_its_own_events(database: Database) -> None:
    await database.write("fill", _fill)
    for name, page in PAGES.items():
        rows, read = await database.write("page", _page_and_costs, page)
        assert 0 < len(rows) <= 50, name
        assert read <= 160, (name, read)  # at most the hundred after an earlier position too


@ensureDeferred
async def test_transaction_ids_are_looked_up_by_event(database: Database) -> None:
    """Not among all that the device has ever sent."""
    await database.write("fill", _fill)
    timeline = TimelineStore(database)
    rows = await timeline.page(FIRST)
    expected = {(row.event_id, f"txn{row.event_id}") for row in rows}
    assert {(note.event_id, note.text) for note in await timeline.annotations(rows, USER, DEVICE)} == expected
    assert await timeline.annotations(rows, USER, "ANOTHER") == []
    plan = await database.write("plan", _plan_of_notes, [row.event_id for row in rows])
    assert "event_txns_event" in plan
    assert "event_txns_pkey" not in plan
