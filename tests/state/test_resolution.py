"""State resolution: known conflicts, the definitions read naively, and independence of the order of the states."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse.api.room_versions import ROOM_VERSIONS
from synapse.events.event import StateKey
from synapse.state import resolution
from synapse.state.resolution import Loaded, NeedEvents
from synapse.state.resolution_graph import in_chain_of
from tests.events.factory import ALICE, BOB, CAROL, DAVE, Room, usual_room
from tests.state.branches import Branch, StateMap, random_branches, resolve
from tests.state.naive import Naive

ALL = list(ROOM_VERSIONS)
SINCE_2 = ALL[1:]


def forked(version: str) -> tuple[Room, Branch, Branch]:
    room = usual_room(version)
    one = Branch.of(room)
    return room, one, one.fork()


def users(version: str, **levels: int) -> dict[str, dict[str, int]]:
    named = {"bob": BOB, "carol": CAROL, "dave": DAVE}
    base = {} if version == "12" else {ALICE: 100}
    return {"users": {**base, **{named[name]: level for name, level in levels.items()}}}


@pytest.mark.parametrize("version", ALL)
def test_one_state_is_itself(version: str) -> None:
    room, one, _two = forked(version)
    assert resolve(room, [one.ids()]) == one.ids()
    assert resolve(room, [one.ids(), one.ids()]) == one.ids()


@pytest.mark.parametrize("version", ALL)
def test_changes_of_different_things_are_united(version: str) -> None:
    room, one, two = forked(version)
    topic = one.send(BOB, "m.room.topic", {})
    name = two.send(ALICE, "m.room.name", {})
    resolved = resolve(room, [one.ids(), two.ids()])
    assert resolved["m.room.topic", ""] == topic.event_id
    assert resolved["m.room.name", ""] == name.event_id
    assert len(resolved) == len(one.ids()) + 1


@pytest.mark.parametrize("version", SINCE_2)
def test_a_ban_beats_what_the_banned_did(version: str) -> None:
    room, one, two = forked(version)
    ban = one.member(BOB, "ban", sender=ALICE)
    two.send(BOB, "m.room.topic", {})
    two.member(CAROL, "ban", sender=BOB)
    resolved = resolve(room, [one.ids(), two.ids()])
    assert resolved["m.room.member", BOB] == ban.event_id
    assert ("m.room.topic", "") not in resolved
    assert resolved["m.room.member", CAROL] == room.state["m.room.member", CAROL].event_id


@pytest.mark.parametrize("version", SINCE_2)
def test_the_more_powerful_change_of_power_wins(version: str) -> None:
    room, one, two = forked(version)
    demoted = one.send(ALICE, "m.room.power_levels", users(version))
    two.send(BOB, "m.room.power_levels", users(version, bob=50, carol=50), ts=1)  # earlier by its own clock
    assert resolve(room, [one.ids(), two.ids()])["m.room.power_levels", ""] == demoted.event_id


@pytest.mark.parametrize("version", SINCE_2)
def test_later_of_two_equals_wins_by_mainline_then_time_then_id(version: str) -> None:
    room, one, two = forked(version)
    old = one.send(BOB, "m.room.topic", {"topic": "old"}, ts=9_000_000)
    two.send(ALICE, "m.room.power_levels", {**users(version, bob=50), "kick": 40})
    new = two.send(BOB, "m.room.topic", {"topic": "new"}, ts=1)
    resolved = resolve(room, [one.ids(), two.ids()])
    assert resolved["m.room.topic", ""] == new.event_id
    three, four = Branch.of(room), Branch.of(room)
    earlier = three.send(BOB, "m.room.topic", {"topic": "x"}, ts=10)
    later = four.send(BOB, "m.room.topic", {"topic": "y"}, ts=20)
    assert resolve(room, [four.ids(), three.ids()])["m.room.topic", ""] == later.event_id
    five = Branch.of(room)
    twin = five.send(BOB, "m.room.topic", {"topic": "z"}, ts=10)
    expected = max(earlier.event_id, twin.event_id)
    assert resolve(room, [five.ids(), three.ids()])["m.room.topic", ""] == expected
    assert old.event_id not in resolved.values()


def test_v1_picks_the_deepest_allowed_event() -> None:
    room, one, two = forked("1")
    one.send(BOB, "m.room.topic", {"topic": "shallow"})
    two.send(ALICE, "m.room.name", {})
    deep = two.send(BOB, "m.room.topic", {"topic": "deep"})
    assert resolve(room, [one.ids(), two.ids()])["m.room.topic", ""] == deep.event_id
    three = Branch.of(room)
    three.member(BOB, "ban", sender=ALICE)
    three.send(ALICE, "x", {})
    three.send(ALICE, "y", {})
    shallow = three.fork()
    resolved = resolve(room, [one.ids(), two.ids(), shallow.ids()])
    # Bob's membership is in conflict: the chain begins with the shallowest, and the ban is allowed after it.
    assert resolved["m.room.member", BOB] == three.state["m.room.member", BOB].event_id
    assert ("m.room.topic", "") not in resolved


@pytest.mark.parametrize("version", ["11", "12"])
def test_v2_1_replays_what_lies_between_conflicting_events(version: str) -> None:
    """One state holds old power levels, the other those that Carol made after she was promoted in between.

    The promotion is behind both states (the topic was set under it), so only the conflicted state subgraph finds it.
    """
    room, line, _other = forked(version)
    old = line.state["m.room.power_levels", ""]
    line.send(ALICE, "m.room.power_levels", users(version, bob=50, carol=50))
    line.send(ALICE, "m.room.topic", {})
    new = line.send(CAROL, "m.room.power_levels", {**users(version, bob=50, carol=50), "kick": 40})
    resolved = resolve(room, [line.ids(), {**line.ids(), old.key: old.event_id}])
    assert resolved[old.key] == (new.event_id if version == "12" else old.event_id)


@pytest.mark.parametrize("version", SINCE_2)
def test_rejected_auth_events_authorise_nothing(version: str) -> None:
    room, one, two = forked(version)
    joined = one.member(DAVE, "join")
    one.send(ALICE, "m.room.power_levels", users(version, bob=50, dave=50))
    first, second = (one.fork().send(DAVE, "m.room.topic", {"x": x}) for x in range(2))
    states = [{**two.ids(), first.key: event.event_id} for event in (first, second)]  # which lack Dave's membership
    del states[0]["m.room.power_levels", ""], states[1]["m.room.power_levels", ""]
    assert first.key in resolve(room, states)
    assert first.key not in resolve(room, states, rejected=frozenset({joined.event_id}))


@pytest.mark.parametrize("version", SINCE_2)
def test_missing_events_do_not_stop_it(version: str) -> None:
    room, one, two = forked(version)
    topic = one.send(BOB, "m.room.topic", {})
    lost = two.send(BOB, "m.room.topic", {"lost": True}, ts=99_000_000)
    del room.events[lost.event_id]
    unconflicted, _ = resolution.separate([one.ids(), two.ids()])

    def load(request: NeedEvents) -> Loaded:
        return Loaded({i: room.events[i] for i in request.ids if i in room.events})

    steps = resolution.resolve(room.version, [one.ids(), two.ids()])
    resolved = resolution.run(steps, load, lambda candidates: candidates)
    assert resolved == {**unconflicted, topic.key: topic.event_id}


def test_separate() -> None:
    a, b = {("a", ""): "1", ("b", ""): "2"}, {("a", ""): "1", ("b", ""): "3", ("c", ""): "4"}
    unconflicted, conflicted = resolution.separate([a, b])
    assert unconflicted == {("a", ""): "1"}
    assert conflicted == [{("b", ""): "2"}, {("b", ""): "3", ("c", ""): "4"}]
    assert a == {("a", ""): "1", ("b", ""): "2"}


def test_run_async_is_the_same() -> None:
    room, states = random_branches("11", random.Random(7))

    async def load(request: NeedEvents) -> Loaded:
        return Loaded({i: room.events[i] for i in request.ids})

    async def in_chain(candidates: frozenset[str]) -> set[str]:
        sources = resolution.separate(states)[0].values()
        return in_chain_of(candidates, sources, lambda i: room.events[i].auth_event_ids)

    unconflicted, conflicted = resolution.separate(states)

    async def entries(keys: frozenset[StateKey]) -> StateMap:
        return {key: unconflicted[key] for key in keys if key in unconflicted}

    steps = resolution.resolve_conflict(room.version, conflicted)
    running = resolution.run_async(steps, load, in_chain, entries)
    with pytest.raises(StopIteration) as done:
        running.send(None)  # nothing here ever waits
    assert {**unconflicted, **done.value.value} == resolve(room, states)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALL), st.integers(0, 10**9))
def test_order_of_states_does_not_matter(version: str, seed: int) -> None:
    chooser = random.Random(seed)
    room, states = random_branches(version, chooser)
    resolved = resolve(room, states)
    chooser.shuffle(states)
    assert resolve(room, states) == resolved
    assert resolve(room, [*states, states[0]], with_chains=True) == resolved


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["2", "6", "11", "12"]), st.integers(0, 10**9))
def test_agrees_with_the_definitions(version: str, seed: int) -> None:
    room, states = random_branches(version, random.Random(seed), steps=30)
    assert resolve(room, states) == Naive(room.version, room.events, room.create).resolve(states)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(ALL), st.integers(0, 10**9))
def test_what_all_agree_on_stays(version: str, seed: int) -> None:
    room, states = random_branches(version, random.Random(seed))
    unconflicted, _conflicted = resolution.separate(states)
    resolved = resolve(room, states)
    assert unconflicted.items() <= resolved.items()
    assert all(room.events[event_id].key == key for key, event_id in resolved.items())
