"""Positions: announced in order, never handed out twice, whatever is deleted and whoever is killed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from synapse.replication.allocator import Positions, StreamIdAllocator, StreamWriter
from synapse.replication.streams import BY_NAME
from synapse.storage.database import Database
from synapse.storage.errors import DatabaseProblem, DatabaseUnavailable, OutcomeUnknown
from synapse.util.concurrency import spawn


@given(st.permutations(range(1, 9)))
def test_a_position_is_reached_when_all_before_it_are_done(order: list[int]) -> None:
    allocator = StreamIdAllocator(0)
    assert allocator.next_many(8) == list(range(1, 9))
    done: set[int] = set()
    for position in order:
        done.add(position)
        reached = next(n for n in range(1, 10) if n not in done) - 1
        assert allocator.finish([position]) == allocator.current_token == reached
    assert allocator.next() == 9
    assert allocator.current_token == 8


def test_finish_up_to_closes_what_was_given_up() -> None:
    allocator = StreamIdAllocator(10)
    allocator.next_many(5)
    assert allocator.finish_up_to(13) == 13
    assert allocator.finish_up_to(15) == 15


class Announced:
    """What a writer tells."""

    def __init__(self) -> None:
        self.told: list[tuple[int, list[Any]]] = []

    def __call__(self, name: str, position: int, rows: Any) -> None:
        self.told.append((position, list(rows)))


class Gate:
    """A write that a test lets go."""

    def __init__(self) -> None:
        self.opened: dict[int, Deferred[Any]] = {}

    async def __call__(self, position: int) -> Any:
        self.opened[position] = Deferred()
        return await self.opened[position]


def writer(announced: Announced, db: Any = None) -> StreamWriter[str]:
    return StreamWriter(BY_NAME["account_data"], StreamIdAllocator(0), announced, db)


@ensureDeferred
async def test_rows_are_told_in_order_and_before_the_writer_goes_on() -> None:
    announced, gate = Announced(), Gate()
    stream = writer(announced)
    first, second = (spawn(stream.append(gate, lambda result: [result])) for _ in range(2))
    gate.opened[2].callback("b")
    assert announced.told == []
    assert not second.called, "its position is not announced yet, so nobody else could see what was written"
    gate.opened[1].callback("a")
    assert announced.told == [(2, [(1, "a"), (2, "b")])]
    assert (await first, await second) == ("a", "b")


@ensureDeferred
async def test_a_write_that_fails_holds_nobody_up() -> None:
    announced, gate = Announced(), Gate()
    stream = writer(announced)
    first, second = (spawn(stream.append(gate, lambda result: [result])) for _ in range(2))
    gate.opened[2].callback("b")
    gate.opened[1].errback(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await first
    assert await second == "b"
    assert announced.told == [(2, [(2, "b")])]


@ensureDeferred
async def test_what_was_written_although_the_answer_got_lost_is_told(database: Database) -> None:
    announced = Announced()
    stream = writer(announced, database)

    async def write(position: int) -> None:
        sql = "INSERT INTO account_data (user_id, type, content, stream_id) VALUES ('@u:x', 't', '{}', %s)"
        await database.write("put", lambda txn: txn.execute(sql, (position,)))
        raise OutcomeUnknown("the connection broke")

    with pytest.raises(OutcomeUnknown):
        await stream.append(write, lambda _: ["unused"])
    assert announced.told == [(1, [(1, "@u:x")])]


@ensureDeferred
async def test_many_positions_are_told_together(database: Database) -> None:
    announced = Announced()
    stream = writer(announced, database)

    async def write(positions: Sequence[int]) -> None:
        insert = "INSERT INTO account_data (user_id, type, content, stream_id) VALUES ('@u:x', %s, '{}', %s)"
        for position in positions[1:]:  # at the first, nothing is
            await database.write("put", lambda txn, at: txn.execute(insert, (f"t{at}", at)), position)
        if positions[0] > 1:
            raise OutcomeUnknown("the connection broke")

    await stream.append_many(3, write, lambda _: {2: ["b"], 3: ["c", "d"]})
    assert announced.told == [(3, [(2, "b"), (3, "c"), (3, "d")])]
    with pytest.raises(OutcomeUnknown):
        await stream.append_many(3, write, lambda _: {4: ["unused"]})
    assert announced.told[1:] == [(6, [(5, "@u:x"), (6, "@u:x")])]
    with pytest.raises(ZeroDivisionError):
        await stream.append_many(2, gone, lambda _: {7: [str(1 // 0)]})
    assert announced.told[2:] == [(8, [])], "the stream goes on"


async def gone(_positions: Sequence[int]) -> None:
    pass


@ensureDeferred
async def test_positions_go_on_behind_all_that_was_ever_handed_out(database: Database) -> None:
    insert = "INSERT INTO to_device_messages VALUES (%s, '@u:x', 'D', '{}')"
    killed = Positions(database, reserve=10)
    await killed.load()
    last = killed.allocators["to_device"].next_many(3)[-1]
    await database.write("put", lambda txn: txn.execute(insert, (last,)))
    await database.write("delete", lambda txn: txn.execute("DELETE FROM to_device_messages"))
    after = Positions(database, reserve=10)
    await after.load()
    assert after.allocators["to_device"].next() > last


@ensureDeferred
async def test_a_clean_stop_wastes_no_positions(database: Database) -> None:
    first = Positions(database, reserve=1000)
    await first.load()
    last = first.allocators["receipts"].next()
    await first.release()
    second = Positions(database, reserve=1000)
    await second.load()
    assert second.allocators["receipts"].next() == last + 1
    await first.release()  # too late: somebody else has taken over
    third = Positions(database, reserve=1000)
    await third.load()
    assert third.allocators["receipts"].next() == last + 1001


@ensureDeferred
async def test_more_is_reserved_in_good_time(database: Database) -> None:
    positions = Positions(database, reserve=10)
    await positions.load()
    allocator = positions.allocators["events"]
    allocator.next_many(6)
    await database.read("wait", lambda txn: None)
    while positions._extending:
        await database.read("wait", lambda txn: None)
    allocator.next_many(8)
    again = Positions(database, reserve=10)
    await again.load()
    assert again.allocators["events"].next() > allocator.last


@ensureDeferred
async def test_nothing_is_handed_out_beyond_the_reservation_or_before_the_start(database: Database) -> None:
    positions = Positions(database, reserve=10)
    with pytest.raises(RuntimeError, match="not started"):
        positions.allocators["events"].next()
    await positions.load()
    positions._extending = True  # as if the database did not answer
    events = positions.allocators["events"]
    before = events.last
    with pytest.raises(RuntimeError, match="used up"):
        events.next_many(11)
    # Some of them, handed out to nobody, would never be finished, and nothing after them be announced.
    assert events.last == before


@ensureDeferred
async def test_one_that_lost_its_lease_hands_out_nothing_until_it_has_it_back(database: Database) -> None:
    positions = Positions(database, 100)
    await positions.load()
    positions.suspend()
    with pytest.raises(DatabaseUnavailable):
        positions.allocators["events"].next()
    await positions.resume()
    assert positions.allocators["events"].next() == positions.allocators["events"].last


@ensureDeferred
async def test_one_that_was_superseded_may_not_go_on(database: Database) -> None:
    old, new = Positions(database, 100), Positions(database, 100)
    await old.load()
    old.suspend()
    await new.load()
    with pytest.raises(DatabaseProblem, match="Another main process"):
        await old.resume()
    with pytest.raises(DatabaseUnavailable):
        old.allocators["events"].next()
