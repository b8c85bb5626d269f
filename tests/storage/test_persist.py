"""Writing events: races, branches and merges, repetitions, restarts, and broken connections."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from synapse.api.errors import MatrixError
from synapse.events.auth import cited_types_for
from synapse.events.builder import build
from synapse.events.event import Event
from synapse.http.request import Requester
from synapse.replication.event_rows import read
from synapse.storage.database import Database, PoolSettings, Transaction
from synapse.storage.errors import DatabaseUnavailable
from synapse.storage.event_txns import TxnKey
from synapse.storage.extremities import ExtremitiesStore
from synapse.storage.persist_events import NewEvent, Outcome, Request
from tests.support.deferreds import started
from tests.support.postgres import PostgresServer
from tests.support.rooms import (
    ALICE,
    BOB,
    CAROL,
    SERVER,
    SIGNER,
    Cluster,
    Counter,
    announced_rows,
    check_invariants,
    start,
)

TOPIC = ("m.room.topic", "")
LEVELS = ("m.room.power_levels", "")


async def make(
    cluster: Cluster,
    room_id: str,
    sender: Requester,
    event_type: str,
    content: dict[str, Any],
    *,
    state_key: str | None = None,
    prev_events: list[str] | None = None,
) -> Event:
    """An event of its own making, cited by the room's present state."""
    head = await cluster.main.heads.get(room_id)
    assert head is not None
    cited = cited_types_for(head.version, event_type, sender.user_id, state_key, content)
    state = await cluster.main.state.current(room_id, cited)
    return build(
        head.version,
        room_id=room_id,
        sender=sender.user_id,
        type=event_type,
        content=content,
        state_key=state_key,
        prev_events=head.prev_events if prev_events is None else prev_events,
        auth_events=[stored.event.event_id for stored in state.values()],
        depth=head.next_depth,
        origin_server_ts=cluster.now(),
        server_name=SERVER,
        signing_key=SIGNER.key,
    )


async def persist(
    cluster: Cluster, *events: Event, may_fork: bool = True, state_ordering: int | None = None, **fields: Any
) -> Outcome:
    head = await cluster.main.heads.get(events[0].room_id)
    assert head is not None
    ordering = head.state_ordering if state_ordering is None else state_ordering
    new = [NewEvent(event, **fields) for event in events]
    return await cluster.write(Request(events[0].room_id, new, ordering, may_fork=may_fork))


async def topic(cluster: Cluster, room_id: str) -> Any:
    found = await cluster.main.state.current(room_id, [TOPIC])
    return found[TOPIC].event.content["topic"] if found else None


async def extremities(db: Database, room_id: str) -> set[str]:
    head = await ExtremitiesStore(db).head(room_id)
    assert head is not None
    return set(head.extremities)


# -- branches ------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_messages_made_at_once_branch_and_the_next_one_merges(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    events = [await make(cluster, room_id, ALICE, "m.room.message", {"body": str(n)}) for n in range(3)]
    await gatherResults([started(persist(cluster, event, may_fork=False)) for event in events])
    assert await extremities(database, room_id) == {event.event_id for event in events}
    assert len({planned.state_group for planned in cluster.announced[-3:]}) == 1

    last = await cluster.main.say(ALICE, room_id)
    assert await extremities(database, room_id) == {last}
    stored = await cluster.main.events.get(last)
    assert stored is not None
    assert set(stored.event.prev_event_ids) == {event.event_id for event in events}
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_state_that_branches_is_resolved_and_merged(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    one = await make(cluster, room_id, ALICE, *_topic("one"), state_key="")
    two = await make(cluster, room_id, ALICE, *_topic("two"), state_key="")
    await persist(cluster, one)
    await persist(cluster, two)
    assert await extremities(database, room_id) == {one.event_id, two.event_id}
    assert await topic(cluster, room_id) == "two"  # the later one, all else being equal
    await check_invariants(cluster, database)

    await cluster.main.say(ALICE, room_id)
    await cluster.main.set(ALICE, room_id, "m.room.name", {"name": "merged"})
    assert await topic(cluster, room_id) == "two"
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_branches_in_one_batch_are_resolved_among_themselves(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    events = [await make(cluster, room_id, ALICE, *_topic(str(number)), state_key="") for number in range(4)]
    await gatherResults([started(persist(cluster, event)) for event in events])
    assert await topic(cluster, room_id) == "3"
    await check_invariants(cluster, database)
    await cluster.main.say(ALICE, room_id)
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_a_ban_wins_over_what_was_said_beside_it(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room(joined=[BOB], power_level_content_override={"events": {"m.room.topic": 0}})
    cited_before_ban = await make(cluster, room_id, BOB, *_topic("bob was here"), state_key="")
    head = await cluster.main.heads.get(room_id)
    assert head is not None
    await cluster.main.memberships.ban(ALICE, room_id, {"user_id": BOB.user_id})
    with pytest.raises(MatrixError) as caught:
        await persist(cluster, cited_before_ban, state_ordering=head.state_ordering)
    assert caught.value.errcode == "M_FORBIDDEN"
    assert await cluster.main.events.get(cited_before_ban.event_id) is None
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_an_event_far_behind_opens_a_branch_there(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    first = await cluster.main.say(ALICE, room_id)
    for number in range(40):
        await cluster.main.set(ALICE, room_id, *_topic(str(number)))
    late = await make(cluster, room_id, ALICE, "m.room.message", {"body": "late"}, prev_events=[first])
    await persist(cluster, late)
    assert late.event_id in await extremities(database, room_id)
    assert TOPIC not in await cluster.main.state.at_event(late.event_id)
    assert await topic(cluster, room_id) == "39"
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_state_is_refused_as_stale_where_it_need_not_branch(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    beside = await make(cluster, room_id, ALICE, *_topic("beside"), state_key="")
    message = await make(cluster, room_id, ALICE, "m.room.message", {"body": "beside"})
    before = (await cluster.main.heads.get(room_id)).state_ordering  # type: ignore[union-attr]  # it exists
    await cluster.main.set(ALICE, room_id, *_topic("first"))
    for event in (beside, message):
        outcome = await persist(cluster, event, may_fork=False, state_ordering=before)
        assert outcome.stale
        assert outcome.events == ()
        assert outcome.position == cluster.announced[-1].stream_ordering
    assert await topic(cluster, room_id) == "first"


@pytest_twisted.ensureDeferred
async def test_an_event_that_refers_to_nothing_we_have_is_refused(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    lost = await make(cluster, room_id, ALICE, "m.room.message", {}, prev_events=["$nowhere"])
    with pytest.raises(MatrixError):
        await persist(cluster, lost)
    await cluster.main.say(ALICE, room_id)
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_no_event_has_more_than_twenty_predecessors_and_branches_come_to_an_end(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    for _ in range(3):
        await gatherResults([started(cluster.main.say(ALICE, room_id)) for _ in range(64)])
    for _ in range(12):
        event_id = await cluster.main.say(ALICE, room_id)
        stored = await cluster.main.events.get(event_id)
        assert stored is not None
        assert len(stored.event.prev_event_ids) <= 20
    assert len(await extremities(database, room_id)) == 1
    await check_invariants(cluster, database)


# -- repetitions ---------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_the_same_events_again_get_the_same_answer(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    event = await make(cluster, room_id, ALICE, "m.room.message", {"body": "once"})
    first = await persist(cluster, event)
    assert await persist(cluster, event) == first

    again = await start(database)
    assert await persist(again, event) == first
    assert await _count(database, "events WHERE type = 'm.room.message'") == 1
    await again.main.say(ALICE, room_id)
    await check_invariants(again, database)


@pytest_twisted.ensureDeferred
async def test_a_room_is_created_once_however_often_it_is_asked_for(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room(room_alias_name="here", invite=[BOB.user_id])
    request = cluster.requests[0]
    assert request.room is not None
    first = await cluster.write(request)
    restarted = await start(database)
    both = await gatherResults([started(restarted.write(request)) for _ in range(2)])
    assert both == [first, first]
    assert await restarted.main.aliases.resolve("#here:test") == room_id
    await check_invariants(restarted, database)


@pytest_twisted.ensureDeferred
async def test_a_queue_that_is_full_takes_no_more(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    monkeypatch.setattr("synapse.storage.persist.MAX_WAITING", 3)
    sent = await gatherResults([started(_errcode(cluster.main.say(ALICE, room_id))) for _ in range(10)])
    refused = sent.count("M_LIMIT_EXCEEDED")
    assert refused in (6, 7)  # one may be under way already
    assert await _count(database, "events WHERE type = 'm.room.message'") == 10 - refused
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_a_transaction_id_counts_once_in_memory_in_a_batch_and_after_a_restart(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    txn = TxnKey(ALICE.user_id, "DEVICE", room_id, "t")
    events = [await make(cluster, room_id, ALICE, "m.room.message", {"body": str(n)}) for n in range(4)]
    together = await gatherResults([started(persist(cluster, event, txn=txn)) for event in events[:2]])
    later = await persist(cluster, events[2], txn=txn)
    restarted = await start(database)
    other = await make(restarted, room_id, ALICE, "m.room.message", {"body": "another"})
    both = await gatherResults([started(persist(restarted, events[3], txn=txn)), started(persist(restarted, other))])
    ids = [outcome.events[0].event_id for outcome in (*together, later, both[0])]
    assert ids == [events[0].event_id] * 4
    assert both[1].events[0].event_id == other.event_id
    assert await _count(database, "events WHERE type = 'm.room.message'") == 2
    await check_invariants(restarted, database)


@pytest_twisted.ensureDeferred
async def test_a_restart_goes_on_where_the_last_writer_stopped(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room(joined=[BOB])
    for restart in range(12):
        cluster = await start(database)
        await cluster.main.set(ALICE, room_id, *_topic(str(restart)))
        await cluster.main.say(BOB, room_id)
    await check_invariants(cluster, database)
    positions = [planned.stream_ordering for planned in cluster.announced]
    assert positions == sorted(set(positions))


@pytest_twisted.ensureDeferred
async def test_a_commit_whose_answer_was_lost_is_not_done_twice(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    persister = cluster.persister
    assert persister is not None
    write = database.write_idempotent
    lost: list[str] = []

    async def loses_the_answer(name: str, fn: Any, *args: Any) -> Any:
        result = await write(name, fn, *args)
        if name == "events.persist" and not lost:
            lost.append(name)
            return await write(name, fn, *args)  # what `write_idempotent` does on a lost connection
        return result

    database.write_idempotent = loses_the_answer  # type: ignore[method-assign, assignment]  # one test's trick
    event = await make(cluster, room_id, ALICE, "m.room.message", {"body": "once"})
    outcome = await persist(cluster, event)
    assert outcome.events[0].event_id == event.event_id
    assert cluster.announced[-1].stream_ordering == outcome.events[0].stream_ordering
    assert lost
    await cluster.main.say(ALICE, room_id)
    assert await _count(database, "events WHERE type = 'm.room.message'") == 2
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_connections_that_break_lose_nothing(
    database: Database, database_settings: PoolSettings, postgres: PostgresServer
) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()
    for number in range(5):
        sends = [started(cluster.main.say(ALICE, room_id, txn_id=f"{number}-{n}")) for n in range(4)]
        postgres.kill_connections(database_settings.connection["dbname"])
        await gatherResults(sends)
    assert await _count(database, "events WHERE type = 'm.room.message'") == 20
    await check_invariants(cluster, database)


# -- batches -------------------------------------------------------------------------------------------------------


@pytest_twisted.ensureDeferred
async def test_one_that_cannot_be_written_takes_no_other_down(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room(room_alias_name="taken")
    results = await gatherResults(
        [
            started(cluster.main.say(ALICE, room_id)),
            started(_errcode(cluster.main.room(room_alias_name="taken"))),
            started(cluster.main.say(ALICE, room_id)),
            started(_errcode(cluster.main.say(BOB, room_id))),
        ]
    )
    assert [str(result)[:1] for result in results] == ["$", "M", "$", "M"]
    assert results[1] == "M_ROOM_IN_USE"
    assert await _count(database, "rooms") == 1
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_two_writers_of_one_room_lose_nothing(database: Database) -> None:
    """Creators in different processes, each with a view of its own, that never wait for one another."""
    cluster = await start(database, workers=2)
    room_id = await cluster.main.room(joined=[BOB, CAROL])
    one, two = cluster.workers
    jobs = []
    for number in range(20):
        jobs.append(started(one.say(BOB, room_id, f"b{number}")))
        jobs.append(started(two.say(CAROL, room_id, f"c{number}")))
        if number % 4 == 0:
            jobs.append(started(one.set(ALICE, room_id, "m.room.name", {"name": str(number)})))
            jobs.append(started(two.set(ALICE, room_id, *_topic(str(number)))))
    await gatherResults(jobs)
    assert await _count(database, "events WHERE type = 'm.room.message'") == 40
    assert await topic(cluster, room_id) == "16"
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_rows_read_from_the_database_are_those_that_were_announced(database: Database) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room(name="r", joined=[BOB])
    event_id = await cluster.main.say(BOB, room_id, "oops")
    await cluster.main.redactions.redact(ALICE, room_id, event_id, {"reason": "no"}, "t")
    await cluster.main.say(BOB, room_id, "x" * 20_000)
    await persist(cluster, await make(cluster, room_id, ALICE, *_topic("one"), state_key=""))
    announced = announced_rows(cluster)

    rows: list[Any] = []
    while not rows or rows[-1][0] < announced[-1][0]:
        rows += await database.read("rows", read, rows[-1][0] if rows else 0, announced[-1][0], 3)
    # What has been redacted since then is not handed out any more.
    assert [row for row in rows if getattr(row[1], "event_id", "") != event_id] == [
        row for row in announced if getattr(row[1], "event_id", "") != event_id
    ]


@pytest_twisted.ensureDeferred
async def test_a_writer_without_its_lease_refuses_without_a_traceback(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = await start(database)
    room_id = await cluster.main.room()

    def suspended(_: Counter) -> int:
        raise DatabaseUnavailable("The lease is lost.")

    with monkeypatch.context() as patch:
        patch.setattr(Counter, "next", suspended)
        with pytest.raises(DatabaseUnavailable):
            await cluster.main.say(ALICE, room_id, "lost")
    (record,) = [each for each in caplog.records if "prepared for writing" in each.message]
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert record.message.endswith("The lease is lost.")
    assert await cluster.main.say(ALICE, room_id, "found")
    await check_invariants(cluster, database)


def _topic(text: str) -> tuple[str, dict[str, Any]]:
    return "m.room.topic", {"topic": text}


async def _errcode(doing: Any) -> str:
    try:
        await doing
    except MatrixError as error:
        return error.errcode
    return "nothing was refused"


async def _count(db: Database, what: str) -> int:
    def count(txn: Transaction) -> int:
        txn.execute(f"SELECT count(*) FROM {what}")
        number: int = txn.one()[0]
        return number

    return await db.read("count", count)
