"""The follower of the user directory: pages, pauses, and being on duty or not."""

from __future__ import annotations

import pytest_twisted
from twisted.internet.task import Clock

from synapse.handlers.user_directory import DELAY_SECONDS, RETRY_SECONDS, DirectoryFollower
from synapse.replication.event_rows import StateRow
from synapse.util.repeating import Repeating


class Store:
    """Counts how far it is followed, two positions at a time."""

    def __init__(self) -> None:
        self.stored = 0
        self.calls: list[tuple[int, int]] = []
        self.fails = False

    async def position(self) -> int:
        return self.stored

    async def follow(self, after: int, until: int, server_name: str, limit: int) -> int:
        if self.fails:
            raise ValueError("no")
        self.calls.append((after, until))
        self.stored = min(until, after + 2)
        return self.stored


class Directory:
    """A follower with a present that the test moves."""

    def __init__(self) -> None:
        self.store = Store()
        self.clock = Clock()
        self.present = 3
        self.follower = DirectoryFollower(
            self.store,  # type: ignore[arg-type]  # it has the two methods that are used
            "test",
            lambda: self.present,
            self.clock,
        )

    def change(self, present: int) -> None:
        self.present = present
        self.follower.news([StateRow("!r", "m.room.member", "@u:far", "$e", None)])


@pytest_twisted.ensureDeferred
async def test_it_catches_up_and_then_waits_for_changes() -> None:
    directory = Directory()
    directory.change(3)
    assert directory.clock.getDelayedCalls() == [], "not on duty"
    await directory.follower.begin()
    assert directory.store.calls == [(0, 3), (2, 3)]
    directory.change(4)
    directory.change(5)
    directory.clock.advance(DELAY_SECONDS)
    assert directory.store.calls[2:] == [(3, 5)]
    directory.change(6)
    await directory.follower.end()
    assert directory.clock.getDelayedCalls() == []
    directory.change(7)
    assert directory.store.stored == 5


@pytest_twisted.ensureDeferred
async def test_what_does_not_concern_it_is_passed_over() -> None:
    directory = Directory()
    await directory.follower.begin()
    own = StateRow("!r", "m.room.member", "@u:test", "$e", None)
    directory.follower.news([own, StateRow("!r", "m.room.name", "", "$e", None)])
    assert directory.clock.getDelayedCalls() == []


@pytest_twisted.ensureDeferred
async def test_the_members_of_a_room_that_is_entered_concern_it() -> None:
    directory = Directory()
    await directory.follower.begin()
    directory.present = 4
    own = StateRow("!r", "m.room.member", "@u:test", "$e", None)
    directory.follower.news([own, StateRow("!r", "m.room.create", "", "$c", "$c")])
    directory.clock.advance(DELAY_SECONDS)
    assert directory.store.stored == 4
    directory.present = 5
    directory.follower.news([StateRow("!r", "m.room.member", "@u:test", "$l", "$e", "leave", "join")])
    directory.clock.advance(DELAY_SECONDS)
    assert directory.store.stored == 5, "the last of us may have left"


@pytest_twisted.ensureDeferred
async def test_a_failure_is_tried_again() -> None:
    directory = Directory()
    await directory.follower.begin()
    directory.store.fails = True
    directory.change(4)
    directory.clock.advance(DELAY_SECONDS)
    assert directory.store.stored == 3
    directory.store.fails = False
    directory.clock.advance(RETRY_SECONDS)
    assert directory.store.stored == 4


def test_work_is_repeated_until_it_is_stopped() -> None:
    clock, done = Clock(), []

    async def work() -> None:
        done.append(clock.seconds())
        if len(done) == 2:
            raise ValueError("once")

    repeating = Repeating(clock, 10, "the test", work)
    repeating.start()
    clock.pump([9, 1, 10, 10])
    assert done == [10, 20, 30]
    repeating.stop()
    clock.advance(100)
    assert len(done) == 3
