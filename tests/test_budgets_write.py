"""What writing costs, in statements: the budgets of the hot paths. Counts repeat; timings do not."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from synapse.http.request import Requester
from synapse.storage.database import Database
from synapse.storage.persist_events import Fate, PushAction, ReceivedEvent
from tests.support.deferreds import started
from tests.support.received import EVE, MALLORY, Graph
from tests.support.rooms import ALICE, BOB, CAROL, SERVER, start

MEMBERS = [Requester(f"@user{number}:{SERVER}", "DEVICE") for number in range(10)]


@pytest_twisted.ensureDeferred
async def test_a_message_reads_nothing_and_writes_in_one_round_trip(database: Database) -> None:
    process = (await start(database)).main
    room_id = await process.room(joined=MEMBERS)
    await process.say(ALICE, room_id, txn_id="first")
    with database.counted() as counts:
        await process.say(ALICE, room_id, txn_id="second")
    assert counts.statements_read == 0, counts.sql
    assert counts.statements_written == 4, counts.sql  # events, transaction ids, room heads, push actions
    assert counts.round_trips == 1


@pytest_twisted.ensureDeferred
async def test_a_message_through_a_worker_costs_the_same(database: Database) -> None:
    cluster = await start(database, workers=1)
    worker = cluster.workers[0]
    room_id = await worker.room(joined=MEMBERS)
    await worker.say(ALICE, room_id, txn_id="first")
    with database.counted() as counts:
        await worker.say(ALICE, room_id, txn_id="second")
    assert (counts.statements_read, counts.statements_written) == (0, 4), counts.sql


@pytest_twisted.ensureDeferred
async def test_messages_at_the_same_time_share_their_statements(database: Database) -> None:
    process = (await start(database)).main
    rooms = [await process.room(joined=[BOB, CAROL]) for _ in range(4)]
    for room_id in rooms:
        await process.say(ALICE, room_id)
    with database.counted() as counts:
        await gatherResults([started(process.say(ALICE, rooms[n % 4], txn_id=f"m{n}")) for n in range(64)])
    assert counts.statements_read == 0, counts.sql
    assert counts.statements_written <= 4 * 4
    assert counts.round_trips <= 4


@pytest.mark.parametrize("workers", [0, 1])
@pytest_twisted.ensureDeferred
async def test_a_join_takes_twelve_statements_at_most(database: Database, workers: int) -> None:
    cluster = await start(database, workers=workers)
    process = [cluster.main, *cluster.workers][-1]
    room_id = await process.room(joined=MEMBERS)
    await process.say(ALICE, room_id)
    with database.counted() as counts:
        await process.memberships.join(BOB, room_id)
    assert counts.statements_read + counts.statements_written <= 12, counts.sql


@pytest_twisted.ensureDeferred
async def test_a_join_after_many_is_no_dearer(database: Database) -> None:
    """Every eighth state group is a delta over an older group, and needs nothing to be read."""
    process = (await start(database)).main
    room_id = await process.room()
    await process.push_rules.programs([requester.user_id for requester in MEMBERS])
    for requester in [*MEMBERS, *MEMBERS[:9]]:
        with database.counted() as counts:
            await process.memberships.join(requester, room_id)
        assert counts.statements_read + counts.statements_written <= 12, counts.sql
        await process.memberships.leave(requester, room_id)


@pytest.mark.parametrize("workers", [0, 1])
@pytest_twisted.ensureDeferred
async def test_a_room_is_created_in_one_batch(database: Database, workers: int) -> None:
    cluster = await start(database, workers=workers)
    process = [cluster.main, *cluster.workers][-1]
    await process.room()
    with database.counted() as counts:
        await process.room(name="A room", topic="Things", invite=[BOB.user_id], room_alias_name="here")
    assert list(counts.written) == ["events.persist"]
    assert counts.statements_written <= 15
    assert counts.statements_read <= 2, counts.sql  # profiles and push rules


@pytest_twisted.ensureDeferred
async def test_what_is_received_costs_no_more_to_write_than_what_is_sent(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room(joined=MEMBERS)
    graph = await Graph.of(cluster, database, room_id)
    await graph.give(graph.join(EVE))
    await graph.give(graph.say(EVE))
    push = tuple(PushAction(member.user_id, True, False) for member in MEMBERS)
    with database.counted() as counts:
        assert await graph.give(ReceivedEvent(graph.say(EVE), push=push)) == [Fate.ACCEPTED]
    assert counts.statements_read == 0, counts.sql
    assert counts.statements_written == 3, counts.sql  # events, room heads, push actions
    assert counts.round_trips == 1
    with database.counted() as counts:
        assert await graph.give(graph.join(MALLORY)) == [Fate.ACCEPTED]
    assert counts.statements_read + counts.statements_written <= 12, counts.sql
    with database.counted() as counts:
        assert await graph.give(*[graph.say(EVE, str(number)) for number in range(50)]) == [Fate.ACCEPTED] * 50
    assert (counts.statements_read, counts.statements_written, counts.round_trips) == (0, 2, 1), counts.sql
