"""Lazily loaded members: who is told of, and what is remembered of it from one sync to the next."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from synapse.storage.database import Database
from tests.support.reactor import real_reactor
from tests.sync.harness import Harness, state_of

ALICE, BOB, CAROL, DAVE = "@alice:test", "@bob:test", "@carol:test", "@dave:test"
LAZY: dict[str, Any] = {"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 2}}}


@pytest.fixture
def h(database: Database) -> Harness:
    harness = Harness(database, memory=True)
    for stream in harness.changes.by_stream:
        harness.changes.start(stream, 0)
    return harness


@pytest.fixture
def named() -> dict[str, Any]:
    """A room with a name has no heroes, who would be told of as well."""
    return {"m__room__name": {"name": "n"}}


def members(answer: dict[str, Any], room: str, part: str = "state") -> list[str]:
    told = answer.get("rooms", {}).get("join", {}).get(room)
    return [] if told is None else sorted(key for kind, key in state_of(told, part) if kind == "m.room.member")


@pytest_twisted.ensureDeferred
async def test_a_gap_tells_all_memberships_in_it_and_those_who_speak_after_it(
    h: Harness, named: dict[str, Any]
) -> None:
    room = await h.world.room(ALICE, **named)
    for user in (BOB, CAROL):
        await h.world.member(room, user)
    await h.world.message(room, BOB)
    await h.world.message(room, BOB)
    first = await h.sync(ALICE, **LAZY)
    assert members(first, room) == [ALICE, BOB]
    await h.world.member(room, DAVE)
    await h.world.member(room, BOB, displayname="known, but changed in the gap")
    for _ in range(3):
        await h.world.message(room, CAROL)
    second = await h.sync(ALICE, first["next_batch"], **LAZY)
    assert members(second, room) == [BOB, CAROL, DAVE]
    await h.world.message(room, CAROL)
    await h.world.message(room, DAVE)
    third = await h.sync(ALICE, second["next_batch"], **LAZY)
    assert members(third, room) == []


@pytest_twisted.ensureDeferred
async def test_waiting_forgets_nobody(h: Harness, named: dict[str, Any]) -> None:
    """A sync that is woken in vain goes on from a later token than the client's."""
    room = await h.world.room(ALICE, **named)
    await h.world.member(room, BOB)
    await h.world.message(room, BOB)
    first = await h.sync(ALICE, **LAZY)
    waiting = Deferred.fromCoroutine(h.sync(ALICE, first["next_batch"], timeout=1000, **LAZY))
    await h.world.room(CAROL)
    h.present.wake()
    while not h.present.waiting:
        assert not waiting.called
        await deferLater(real_reactor(), 0)
    await h.world.message(room, BOB)
    h.present.wake()
    answer = await waiting
    assert answer["next_batch"] != first["next_batch"]
    assert members(answer, room) == []


@pytest_twisted.ensureDeferred
async def test_an_answer_that_was_never_given_is_not_remembered(
    h: Harness, named: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that goes away while its answer is made has learnt of nobody."""
    room = await h.world.room(ALICE, **named)
    await h.world.member(room, BOB)
    first = await h.sync(ALICE, **LAZY)
    await h.world.message(room, BOB)

    def broken(*_: Any) -> Any:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr("synapse.sync.handler.encode", broken)
        with pytest.raises(ConnectionError):
            await h.sync(ALICE, first["next_batch"], **LAZY)
    assert members(await h.sync(ALICE, first["next_batch"], **LAZY), room) == [BOB]


@pytest_twisted.ensureDeferred
async def test_full_state_names_oneself_and_the_heroes_again(h: Harness) -> None:
    room = await h.world.room(ALICE)
    await h.world.member(room, BOB)
    for _ in range(2):
        await h.world.message(room, ALICE)
    first = await h.sync(ALICE, **LAZY)
    assert members(first, room) == [ALICE, BOB]
    for _ in range(2):
        again = await h.sync(ALICE, first["next_batch"], full_state=True, **LAZY)
        assert members(again, room) == [ALICE, BOB]


@pytest_twisted.ensureDeferred
async def test_new_heroes_come_with_their_memberships(h: Harness) -> None:
    room = await h.world.room(ALICE)
    for user in (BOB, CAROL):
        await h.world.member(room, user)
    for _ in range(3):
        await h.world.message(room, ALICE)
    first = await h.sync(ALICE, **LAZY)
    h.handler = h._build()  # as after a restart: nothing is remembered
    await h.world.member(room, BOB, "leave")
    second = await h.sync(ALICE, first["next_batch"], **LAZY)
    assert second["rooms"]["join"][room]["summary"]["m.heroes"] == [CAROL]
    assert CAROL in members(second, room)


@pytest_twisted.ensureDeferred
async def test_another_process_tells_again_and_the_first_believes_nothing_old(
    h: Harness, named: dict[str, Any]
) -> None:
    room = await h.world.room(ALICE, **named)
    await h.world.member(room, BOB)
    await h.world.message(room, BOB)
    one = h.handler
    first = await h.sync(ALICE, **LAZY)
    other = h._build()
    for process in (other, one):
        h.handler = process
        await h.world.message(room, BOB)
        first = await h.sync(ALICE, first["next_batch"], **LAZY)
        assert members(first, room) == [BOB]


@pytest_twisted.ensureDeferred
async def test_state_after_tells_who_speaks_as_they_are_now(h: Harness, named: dict[str, Any]) -> None:
    room = await h.world.room(ALICE, **named)
    await h.world.member(room, BOB, displayname="Old")
    first = await h.sync(ALICE, device_id="OTHER")
    for number in range(4):
        await h.world.message(room, BOB, str(number))
        await h.world.member(room, BOB, displayname=str(number))
    answer = await h.sync(ALICE, first["next_batch"], state_after=True, **LAZY)
    told = state_of(answer["rooms"]["join"][room], "state_after")
    assert told == {("m.room.member", BOB): {"membership": "join", "displayname": "3"}}


@pytest_twisted.ensureDeferred
async def test_members_of_a_room_left_are_told_as_they_were_then(h: Harness, named: dict[str, Any]) -> None:
    room = await h.world.room(ALICE, **named)
    await h.world.member(room, BOB, displayname="Bob")
    await h.world.member(room, CAROL)
    since = (await h.sync(CAROL))["next_batch"]
    await h.world.message(room, BOB, "bye")
    await h.world.member(room, CAROL, "leave")
    await h.world.member(room, BOB, displayname="Robert")
    lazy = {"room": {"state": {"lazy_load_members": True}}}
    told = state_of((await h.sync(CAROL, since, **lazy))["rooms"]["leave"][room])
    assert told["m.room.member", BOB] == {"membership": "join", "displayname": "Bob"}
