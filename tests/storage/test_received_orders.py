"""Whatever way events take to this server, and in whatever order they come: the room is what they say together."""

from __future__ import annotations

from random import Random

import pytest
import pytest_twisted

from synapse.api.errors import AuthError
from synapse.events import auth
from synapse.events.event import Event
from synapse.storage.database import Database
from synapse.storage.extremities import ExtremitiesStore
from synapse.storage.memberships import MembershipsStore
from synapse.storage.persist_events import Fate, Kind
from tests.storage.test_received import column, extremities
from tests.support.received import EVE, Graph
from tests.support.rooms import ALICE, BOB, check_invariants, start

FRIENDS = [f"@friend{number}:elsewhere" for number in range(3)]


def grow(graph: Graph, random: Random, count: int) -> list[Event]:
    """Events at random places of the room, each allowed where it stands."""
    made: list[Event] = []
    for number in range(count):
        ends = sorted(graph.dag.extremities)
        known = [event.event_id for event in made[-6:]] or ends
        chosen = random.choice((ends, [random.choice(ends)], [random.choice(known)]))
        before = graph.dag.state_at(chosen)
        joined = [
            user_id
            for user_id in (EVE, ALICE.user_id, *FRIENDS)
            if (own := before.get(("m.room.member", user_id))) and graph.dag.events[own].membership == "join"
        ]
        event = _make(graph, random, joined, chosen, number)
        try:
            auth.check(event, {key: graph.dag.events[i] for key, i in before.items()})
        except AuthError:
            graph.dag.remove(event)
        else:
            made.append(event)
    return made


def _make(graph: Graph, random: Random, joined: list[str], after: list[str], number: int) -> Event:
    friend, sender = random.choice(FRIENDS), random.choice(joined)
    moderator = random.choice((EVE, ALICE.user_id))
    what = random.randrange(6)
    if what == 0:
        return graph.topic(moderator, f"topic {number}", after=after)
    if what == 1:
        return graph.join(friend, after=after)
    if what == 2:
        membership = random.choice(("leave", "ban"))
        content = {"membership": membership}
        return graph.make(moderator, "m.room.member", content, state_key=friend, after=after)
    if what == 3:
        content = {"users": {ALICE.user_id: 100, EVE: 100, random.choice(FRIENDS): random.choice((0, 50))}}
        return graph.make(moderator, "m.room.power_levels", content, state_key="", after=after)
    if what == 4:
        return graph.make(sender, "m.room.name", {"name": f"name {number}"}, state_key="", after=after)
    return graph.say(sender, after=after)


def shuffled(events: list[Event], random: Random) -> list[Event]:
    """In some order in which each comes after those that it refers to."""
    waiting = {event.event_id: event for event in events}
    order: list[Event] = []
    while waiting:
        ready = [event for event in waiting.values() if waiting.keys().isdisjoint(event.prev_event_ids)]
        order.append(waiting.pop(random.choice(ready).event_id))
    return order


async def room_of(db: Database) -> Graph:
    cluster = await start(db, workers=1)
    room_id = await cluster.main.room(room_version="11")
    graph = await Graph.of(cluster, db, room_id)
    assert await graph.give(graph.join(EVE)) == [Fate.ACCEPTED]
    await cluster.main.set(ALICE, room_id, "m.room.power_levels", {"users": {ALICE.user_id: 100, EVE: 100}})
    return await Graph.of(cluster, db, room_id)


async def check(db: Database, graph: Graph, *, is_exact: bool = True) -> None:
    """The present state is that of the whole graph, and so is the state after each event.

    `is_exact`: nothing that came late was hidden, so that there is no extremity but those of the graph.
    """
    assert await graph.cluster.main.state.current_ids(graph.room_id) == graph.dag.present
    for event in graph.dag.events.values():
        (group,) = (await graph.cluster.main.events.state_groups([event.event_id])).values()
        assert await graph.cluster.main.state.at_group_ids(group) == graph.dag.after[event.event_id]
    hidden = await column(db, "s", "SELECT event_id FROM events WHERE room_id = %s AND soft_failed", graph.room_id)
    ends, expected = await extremities(db, graph), _ends(graph, set(hidden))
    assert ends == expected if is_exact else ends >= expected
    await check_invariants(graph.cluster, db)


def _ends(graph: Graph, hidden: set[str]) -> set[str]:
    """The events that are shown and have none after them that is."""
    behind: set[str] = set()
    for event in reversed(graph.dag.events.values()):
        if event.event_id not in hidden or event.event_id in behind:
            behind.update(event.prev_event_ids)
    return graph.dag.events.keys() - behind - hidden


@pytest.mark.parametrize("seed", range(6))
@pytest_twisted.ensureDeferred
async def test_any_order_comes_to_the_same(database: Database, seed: int) -> None:
    random = Random(seed)
    for _ in range(2):
        graph = await room_of(database)
        order = shuffled(grow(graph, random, 20), random)
        while order:
            size = random.randrange(1, 6)
            fates = await graph.give(*order[:size])
            assert set(fates) <= {Fate.ACCEPTED, Fate.SOFT_FAILED}
            order = order[size:]
        await check(database, graph)


@pytest.mark.parametrize("seed", range(6))
@pytest_twisted.ensureDeferred
async def test_gaps_that_fill_later_come_to_the_same(database: Database, seed: int) -> None:
    random = Random(seed)
    for _ in range(2):
        graph = await room_of(database)
        events = grow(graph, random, 16)
        here = graph.dag.events.keys() - {event.event_id for event in events}
        late: list[Event] = []
        for event in events:
            if random.random() < 0.3:
                late.append(event)
                continue
            if here.issuperset(event.prev_event_ids):
                fates = await graph.give(event)
            else:
                outliers = graph.chain(graph.before(event).values())
                fates = await graph.give(graph.with_state(event), outliers=outliers)
            assert fates[0] in (Fate.ACCEPTED, Fate.SOFT_FAILED)
            here.add(event.event_id)
        for event in late:
            ends = await extremities(database, graph)
            moves = event.event_id in graph.dag.extremities or not ends.isdisjoint(event.prev_event_ids)
            kind = Kind.TIMELINE if moves else Kind.HISTORY
            assert (await graph.give(event, kind=kind))[0] in (Fate.ACCEPTED, Fate.SOFT_FAILED)
        gaps = "SELECT event_id FROM backward_extremities WHERE room_id = %s"
        assert await column(database, "g", gaps, graph.room_id) == []
        outliers_left = "SELECT event_id FROM events WHERE room_id = %s AND outlier"
        assert await column(database, "o", outliers_left, graph.room_id) == []
        hidden = await column(database, "s", "SELECT 1 FROM events WHERE room_id = %s AND soft_failed", graph.room_id)
        await check(database, graph, is_exact=not hidden)


@pytest_twisted.ensureDeferred
async def test_who_has_come_by_what_others_overrule_is_not_there_any_more(database: Database) -> None:
    """While the room was closed elsewhere, one of our users joined; then this server hears of the closing."""
    cluster = await start(database)
    graph = Graph.elsewhere(cluster)
    await graph.enter(ALICE.user_id)
    fork = sorted(graph.dag.extremities)
    join = graph.join(BOB.user_id, after=fork)
    closing = graph.make(EVE, "m.room.join_rules", {"join_rule": "invite"}, state_key="", after=fork)
    assert await graph.give(join) == [Fate.ACCEPTED]
    assert await graph.give(closing) == [Fate.ACCEPTED]
    assert ("m.room.member", BOB.user_id) not in await cluster.main.state.current_ids(graph.room_id)
    await check_invariants(cluster, database)
    standing = await MembershipsStore(database).of_user(BOB.user_id, graph.room_id)
    assert standing is not None
    assert standing.membership == "leave"
    head = await ExtremitiesStore(database).head(graph.room_id)
    assert head is not None
    assert head.residents == 1
