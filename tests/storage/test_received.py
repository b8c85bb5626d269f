"""Received events: what becomes of them, and of their room."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from synapse.replication.event_rows import EventRow, read
from synapse.storage.database import Database, PoolSettings, Transaction
from synapse.storage.extremities import ExtremitiesStore
from synapse.storage.persist_events import Fate, Kind, Outlier, PushAction, ReceivedEvent
from tests.support.deferreds import started
from tests.support.postgres import PostgresServer
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
async def test_a_gap_behind_a_soft_failed_event_is_one_before_what_comes_after_it(database: Database) -> None:
    cluster, graph = await shared_room(database, workers=1)
    fork = sorted(graph.dag.extremities)
    ban = graph.make(ALICE.user_id, "m.room.member", {"membership": "ban"}, state_key=EVE, after=fork)
    lost = graph.say(EVE, "lost", after=fork)
    late = graph.say(EVE, "late", after=[lost.event_id])
    assert await graph.give(ban, graph.with_state(late)) == [Fate.ACCEPTED, Fate.SOFT_FAILED]
    assert await column(database, "e", "SELECT event_id FROM events WHERE after_gap") == []
    later = graph.say(BOB.user_id, after=[late.event_id])
    assert await graph.give(later) == [Fate.ACCEPTED]
    gaps = "SELECT event_id, depth FROM backward_extremities WHERE room_id = %s"
    assert await column(database, "gaps", gaps, graph.room_id) == [(lost.event_id, later.depth)]
    assert await column(database, "e", "SELECT event_id FROM events WHERE after_gap") == [later.event_id]
    assert cluster.announced[-1].after_gap


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
    assert await column(database, "e", "SELECT event_id FROM events WHERE after_gap") == [lost[2].event_id]
    assert await graph.give(*lost) == [Fate.ACCEPTED, Fate.ACCEPTED, Fate.KNOWN]
    assert await column(database, "gaps", gaps, graph.room_id) == []
    assert await column(database, "e", "SELECT event_id FROM events WHERE after_gap") == []
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


@pytest_twisted.ensureDeferred
async def test_a_room_has_no_more_branches_than_can_be_resolved(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, graph = await shared_room(database)
    monkeypatch.setattr("synapse.storage.persist_received.MAX_BRANCHES", 5)
    fork = sorted(graph.dag.extremities)
    names = [{"membership": "join", "displayname": str(number)} for number in range(8)]
    branches = [graph.make(EVE, "m.room.member", name, state_key=EVE, after=fork) for name in names]
    fates = await graph.give(*branches)
    assert fates == [Fate.ACCEPTED] * 5 + [Fate.SOFT_FAILED] * 3
    # What goes on with one of them opens none, and who refers to all of them ends them.
    assert await graph.give(graph.say(EVE, after=[branches[0].event_id])) == [Fate.ACCEPTED]
    assert await graph.give(graph.say(EVE)) == [Fate.ACCEPTED]
    assert await graph.give(graph.say(EVE, after=fork)) == [Fate.ACCEPTED]
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_a_state_that_is_another_altogether_moves_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, graph = await shared_room(database, workers=1)
    joins = [graph.join(f"@friend{number}:elsewhere") for number in range(10)]
    assert await graph.give(*joins) == [Fate.ACCEPTED] * 10
    monkeypatch.setattr("synapse.storage.persist_received.MAX_DISPUTED", 8)
    before, ends = dict(graph.dag.present), await extremities(database, graph)
    lie = graph.say(EVE, after=joins[-1].prev_event_ids)
    told = {key: i for key, i in before.items() if key[1] not in {f"@friend{n}:elsewhere" for n in range(9)}}
    lost = graph.say(EVE, after=[lie.event_id])
    assert await graph.give(ReceivedEvent(lost, state_before=told)) == [Fate.SOFT_FAILED]
    assert await extremities(database, graph) == ends
    assert await cluster.main.state.current_ids(graph.room_id) == before
    # Nor can anybody say where it would meet with the others.
    both = graph.say(EVE, after=[lost.event_id, joins[-1].event_id])
    assert await graph.give(both) == [Fate.REFUSED]
    assert await graph.give(graph.say(EVE, after=[joins[-1].event_id])) == [Fate.ACCEPTED]
    await check_invariants(cluster, database)


# -- what comes before what it is about ----------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_who_relates_to_an_event_may_come_before_it(database: Database) -> None:
    cluster, graph = await shared_room(database)
    root = graph.say(EVE, "root")
    relation = {"m.relates_to": {"rel_type": "m.thread", "event_id": root.event_id}}
    child = graph.make(EVE, "m.room.message", {"body": "child", **relation})
    assert await graph.give(graph.with_state(child)) == [Fate.ACCEPTED]
    assert await graph.give(root) == [Fate.ACCEPTED]
    assert await column(database, "p", "SELECT is_parent FROM events WHERE event_id = %s", root.event_id) == [True]
    assert await column(database, "t", "SELECT depth FROM threads") == [child.depth]
    assert await column(database, "t", "SELECT events FROM thread_senders") == [1]
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_soft_failed_and_rejected_events_count_nowhere(database: Database) -> None:
    cluster, graph = await shared_room(database)
    root = graph.say(EVE, "root")
    assert await graph.give(root) == [Fate.ACCEPTED]
    relation = {"m.relates_to": {"rel_type": "m.thread", "event_id": root.event_id}}
    children = [graph.make(EVE, "m.room.message", {"body": "child", **relation}) for _ in range(2)]
    leave = graph.make(BOB.user_id, "m.room.member", {"membership": "leave"}, state_key=BOB.user_id)
    push = (PushAction(ALICE.user_id, True, False),)
    events = [
        ReceivedEvent(children[0], soft_failed="spam", push=push),
        ReceivedEvent(children[1], rejected="no", push=push),
        ReceivedEvent(leave, soft_failed="spam"),
    ]
    assert await graph.give(*events) == [Fate.SOFT_FAILED, Fate.REJECTED, Fate.SOFT_FAILED]
    for table in ("threads", "thread_senders", "push_actions"):
        assert await column(database, "t", f"SELECT 1 FROM {table}") == []
    assert await column(database, "p", "SELECT 1 FROM events WHERE is_parent OR relates_to IS NOT NULL") == []
    assert await column(database, "m", "SELECT 1 FROM memberships WHERE event_id = %s", leave.event_id) == []

    # What comes after the leave finds it.
    after = graph.say(EVE)
    assert await graph.give(after) == [Fate.ACCEPTED]
    assert await present(graph, ("m.room.member", BOB.user_id)) == leave.event_id
    steps = "SELECT stream_ordering > 0 FROM memberships WHERE event_id = %s"
    assert await column(database, "m", steps, leave.event_id) == [True]
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_what_was_kept_as_rejected_stays_so(database: Database) -> None:
    cluster, graph = await shared_room(database)
    event = graph.topic(ALICE.user_id, "no")
    await graph.give(outliers=[Outlier(event, "no")])
    assert await graph.give(event) == [Fate.REJECTED]
    assert await present(graph, ("m.room.topic", "")) is None
    await check_invariants(cluster, database)


# -- history -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_history_moves_nothing_and_fills_the_past(database: Database) -> None:
    cluster = await start(database, workers=1)
    graph = Graph.elsewhere(cluster)
    forbidden = graph.topic("@nobody:elsewhere", "no")
    graph.reject(forbidden)
    past = [graph.topic(EVE, str(number)) for number in range(6)]
    await graph.enter(ALICE.user_id)
    await cluster.workers[0].events.get_many([event.event_id for event in past])
    announced, ends = len(cluster.announced), await extremities(database, graph)
    gaps = "SELECT event_id FROM backward_extremities WHERE room_id = %s"
    assert await column(database, "g", gaps, graph.room_id) == [past[-1].event_id]

    found = graph.chain(graph.before(past[3]).values())
    fates = await graph.give(graph.with_state(past[3]), *past[4:], kind=Kind.HISTORY, outliers=found)
    assert fates == [Fate.ACCEPTED] * 3
    assert await column(database, "g", gaps, graph.room_id) == [past[2].event_id]
    whole = [event for event in graph.dag.events.values() if event.depth < past[3].depth]
    fates = await graph.give(*whole, kind=Kind.HISTORY)
    assert fates.count(Fate.REJECTED) == 1
    assert fates.count(Fate.ACCEPTED) == len(whole) - 1
    assert await column(database, "g", gaps, graph.room_id) == []
    assert (len(cluster.announced), await extremities(database, graph)) == (announced, ends)
    order = "SELECT event_id FROM events WHERE room_id = %s AND NOT outlier ORDER BY stream_ordering"
    assert await column(database, "o", order, graph.room_id) == list(graph.dag.events)
    for process in (cluster.main, *cluster.workers):
        groups = await process.events.state_groups([event.event_id for event in past])
        assert len(groups) == len(past)
    for event in past[1:]:
        state = await cluster.main.state.before_event(event.event_id)
        assert state[("m.room.topic", "")].event.content["topic"] == str(int(event.content["topic"]) - 1)
    assert await graph.give(graph.say(EVE)) == [Fate.ACCEPTED]
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_a_second_beginning_of_a_room_is_rejected(database: Database) -> None:
    cluster, graph = await shared_room(database)
    other = await Graph.of(cluster, database, await cluster.main.room())
    create = other.dag.create
    for kind in (Kind.TIMELINE, Kind.HISTORY):
        assert await graph.give(create, kind=kind) in ([Fate.REJECTED], [Fate.KNOWN])
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_received_events_survive_connections_that_break(
    database: Database, database_settings: PoolSettings, postgres: PostgresServer
) -> None:
    cluster = await start(database)
    for number in range(5):
        graph = Graph.elsewhere(cluster, *[f"@f{n}:elsewhere" for n in range(20)])
        join = graph.join(ALICE.user_id)
        outliers = graph.chain(graph.before(join).values())
        both = [
            started(graph.give(graph.with_state(join), kind=Kind.JOIN, outliers=outliers)),
            started(graph.give(outliers=outliers)),
        ]
        postgres.kill_connections(database_settings.connection["dbname"])
        await gatherResults(both)
        said = [graph.say(EVE, f"{number}-{n}") for n in range(4)]
        sends = [started(graph.give(event)) for event in said]
        postgres.kill_connections(database_settings.connection["dbname"])
        await gatherResults(sends)
    assert await column(database, "e", "SELECT count(*) FROM events WHERE type = 'm.room.message'") == [20]
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_a_commit_whose_answer_was_lost_is_not_done_twice(database: Database) -> None:
    cluster, graph = await shared_room(database)
    outlier = graph.say(EVE, "was here")
    await graph.give(outliers=[outlier])
    write = database.write_idempotent

    async def loses_the_answer(name: str, fn: Any, *args: Any) -> Any:
        await write(name, fn, *args)
        return await write(name, fn, *args)  # what `write_idempotent` does on a lost connection

    database.write_idempotent = loses_the_answer  # type: ignore[method-assign, assignment]  # one test's trick
    topic, said = graph.topic(ALICE.user_id, "new"), graph.say(EVE)
    assert await graph.give(outlier, topic, said) == [Fate.ACCEPTED] * 3
    elsewhere = Graph.elsewhere(cluster)
    invite = elsewhere.make(EVE, "m.room.member", {"membership": "invite"}, state_key=ALICE.user_id)
    assert await elsewhere.give(invite, kind=Kind.ASIDE) == [Fate.ACCEPTED]
    await elsewhere.enter(ALICE.user_id)
    await check_present(cluster, database, graph)


@pytest_twisted.ensureDeferred
async def test_what_no_database_reads_as_json_holds_up_no_worker(database: Database) -> None:
    cluster, graph = await shared_room(database)
    said = graph.say(EVE, "\x00\ud7ff")
    content = {"redacts": said.event_id, "reason": "\x00", "also": {"\x00": "\x00"}}
    redaction = graph.make(EVE, "m.room.redaction", content)
    nothing = graph.make(EVE, "m.room.redaction", {"redacts": "$\x00"})
    assert await graph.give(said, redaction, nothing) == [Fate.ACCEPTED] * 3
    rows = await database.read("rows", read, 0, cluster.announced[-1].stream_ordering, 100)
    redacted = {row.event_id: row.redacts for _, row in rows if isinstance(row, EventRow) and row.redacts is not None}
    assert redacted == {redaction.event_id: said.event_id}


@pytest.mark.parametrize(("version", "depth"), [("5", 2**63 - 1), ("11", 2**53 - 1)])
@pytest_twisted.ensureDeferred
async def test_an_event_as_deep_as_can_be_does_not_end_the_room(database: Database, version: str, depth: int) -> None:
    cluster, graph = await shared_room(database, room_version=version)
    assert await graph.give(graph.say(EVE, depth=depth)) == [Fate.ACCEPTED]
    for _ in range(2):
        event_id = await cluster.main.say(ALICE, graph.room_id)
        stored = await cluster.main.events.get(event_id)
        assert stored is not None
        assert stored.event.depth == depth
    await check_invariants(cluster, database)


@pytest.mark.parametrize("kind", [Kind.TIMELINE, Kind.HISTORY])
@pytest_twisted.ensureDeferred
async def test_a_gap_that_has_filled_costs_nothing_any_more(database: Database, kind: Kind) -> None:
    cluster, graph = await shared_room(database, workers=1)
    lost, after = graph.say(EVE), graph.say(EVE)
    assert await graph.give(graph.with_state(after)) == [Fate.ACCEPTED]
    # What fills the gap is accepted as history, or hidden.
    hidden = None if kind is Kind.HISTORY else "spam"
    fates = await graph.give(ReceivedEvent(lost, soft_failed=hidden), kind=kind)
    assert fates == [Fate.ACCEPTED if hidden is None else Fate.SOFT_FAILED]
    assert await graph.give(graph.say(EVE)) == [Fate.ACCEPTED]
    await check_present(cluster, database, graph)
    with database.counted() as counts:
        assert await graph.give(graph.say(EVE)) == [Fate.ACCEPTED]
    assert (counts.statements_read, counts.statements_written) == (0, 2), counts.sql


@pytest_twisted.ensureDeferred
async def test_several_events_may_lack_the_same_one(database: Database) -> None:
    _, graph = await shared_room(database, workers=1)
    lost = graph.say(EVE, "lost")
    branches = [graph.say(EVE, f"branch {number}", after=[lost.event_id]) for number in range(2)]
    assert await graph.give(*map(graph.with_state, branches)) == [Fate.ACCEPTED] * 2
    assert await graph.give(lost, kind=Kind.HISTORY) == [Fate.ACCEPTED]
    # It counts as arrived just before the first of them, where there was nothing yet.
    position = "SELECT stream_ordering FROM events WHERE event_id = %s"
    [first] = await column(database, "e", position, branches[0].event_id)
    assert await column(database, "e", "SELECT fills FROM events WHERE event_id = %s", lost.event_id) == [first - 1]
    assert await column(database, "e", "SELECT 1 FROM events WHERE stream_ordering = %s", first - 1) == []
