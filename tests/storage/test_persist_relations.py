"""What relations and redactions leave beside the events that bring them; and the same, made up for in old databases."""

from __future__ import annotations

from typing import Any

import pytest_twisted

from synapse.http.request import Requester
from synapse.replication.event_rows import read
from synapse.storage.background_updates import Batch
from synapse.storage.database import Database, Transaction
from synapse.storage.relation_updates import relate_events
from tests.support.rooms import ALICE, BOB, Cluster, announced_rows, start


async def relate(
    cluster: Cluster, requester: Requester, room_id: str, rel_type: str, event_id: str, kind: str = "m.room.message"
) -> str:
    content: dict[str, Any] = {"body": "x", "m.relates_to": {"rel_type": rel_type, "event_id": event_id, "key": "k"}}
    if rel_type == "m.replace":
        content["m.new_content"] = {"body": "y"}
    return (await cluster.main.creation.create(requester, room_id, kind, content)).event_id


async def query(db: Database, sql: str, *params: Any) -> list[Any]:
    def ask(txn: Transaction) -> list[Any]:
        txn.execute(sql, params)
        return txn.rows()

    return await db.write("query", ask)


async def parents(db: Database) -> set[str]:
    return {event_id for (event_id,) in await query(db, "SELECT event_id FROM events WHERE is_parent")}


async def latest(db: Database) -> list[Any]:
    """(root, latest event) of every thread."""
    sql = """
        SELECT t.root_id, e.event_id FROM threads t
        LEFT JOIN events e USING (room_id, depth, stream_ordering) ORDER BY t.root_id
    """
    return await query(db, sql)


@pytest_twisted.ensureDeferred
async def test_parents_are_marked_where_it_matters(database: Database) -> None:
    cluster = await start(database)
    process = cluster.main
    room, other = await process.room(joined=[BOB]), await process.room()
    said = [await process.say(ALICE, room, str(number)) for number in range(6)]
    elsewhere = await process.say(ALICE, other)
    await relate(cluster, ALICE, room, "m.replace", said[0])
    await relate(cluster, ALICE, room, "m.reference", said[1])
    await relate(cluster, ALICE, room, "m.thread", said[2])
    await relate(cluster, ALICE, room, "m.annotation", said[3], "m.reaction")
    await relate(cluster, ALICE, room, "org.other", said[4])
    await relate(cluster, ALICE, room, "m.reference", elsewhere)
    relates_to = {"rel_type": "m.replace", "event_id": said[5]}
    await process.creation.create(ALICE, room, "m.room.message", {"m.relates_to": relates_to})
    assert await parents(database) == set(said[:3])
    # An edit that says nothing new is to be ignored, unless it is encrypted, so that nobody here can tell.
    await process.creation.create(ALICE, room, "m.room.encrypted", {"m.relates_to": relates_to})
    assert await parents(database) == {*said[:3], said[5]}


@pytest_twisted.ensureDeferred
async def test_threads_have_a_latest_event_until_all_are_redacted(database: Database) -> None:
    cluster = await start(database)
    process = cluster.main
    room = await process.room(joined=[BOB])
    root = await process.say(ALICE, room)
    events = [await relate(cluster, BOB, room, "m.thread", root) for _ in range(3)]
    for left in (2, 1, 0):
        assert await latest(database) == [(root, events[left])]
        await process.redactions.redact(ALICE, room, events[left], {}, f"r{left}")
    assert await latest(database) == [(root, None)]
    again = await relate(cluster, BOB, room, "m.thread", root)
    assert await latest(database) == [(root, again)]
    earlier = await relate(cluster, BOB, room, "m.thread", root)
    await process.redactions.redact(ALICE, room, again, {}, "earlier")
    assert await latest(database) == [(root, earlier)]


async def senders(db: Database) -> dict[tuple[str, str], int]:
    """How many events each sender has in each thread."""
    rows = await query(db, "SELECT root_id, sender, events FROM thread_senders WHERE events <> 0")
    return {(root_id, sender): events for root_id, sender, events in rows}


@pytest_twisted.ensureDeferred
async def test_threads_count_whose_events_they_have(database: Database) -> None:
    cluster = await start(database)
    process = cluster.main
    room, other = await process.room(joined=[BOB]), await process.room()
    root, second = await process.say(ALICE, room), await process.say(ALICE, room)
    events = [await relate(cluster, BOB, room, "m.thread", root) for _ in range(3)]
    own = await relate(cluster, ALICE, room, "m.thread", root)
    await relate(cluster, BOB, room, "m.thread", second)
    await relate(cluster, ALICE, other, "m.thread", root)
    bob, alice = BOB.user_id, ALICE.user_id
    everywhere = {(root, bob): 3, (root, alice): 2, (second, bob): 1}
    found = "SELECT root_id, sender, sum(events)::int FROM thread_senders GROUP BY 1, 2"
    assert {(r, s): n for r, s, n in await query(database, found)} == everywhere
    for number, event_id in enumerate([events[1], events[1], own, own]):  # what is redacted twice is gone once
        await process.redactions.redact(ALICE, room, event_id, {}, f"r{number}")
    in_room = "SELECT root_id, sender, events FROM thread_senders WHERE room_id = %s AND events <> 0"
    rows = await query(database, in_room, room)
    assert {(r, s): n for r, s, n in rows} == {(root, bob): 2, (second, bob): 1}


@pytest_twisted.ensureDeferred
async def test_what_is_redacted_is_not_unread(database: Database) -> None:
    cluster = await start(database)
    process = cluster.main
    room = await process.room(joined=[BOB])
    said = [await process.say(ALICE, room, str(number)) for number in range(3)]
    await process.redactions.redact(ALICE, room, said[1], {}, "r")
    unread = await query(database, "SELECT event_id FROM push_actions WHERE user_id = %s ORDER BY 1", BOB.user_id)
    assert [event_id for (event_id,) in unread] == sorted([said[0], said[2]])


@pytest_twisted.ensureDeferred
async def test_state_events_name_what_they_replaced(database: Database) -> None:
    cluster = await start(database)
    process = cluster.main
    room = await process.room()
    first = await process.set(ALICE, room, "m.room.topic", {"topic": "one"})
    second = await process.set(ALICE, room, "m.room.topic", {"topic": "two"})
    sql = "SELECT event_id, replaces FROM events WHERE type = 'm.room.topic'"
    assert dict(await query(database, sql)) == {first: None, second: first}
    told = {row.event_id: row.replaces for _, row in announced_rows(cluster) if hasattr(row, "replaces")}
    assert (told[first], told[second]) == (None, first)
    assert sorted(announced_rows(cluster), key=repr) == sorted(await database.read("r", read, 0, 99, 99), key=repr)


@pytest_twisted.ensureDeferred
async def test_old_events_are_given_what_new_ones_are_written_with(database: Database) -> None:
    cluster = await start(database)
    process = cluster.main
    room = await process.room(joined=[BOB])
    await process.set(ALICE, room, "m.room.topic", {"topic": "one"})
    await process.set(ALICE, room, "m.room.topic", {"topic": "two"})
    roots = [await process.say(ALICE, room, str(number)) for number in range(3)]
    for root in roots:
        for _ in range(2):
            await relate(cluster, BOB, room, "m.thread", root)
    await relate(cluster, ALICE, room, "m.replace", roots[0])
    gone = await relate(cluster, BOB, room, "m.thread", roots[1])
    await process.redactions.redact(ALICE, room, gone, {}, "r")
    columns = "SELECT event_id, replaces, is_parent FROM events ORDER BY 1"
    written = (await query(database, columns), await latest(database), await senders(database))
    await database.write("old", lambda txn: txn.execute("UPDATE events SET replaces = NULL, is_parent = false"))
    await database.write("old", lambda txn: txn.execute("DELETE FROM threads; DELETE FROM thread_senders"))
    batch: Batch | None = Batch({}, 0)
    batches = 0
    while batch is not None:
        batch = await database.write("update", relate_events, batch.progress, 4)
        batches += 1
    assert batches > 3
    assert (await query(database, columns), await latest(database), await senders(database)) == written
