"""Taking events over: what is for nobody is passed over at once, and for what is for somebody nothing is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec.structs import replace
from twisted.internet.task import Clock

from synapse.federation.sending.audience import RoomAudiences
from synapse.federation.sending.takeover import KEEP_EVERY, TakeOver
from synapse.replication.event_rows import Row
from synapse.replication.notifier import Notifier
from tests.federation.sending.test_audience import OURS, ROOM, event, member


class Taking:
    """A follower of events that has taken over everything until position 10."""

    def __init__(self, counts: dict[str, int]) -> None:
        self.clock = Clock()
        self.notifier = Notifier(self.clock)
        self.counts = counts
        self.asked: list[set[str]] = []
        self.delivered: list[tuple[int, tuple[str, ...]]] = []
        self.kept: list[int] = []
        self.forgotten: list[str] = []
        self.taken: list[int] = []
        self.it = TakeOver(
            self,  # type: ignore[arg-type]  # what it asks of the stores is below
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            RoomAudiences(OURS),
            self,  # type: ignore[arg-type]
            lambda: self.notifier.position("events"),
            self.clock,
            lambda found: self.delivered.extend((each.position, each.audience.servers) for each in found),
            self.taken.append,
            lambda error: None,
        )
        self.notifier.subscribe("events", self.it.rows, self.it.missed)
        self.notifier.start("events", 10)
        self.it.begin(1, 10)
        self.turn()

    async def hosts_at(self, rooms: set[str], position: int) -> dict[str, dict[str, int]]:
        self.asked.append(rooms)
        return dict.fromkeys(rooms, self.counts)

    async def keep_positions(self, epoch: int, positions: dict[str, int]) -> None:
        self.kept.append(positions["events"])

    async def log(self, epoch: int, until: int, logged: Sequence[Any], new: Any, now: int) -> None:
        self.kept.append(until)

    def remember(self, position: int, event_id: str, json: bytes) -> None:
        """What is sent soon is kept."""

    def forget(self, event_id: str) -> None:
        self.forgotten.append(event_id)

    def turn(self) -> None:
        self.clock.advance(0)

    def tell(self, position: int, *rows: Row) -> None:
        self.notifier.on_advance("events", position, [(position, row) for row in rows])


@pytest.fixture
def alone() -> Taking:
    """In a room with users of this server alone, which it knows."""
    taking = Taking({OURS: 2})
    taking.tell(11, event())
    assert taking.it.position == 10
    taking.turn()
    assert (taking.it.position, taking.asked) == (11, [{ROOM}])
    return taking


def test_what_is_for_nobody_is_taken_over_at_once(alone: Taking) -> None:
    for position in range(12, 20):
        alone.tell(position, event())
        assert alone.it.position == position
        assert not alone.clock.getDelayedCalls()
    assert alone.taken[-1] == 19
    alone.tell(20, replace(event(), redacts="$old"))
    assert (alone.it.position, alone.forgotten) == (20, ["$old"])
    assert (alone.asked, alone.delivered, alone.kept) == ([{ROOM}], [], [])


def test_what_is_for_somebody_is_not(alone: Taking) -> None:
    alone.tell(12, event())
    alone.tell(13, event("@b:b.test", relay=True), member("@b:b.test", "join", None))
    alone.tell(14, event())  # comes before the join has been looked at
    assert alone.it.position == 12
    alone.turn()
    assert (alone.it.position, alone.delivered) == (14, [(13, ("b.test",)), (14, ("b.test",))])
    alone.tell(15, event())
    alone.turn()
    alone.tell(16, event("@b:b.test"), member("@b:b.test", "leave", "join"))
    alone.turn()
    alone.tell(17, event())  # for whom, is found out once
    alone.turn()
    alone.tell(18, event())
    assert alone.it.position == 18
    assert alone.delivered[2:] == [(15, ("b.test",))]


def test_other_rooms_are_looked_at(alone: Taking) -> None:
    alone.counts = {"c.test": 1}
    alone.tell(12, event(), event(room="!other:us.test"))
    assert alone.it.position == 11
    alone.turn()
    assert (alone.it.position, alone.delivered) == (12, [(12, ("c.test",))])


def test_how_far_it_has_come_is_kept_now_and_then(alone: Taking) -> None:
    for position in range(12, 12 + 2 * KEEP_EVERY):
        alone.tell(position, event())
        alone.turn()
    assert alone.kept == [10 + KEEP_EVERY, 10 + 2 * KEEP_EVERY]
    assert alone.it.position == 11 + 2 * KEEP_EVERY


def test_nothing_is_passed_over_before_its_time(alone: Taking) -> None:
    alone.it.end()
    alone.tell(12, event())
    assert alone.it.position == 11
    alone.it.begin(2, 11)  # somebody else had the duty; 12 is to be read
    alone.tell(13, event())
    assert alone.it.position == 11


def test_rows_for_nobody_say_the_same_as_taking_them() -> None:
    rows: list[tuple[int, Row]] = [(1, event()), (2, event("@b:b.test")), (3, event(relay=True))]
    for counts, nobody in (({OURS: 1}, True), ({OURS: 1, "b.test": 1}, False), ({}, True)):
        audiences = RoomAudiences(OURS)
        assert not audiences.are_for_nobody(rows)  # the room is not known
        audiences.remember({ROOM: counts})
        assert not audiences.are_for_nobody(rows)  # nor is it looked at, who that is
        assert bool(audiences.take(rows)) is not nobody
        assert audiences.are_for_nobody(rows) is nobody
        assert not audiences.are_for_nobody([*rows, (4, member("@b:b.test", "join", None))])
