"""Typing over time: how long it lasts, what ends it, and what is told."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from synapse.handlers.typing import MAX_TIMEOUT, SetTyping, Typing
from synapse.replication.calls import LocalMain
from synapse.replication.event_rows import EventRow
from tests.sync.test_feed import event

ROOM, ALICE, BOB = "!room:test", "@a:test", "@b:test"


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, list[str]]] = []
        main = LocalMain()
        self.typing = Typing(None, main, lambda room, users: self.told.append((room, list(users))), self.clock)  # type: ignore[arg-type]
        self.handle = main.handlers["typing.set"][1]

    def row(self, **values: Any) -> EventRow:
        return event(1, **values)[1]


@pytest.fixture
def world() -> World:
    return World()


def test_typing_ends_by_itself(world: World) -> None:
    world.typing.start(ROOM, ALICE, 5_000)
    world.clock.advance(4.9)
    assert world.told == [(ROOM, [ALICE])]
    world.clock.advance(0.2)
    assert world.told == [(ROOM, [ALICE]), (ROOM, [])]
    assert world.clock.getDelayedCalls() == []


def test_saying_so_again_prolongs_it_and_is_no_news(world: World) -> None:
    world.typing.start(ROOM, ALICE, 5_000)
    world.clock.advance(4)
    world.typing.start(ROOM, ALICE, 5_000)
    world.clock.advance(4)
    assert len(world.told) == 1
    world.typing.start(ROOM, BOB, 5_000)
    assert world.told[-1] == (ROOM, [ALICE, BOB])
    world.typing.stop(ROOM, BOB)
    world.typing.stop(ROOM, BOB)
    assert world.told[-1] == (ROOM, [ALICE])
    assert len(world.told) == 3


def test_leaving_ends_it_and_other_things_do_not(world: World) -> None:
    world.typing.start(ROOM, ALICE, 50_000)
    world.typing.learn([world.row(sender=ALICE), world.row(room_id="!other", sender=ALICE)])
    world.typing.learn([world.row(type="m.room.topic", state_key="", sender=ALICE)])
    joined = '{"content":{"membership":"join"}}'
    world.typing.learn([world.row(type="m.room.member", state_key=ALICE, sender=ALICE, json=joined)])
    assert len(world.told) == 1
    kicked = '{"content":{"membership":"leave"}}'
    world.typing.learn([world.row(type="m.room.member", state_key=ALICE, sender=BOB, json=kicked)])
    assert world.told[-1] == (ROOM, [])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"typing": True}, 30_000),
        ({"typing": True, "timeout": 10}, 10),
        ({"typing": True, "timeout": 10**9}, MAX_TIMEOUT),
        ({"typing": True, "timeout": 0}, None),
        ({"typing": False}, None),
        ({"typing": False, "timeout": 5}, None),
    ],
)
def test_how_long(body: dict[str, Any], expected: int | None) -> None:
    from synapse.handlers.typing import _timeout_of

    assert _timeout_of(body) == expected
    assert SetTyping(ROOM, ALICE, expected).timeout == expected
