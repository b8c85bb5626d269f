"""What relates to the events of a page is found among what relates to them, however much else the room holds."""

from __future__ import annotations

from pytest_twisted import ensureDeferred

from synapse.storage.aggregations import Children, Parent, _children
from synapse.storage.database import Database, Transaction

EVENTS = 3_000
PARENTS = range(100, 120)


def _fill(txn: Transaction) -> None:
    """A long room, where 600 events relate to others, and many short ones, where all do. Depths repeat, as they do."""
    txn.execute(
        """
        INSERT INTO events (stream_ordering, event_id, room_id, depth, type, sender, origin_server_ts, received_ts,
            relates_to, relation_type, json)
        SELECT n, '$' || lpad(n::text, 43, '0'),
            CASE WHEN n <= %(n)s THEN '!long:test' ELSE '!short' || n / 20 || ':test' END,
            n %% 100, 'm.room.message', '@alice:test', n, n, related,
            CASE WHEN related IS NOT NULL THEN (ARRAY['m.thread', 'm.replace', 'm.reference'])[1 + n %% 3] END, '{}'
        FROM generate_series(0, 4 * %(n)s) AS n CROSS JOIN LATERAL (
            SELECT CASE WHEN n BETWEEN 1000 AND 1599 OR n > %(n)s THEN '$' || lpad((n - 1000)::text, 43, '0') END
        ) AS r (related)
        """,
        {"n": EVENTS},
    )
    txn.execute("ANALYZE events")


def _children_and_costs(txn: Transaction) -> tuple[Children, int]:
    """The children of all parents, and how many events are looked at for them."""
    parents = [Parent(f"${n:043}", 4 * EVENTS, 3) for n in PARENTS]
    counted = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'events'"
    txn.execute(counted)
    before = int(txn.one()[0])
    children = _children(txn, parents, "@alice:test", "DEVICE", [])
    txn.execute(counted)
    return children, int(txn.one()[0]) - before


@ensureDeferred
async def test_children_are_looked_up_by_their_parents(database: Database) -> None:
    await database.write("fill", _fill)
    children, read = await database.write("children", _children_and_costs)
    found = {each.parent_id for kind in children for each in kind}
    assert found == {f"${n:043}" for n in PARENTS}
    assert read <= 10 * len(PARENTS), read
