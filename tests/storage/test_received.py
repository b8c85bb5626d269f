"""Received events: what becomes of them, and of their room."""

from __future__ import annotations

from typing import Any

import pytest_twisted
from twisted.internet.defer import gatherResults

from synapse.storage.database import Database, Transaction
from synapse.storage.extremities import ExtremitiesStore
from synapse.storage.persist_events import Fate, Kind, ReceivedEvent
from tests.support.deferreds import started
from tests.support.received import EVE, MALLORY, Graph
from tests.support.rooms import ALICE, BOB, Cluster, check_invariants, start


async def shared_room(db: Database, *, workers: int = 0, **wish: Any) -> tuple[Cluster, Graph]:
    """A room of ours that somebody from elsewhere has joined."""
    cluster = await start(db, workers=workers)
    room_id = await cluster.main.room(joined=[BOB], **wish)
    graph = await Graph.of(cluster, db, room_id)
    assert await graph.give(graph.join(EVE)) == [Fate.ACCEPTED]
    return cluster, graph


async def extremities(db: Database, graph: Graph) -> set[str]:
    head = await ExtremitiesStore(db).head(graph.room_id)
    assert head is not None
    return set(head.extremities)


async def column(db: Database, name: str, sql: str, *params: Any) -> list[Any]:
    def read(txn: Transaction) -> list[Any]:
        txn.execute(sql, params)
        return [row[0] if len(row) == 1 else row for row in txn.rows()]

    return await db.read(name, read)


async def present(graph: Graph, key: tuple[str, str]) -> str | None:
    return (await graph.cluster.main.state.current_ids(graph.room_id)).get(key)


async def check_present(cluster: Cluster, db: Database, graph: Graph) -> None:
    """The room's present state is that of the whole graph."""
    assert await extremities(db, graph) == graph.dag.extremities
    assert await cluster.main.state.current_ids(graph.room_id) == graph.dag.present
    await check_invariants(cluster, db)


@pytest_twisted.ensureDeferred
async def test_events_in_a_row_are_accepted_and_read_nothing(database: Database) -> None:
    cluster, graph = await shared_room(database)
    await graph.give(graph.say(EVE))
    with database.counted() as counts:
        assert await graph.give(graph.say(EVE)) == [Fate.ACCEPTED]
    assert counts.statements_read == 0, counts.sql
    assert counts.statements_written == 2, counts.sql  # events, room heads
    assert counts.round_trips == 1
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_an_event_that_the_state_before_it_forbids_is_rejected_and_has_no_effect(database: Database) -> None:
    cluster, graph = await shared_room(database)
    before = graph.dag.extremities
    forbidden = graph.topic(EVE, "mine now")
    receipt = await graph.receipt(forbidden)
    assert receipt.fates[0][0] is Fate.REJECTED
    assert "power level" in receipt.fates[0][1]
    assert await extremities(database, graph) == before
    assert await present(graph, ("m.room.topic", "")) is None
    assert await column(database, "e", "SELECT rejected FROM events WHERE event_id = %s", forbidden.event_id) != [None]
    assert forbidden.event_id not in {step.new.event.event_id for step in cluster.announced}
    assert await graph.give(forbidden) == [Fate.KNOWN]

    # What refers to it finds the state that it found, and has its predecessors behind it.
    after = graph.say(EVE, state=graph.before(forbidden), after=[forbidden.event_id])
    assert await graph.give(after) == [Fate.ACCEPTED]
    assert await extremities(database, graph) == {after.event_id}
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_an_event_that_the_present_state_forbids_soft_fails_and_counts_nowhere(database: Database) -> None:
    cluster, graph = await shared_room(database)
    fork = sorted(graph.dag.extremities)
    ban = graph.make(ALICE.user_id, "m.room.member", {"membership": "ban"}, state_key=EVE)
    assert await graph.give(ban) == [Fate.ACCEPTED]
    late = graph.say(EVE, "not banned yet", after=fork)
    assert await graph.give(late) == [Fate.SOFT_FAILED]
    assert await extremities(database, graph) == {ban.event_id}
    assert late.event_id not in {step.new.event.event_id for step in cluster.announced}

    # An event of the other side refers to both: it has all of that behind it.
    both = graph.say(ALICE.user_id, after=[ban.event_id, late.event_id])
    assert await graph.give(both) == [Fate.ACCEPTED]
    await check_present(cluster, database, graph)
    # What refers to the soft-failed event alone branches from where that did.
    aside = graph.say(ALICE.user_id, after=[late.event_id])
    assert await graph.give(aside) == [Fate.ACCEPTED]
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_an_extremity_behind_a_soft_failed_event_is_none_any_more(database: Database) -> None:
    cluster, graph = await shared_room(database, workers=1)
    fork = sorted(graph.dag.extremities)
    said = graph.say(EVE, "before the ban", after=fork)
    ban = graph.make(ALICE.user_id, "m.room.member", {"membership": "ban"}, state_key=EVE, after=fork)
    late = graph.say(EVE, after=[said.event_id])
    assert await graph.give(said, ban, late) == [Fate.ACCEPTED, Fate.ACCEPTED, Fate.SOFT_FAILED]
    assert await extremities(database, graph) == {said.event_id, ban.event_id}
    later = graph.say(BOB.user_id, after=[late.event_id])
    assert await graph.give(later) == [Fate.ACCEPTED]
    assert await extremities(database, graph) == {ban.event_id, later.event_id}
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_an_event_after_a_gap_comes_with_its_state_and_the_gap_may_fill(database: Database) -> None:
    cluster, graph = await shared_room(database, workers=1)
    lost = [graph.say(EVE, str(number)) for number in range(3)]
    after = graph.say(EVE, "after")
    assert await graph.give(after) == [Fate.REFUSED]
    assert await graph.give(graph.with_state(after)) == [Fate.ACCEPTED]
    gaps = "SELECT event_id, depth FROM backward_extremities WHERE room_id = %s"
    assert await column(database, "gaps", gaps, graph.room_id) == [(lost[2].event_id, after.depth)]
    assert await column(database, "e", "SELECT event_id FROM events WHERE after_gap") == [after.event_id]
    assert cluster.announced[-1].after_gap
    first = lost[0].prev_event_ids
    assert await extremities(database, graph) == {after.event_id, *first}
    await check_invariants(cluster, database)

    # Those that come late are no extremities, and what is before them is none any more.
    assert await graph.give(graph.with_state(lost[2])) == [Fate.ACCEPTED]
    assert await extremities(database, graph) == {after.event_id, *first}
    assert await graph.give(*lost) == [Fate.ACCEPTED, Fate.ACCEPTED, Fate.KNOWN]
    assert await column(database, "gaps", gaps, graph.room_id) == []
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_a_state_with_rejected_or_unknown_events_is_not_believed(database: Database) -> None:
    cluster, graph = await shared_room(database)
    forbidden = graph.topic(EVE, "mine now")
    assert await graph.give(forbidden) == [Fate.REJECTED]
    graph.say(EVE, after=forbidden.prev_event_ids)
    after = graph.say(EVE, state=graph.before(forbidden))
    told = {**graph.before(forbidden), ("m.room.topic", ""): forbidden.event_id}
    unknown = {**told, ("m.room.name", ""): "$nowhere"}
    assert await graph.give(ReceivedEvent(after, state_before=unknown)) == [Fate.REFUSED]
    assert await graph.give(ReceivedEvent(after, state_before=told)) == [Fate.ACCEPTED]
    assert await present(graph, ("m.room.topic", "")) is None
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_branches_with_different_states_are_resolved(database: Database) -> None:
    cluster, graph = await shared_room(database)
    fork = sorted(graph.dag.extremities)
    one = graph.topic(ALICE.user_id, "one", after=fork)
    two = graph.topic(ALICE.user_id, "two", after=fork)
    join = graph.join(MALLORY, after=fork)
    assert await graph.give(two, join, one) == [Fate.ACCEPTED] * 3
    await check_present(cluster, database, graph)
    assert await graph.give(graph.say(EVE)) == [Fate.ACCEPTED]
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_an_event_that_cites_one_rejected_in_the_same_breath_is_rejected(database: Database) -> None:
    cluster, graph = await shared_room(database)
    levels = {"users": {EVE: 100}}
    forbidden = graph.make(EVE, "m.room.power_levels", levels, state_key="")
    built_on_it = graph.topic(EVE, "mine now")
    assert forbidden.event_id in built_on_it.auth_event_ids
    assert await graph.give(forbidden, built_on_it) == [Fate.REJECTED, Fate.REJECTED]
    another = graph.topic(EVE, "still mine", after=[built_on_it.event_id])
    assert await graph.give(another) == [Fate.REJECTED]
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_the_callers_verdict_stands(database: Database) -> None:
    cluster, graph = await shared_room(database)
    before = graph.dag.extremities
    fine, soft = graph.say(EVE), graph.say(EVE)
    events = (ReceivedEvent(fine, rejected="no"), ReceivedEvent(soft, soft_failed="spam"))
    assert (await graph.receipt(*events)).fates == ((Fate.REJECTED, "no"), (Fate.SOFT_FAILED, "spam"))
    assert await extremities(database, graph) == before
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_events_of_rooms_that_nobody_here_is_in_are_refused(database: Database) -> None:
    cluster, graph = await shared_room(database)
    for requester in (ALICE, BOB):
        await cluster.main.memberships.leave(requester, graph.room_id)
    graph = await Graph.of(cluster, database, graph.room_id)
    event = graph.say(EVE)
    for restarted in (cluster, await start(database)):
        graph.cluster = restarted
        assert await graph.give(event) == [Fate.REFUSED]
        assert await graph.give(graph.with_state(event), kind=Kind.HISTORY) == [Fate.REFUSED]
    graph.room_id = "!nowhere:elsewhere"
    assert await graph.give(event) == [Fate.REFUSED]
    assert await column(database, "e", "SELECT 1 FROM events WHERE event_id = %s", event.event_id) == []


@pytest_twisted.ensureDeferred
async def test_outliers_become_proper_events_where_they_are(database: Database) -> None:
    cluster, graph = await shared_room(database, workers=1)
    said, joined = graph.say(EVE), graph.join(MALLORY)
    await graph.give(outliers=[said, joined, said])
    await graph.give(outliers=[joined])
    kept = "SELECT event_id FROM events WHERE outlier AND state_group IS NULL AND stream_ordering < 0"
    assert set(await column(database, "e", kept)) == {said.event_id, joined.event_id}
    worker = cluster.workers[0]
    assert (await worker.events.get(said.event_id)).outlier  # type: ignore[union-attr]  # it is there
    await check_invariants(cluster, database)

    assert await graph.give(said, joined) == [Fate.ACCEPTED] * 2
    assert await column(database, "e", kept) == []
    for process in (cluster.main, worker):
        stored = await process.events.get(said.event_id)
        assert stored is not None
        assert not stored.outlier
        assert stored.state_group is not None
    await check_present(cluster, database, graph)
    await graph.give(outliers=[said, joined])
    assert await column(database, "e", kept) == []


@pytest_twisted.ensureDeferred
async def test_the_same_event_by_two_ways_at_once_is_written_once(database: Database) -> None:
    _cluster, graph = await shared_room(database)
    event = graph.say(EVE)
    fates = await gatherResults([started(graph.give(event, outliers=[event])) for _ in range(4)])
    assert sorted(fate.value for (fate,) in fates) == ["accepted", "known", "known", "known"]
    restarted = await start(database)
    graph.cluster = restarted
    other = graph.say(EVE)
    assert await graph.give(event, other, other) == [Fate.KNOWN, Fate.ACCEPTED, Fate.KNOWN]
    await check_present(restarted, database, graph)
