"""Entering rooms that others have, and memberships beside such rooms."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import gatherResults

from synapse.federation.hosts import RoomHosts
from synapse.replication.contacts import RoomsOfUsers
from synapse.replication.event_rows import StateRow, is_entry, rows_of
from synapse.storage.database import Database
from synapse.storage.memberships import MembershipsStore
from synapse.storage.persist_events import Fate, Kind, ReceivedEvent
from synapse.storage.room_hosts import RoomHostsStore
from synapse.storage.user_directory import UserDirectoryStore
from synapse.util.caches import Cache
from tests.storage.test_received import column, extremities
from tests.support.deferreds import started
from tests.support.received import EVE, MALLORY, Graph
from tests.support.rooms import ALICE, BOB, CAROL, SERVER, Cluster, check_invariants, start

FRIENDS = [f"@friend{number}:elsewhere" for number in range(20)]


async def check_entered(cluster: Cluster, db: Database, graph: Graph, state: dict[tuple[str, str], str]) -> None:
    assert await cluster.main.state.current_ids(graph.room_id) == state
    await check_invariants(cluster, db)


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
@pytest_twisted.ensureDeferred
async def test_the_room_is_what_was_told(database: Database, version: str) -> None:
    cluster = await start(database, workers=1)
    graph = Graph.elsewhere(cluster, *FRIENDS, version=version)
    said = graph.say(EVE)
    join = await graph.enter(ALICE.user_id)
    assert await extremities(database, graph) == {join.event_id}
    await check_entered(cluster, database, graph, graph.dag.present)
    gaps = "SELECT event_id FROM backward_extremities WHERE room_id = %s"
    assert await column(database, "gaps", gaps, graph.room_id) == [said.event_id]
    name = "SELECT name, joined_members FROM room_stats WHERE room_id = %s"
    assert await column(database, "stats", name, graph.room_id) == [("Elsewhere", len(FRIENDS) + 2)]
    assert await column(database, "r", "SELECT creator, room_version FROM rooms") == [(EVE, version)]
    members = "SELECT count(*) FROM memberships WHERE room_id = %s"
    assert await column(database, "m", members, graph.room_id) == [len(FRIENDS) + 2]

    # Everybody goes on from there.
    assert await graph.give(graph.say(EVE)) == [Fate.ACCEPTED]
    await cluster.workers[0].say(ALICE, graph.room_id)
    assert await graph.give(graph.with_state(join), kind=Kind.JOIN) == [Fate.KNOWN]
    await check_invariants(cluster, database)
    restarted = await start(database)
    await restarted.main.say(ALICE, graph.room_id)
    await check_entered(restarted, database, graph, graph.dag.present)


@pytest_twisted.ensureDeferred
async def test_thousands_of_members_are_neither_announced_nor_dated_one_by_one(database: Database) -> None:
    cluster = await start(database)
    graph = Graph.elsewhere(cluster, *FRIENDS)
    with database.counted() as counts:
        await graph.enter(ALICE.user_id)
    assert counts.statements_written <= 25, counts.sql
    rows = [row for _, row in rows_of(cluster.announced[-1:]) if isinstance(row, StateRow)]
    assert [row.type for row in rows] == ["m.room.create", "m.room.member"]
    assert is_entry(rows[0])
    assert not is_entry(rows[1])
    deltas = "SELECT count(*) FROM current_state_deltas WHERE room_id = %s"
    assert await column(database, "d", deltas, graph.room_id) == [2]


@pytest_twisted.ensureDeferred
async def test_the_members_of_a_room_that_was_entered_are_found(database: Database) -> None:
    cluster = await start(database)
    ours = await cluster.main.room()
    graph = Graph.elsewhere(cluster, *FRIENDS)
    join = await graph.enter(ALICE.user_id)
    await cluster.main.say(ALICE, ours)
    directory = UserDirectoryStore(database)
    position = cluster.announced[-1].stream_ordering
    reached = 0
    while reached < position:
        reached = await directory.follow(reached, position, SERVER, 3)
    known = await column(database, "d", "SELECT user_id FROM user_directory")
    assert set(known) == {EVE, *FRIENDS}
    assert join.event_id in graph.dag.present.values()


@pytest_twisted.ensureDeferred
async def test_the_servers_of_a_room_that_was_entered_are_known(database: Database) -> None:
    cluster = await start(database)
    hosts = RoomHosts(RoomHostsStore(database), Cache("rooms", 10))
    contacts = RoomsOfUsers(database, Cache("contacts", 10))
    graph = Graph.elsewhere(cluster, *FRIENDS)
    assert await hosts.joined(graph.room_id) == {}
    assert await contacts({EVE}) == set()
    await graph.enter(ALICE.user_id)
    rows = rows_of(cluster.announced)
    hosts.learn(rows)
    contacts._on_events(rows[-1][0], rows)
    assert await hosts.joined(graph.room_id) == {SERVER: 1, "elsewhere": len(FRIENDS) + 1}
    assert await contacts({EVE}) == {graph.room_id}


@pytest_twisted.ensureDeferred
async def test_a_state_that_does_not_let_the_user_in_is_not_entered(database: Database) -> None:
    cluster = await start(database)
    graph = Graph.elsewhere(cluster)
    graph.make(EVE, "m.room.join_rules", {"join_rule": "invite"}, state_key="")
    join = graph.join(ALICE.user_id)
    await graph.give(outliers=graph.chain(graph.before(join).values()))
    assert await graph.give(graph.with_state(join), kind=Kind.JOIN) == [Fate.REJECTED]
    assert await graph.give(ReceivedEvent(join), kind=Kind.JOIN) == [Fate.REFUSED]
    assert await column(database, "h", "SELECT 1 FROM room_heads") == []
    assert await column(database, "l", "SELECT 1 FROM local_memberships") == []


@pytest_twisted.ensureDeferred
async def test_a_state_of_which_something_is_lacking_is_not_entered(database: Database) -> None:
    cluster = await start(database)
    graph = Graph.elsewhere(cluster)
    join = graph.join(ALICE.user_id)
    outliers = graph.chain(graph.before(join).values())
    await graph.give(outliers=outliers[1:])
    assert await graph.give(graph.with_state(join), kind=Kind.JOIN) == [Fate.REFUSED]
    assert await graph.give(graph.with_state(join), kind=Kind.JOIN, outliers=outliers[:1]) == [Fate.ACCEPTED]
    await check_entered(cluster, database, graph, graph.dag.present)


@pytest_twisted.ensureDeferred
async def test_a_room_that_was_left_is_entered_anew(database: Database) -> None:
    cluster = await start(database, workers=1)
    graph = Graph.elsewhere(cluster, *FRIENDS)
    await graph.enter(ALICE.user_id)
    await cluster.main.say(ALICE, graph.room_id)
    await cluster.main.memberships.leave(ALICE, graph.room_id)
    await cluster.workers[0].heads.get(graph.room_id)
    for step in cluster.announced[-2:]:
        graph.dag.add(step.new.event)

    # Meanwhile, much happens that we do not hear of.
    leaving = graph.make(FRIENDS[0], "m.room.member", {"membership": "leave"}, state_key=FRIENDS[0])
    assert await graph.give(leaving) == [Fate.REFUSED]
    graph.join(MALLORY)
    graph.make(EVE, "m.room.name", {"name": "Another"}, state_key="")
    graph.make(EVE, "m.room.topic", {"topic": "New"}, state_key="")
    join = await graph.enter(BOB.user_id)
    assert await extremities(database, graph) == {join.event_id}
    await check_entered(cluster, database, graph, graph.dag.present)
    name = "SELECT name, topic, joined_members FROM room_stats WHERE room_id = %s"
    assert await column(database, "stats", name, graph.room_id) == [("Another", "New", len(FRIENDS) + 2)]
    assert cluster.announced[-1].after_gap
    # It costs what has changed.
    changed = "SELECT count(*) FROM current_state WHERE room_id = %s AND stream_ordering = %s"
    position = cluster.announced[-1].stream_ordering
    assert await column(database, "c", changed, graph.room_id, position) == [5]
    await cluster.workers[0].say(BOB, graph.room_id)
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_two_of_our_users_who_join_at_once_are_both_in(database: Database) -> None:
    cluster = await start(database)
    graph = Graph.elsewhere(cluster, *FRIENDS)
    graph.say(EVE)
    fork = sorted(graph.dag.extremities)
    await graph.enter(ALICE.user_id)
    bob = graph.join(BOB.user_id, after=fork)
    assert await graph.give(graph.with_state(bob), kind=Kind.JOIN) == [Fate.ACCEPTED]
    await check_entered(cluster, database, graph, graph.dag.present)
    assert (await extremities(database, graph)) == graph.dag.extremities


@pytest_twisted.ensureDeferred
async def test_events_that_come_in_the_same_breath_find_the_new_state(database: Database) -> None:
    cluster = await start(database)
    ours = await cluster.main.room()
    graph = Graph.elsewhere(cluster, *FRIENDS)
    join = graph.join(ALICE.user_id)
    await graph.give(outliers=graph.chain(graph.before(join).values()))
    said = graph.say(FRIENDS[3])
    forbidden = graph.topic(FRIENDS[3], "mine", after=[said.event_id])
    busy = started(cluster.main.say(ALICE, ours))
    waiting = started(cluster.main.say(ALICE, ours))
    entering = started(graph.give(graph.with_state(join), kind=Kind.JOIN))
    following = started(graph.give(said, forbidden))
    await gatherResults([busy, waiting, entering, following])
    assert {step.new.event.event_id for step in cluster.announced} >= {join.event_id, said.event_id}
    assert forbidden.event_id not in {step.new.event.event_id for step in cluster.announced}
    await check_invariants(cluster, database)


# -- beside rooms --------------------------------------------------------------------------------------------------


async def standing(db: Database, user_id: str, room_id: str) -> Any:
    found = await MembershipsStore(db).of_user(user_id, room_id)
    return None if found is None else found.membership


@pytest_twisted.ensureDeferred
async def test_an_invite_from_elsewhere_stands_beside_the_room_until_it_is_refused(database: Database) -> None:
    cluster = await start(database, workers=1)
    graph = Graph.elsewhere(cluster)
    invite = graph.make(EVE, "m.room.member", {"membership": "invite"}, state_key=ALICE.user_id)
    shown = {"type": "m.room.name", "state_key": "", "sender": EVE, "content": {"name": "Elsewhere"}}
    told = ReceivedEvent(invite, stripped=(shown,))
    assert await graph.give(told, kind=Kind.ASIDE) == [Fate.ACCEPTED]
    assert await graph.give(told, kind=Kind.ASIDE) == [Fate.KNOWN]
    assert await standing(database, ALICE.user_id, graph.room_id) == "invite"
    stored = await cluster.main.events.get(invite.event_id)
    assert stored is not None
    assert stored.outlier
    assert stored.event.raw["unsigned"]["invite_room_state"] == [shown]
    assert cluster.announced[-1].aside
    assert await column(database, "h", "SELECT 1 FROM room_heads") == []

    leave = graph.make(ALICE.user_id, "m.room.member", {"membership": "leave"}, state_key=ALICE.user_id)
    assert await graph.give(leave, kind=Kind.ASIDE) == [Fate.ACCEPTED]
    assert await standing(database, ALICE.user_id, graph.room_id) == "leave"
    again = graph.make(EVE, "m.room.member", {"membership": "ban"}, state_key=ALICE.user_id)
    assert await graph.give(again, kind=Kind.ASIDE) == [Fate.REFUSED]


@pytest_twisted.ensureDeferred
async def test_who_accepts_an_invite_from_elsewhere_is_in_the_room(database: Database) -> None:
    cluster = await start(database)
    graph = Graph.elsewhere(cluster)
    for requester in (ALICE, CAROL):
        invite = graph.make(EVE, "m.room.member", {"membership": "invite"}, state_key=requester.user_id)
        assert await graph.give(invite, kind=Kind.ASIDE) == [Fate.ACCEPTED]
    position = cluster.announced[-1].stream_ordering
    await graph.enter(ALICE.user_id)
    await check_entered(cluster, database, graph, graph.dag.present)
    assert await standing(database, ALICE.user_id, graph.room_id) == "join"
    carol = await MembershipsStore(database).of_user(CAROL.user_id, graph.room_id)
    assert carol is not None
    assert (carol.membership, carol.stream_ordering) == ("invite", position)  # she knows already

    late = graph.make(EVE, "m.room.member", {"membership": "invite"}, state_key=BOB.user_id)
    assert await graph.give(late, kind=Kind.ASIDE) == [Fate.ACCEPTED]
    assert await standing(database, BOB.user_id, graph.room_id) is None  # the room itself will tell
    assert await graph.give(late) == [Fate.ACCEPTED]
    assert await standing(database, BOB.user_id, graph.room_id) == "invite"
    await check_invariants(cluster, database)


@pytest_twisted.ensureDeferred
async def test_nobody_elsewhere_says_that_our_users_have_joined_or_left(database: Database) -> None:
    cluster = await start(database)
    graph = Graph.elsewhere(cluster)
    joined = graph.join(ALICE.user_id)
    theirs = graph.make(EVE, "m.room.member", {"membership": "invite"}, state_key=MALLORY)
    left = graph.make(EVE, "m.room.member", {"membership": "leave"}, state_key=BOB.user_id)
    said = graph.say(EVE)
    assert await graph.give(joined, theirs, left, said, kind=Kind.ASIDE) == [Fate.REFUSED] * 4
    assert await column(database, "e", "SELECT 1 FROM events") == []


@pytest_twisted.ensureDeferred
async def test_the_version_that_an_inviter_made_up_does_not_stand_in_the_way(database: Database) -> None:
    cluster = await start(database)
    graph = Graph.elsewhere(cluster)
    liar = Graph.elsewhere(cluster, version="1")
    liar.room_id = graph.room_id
    invite = liar.make(EVE, "m.room.member", {"membership": "invite"}, state_key=ALICE.user_id)
    assert await liar.give(invite, kind=Kind.ASIDE) == [Fate.ACCEPTED]
    assert await column(database, "r", "SELECT room_version FROM rooms") == ["1"]
    await graph.enter(BOB.user_id)
    assert await column(database, "r", "SELECT room_version FROM rooms") == ["11"]
    assert await liar.give(liar.say(EVE), kind=Kind.ASIDE) == [Fate.REFUSED]
    restarted = await start(database)
    assert await restarted.main.state.current_ids(graph.room_id) == graph.dag.present
    await restarted.main.say(BOB, graph.room_id)
