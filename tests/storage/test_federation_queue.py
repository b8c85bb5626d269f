"""What other servers are still to be sent, on record."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from synapse.storage.database import Database, Transaction
from synapse.storage.federation_events import FederationEventsStore
from synapse.storage.federation_queue import FederationQueueStore, Fenced, Logged, Progress, Told
from tests.support.world import World

A, B = b"a" * 16, b"b" * 16


async def begun(db: Database) -> tuple[FederationQueueStore, int]:
    store = FederationQueueStore(db, "test")
    epoch, _ = await store.begin()
    return store, epoch


async def log(store: FederationQueueStore, epoch: int, *events: tuple[int, str, bytes], now: int = 0) -> None:
    audiences = {A: ["x.test", "y.test"], B: ["x.test"]}
    await store.log(epoch, events[-1][0], [Logged(*event) for event in events], audiences, now)


async def standing(store: FederationQueueStore) -> dict[str, tuple[Any, ...]]:
    return {each.destination: tuple(each[1:]) for each in await store.standing()}


@ensureDeferred
async def test_what_is_on_record_waits_until_it_is_acknowledged(database: Database) -> None:
    store, epoch = await begun(database)
    await log(store, epoch, (1, "!r", A), (2, "!r", B), (3, "!s", A))
    assert await standing(store) == {"x.test": (0, 3, None, None, False), "y.test": (0, 3, None, None, False)}
    assert await store.pages({"x.test": (0, 10), "y.test": (1, 10)}) == {"x.test": [1, 2, 3], "y.test": [3]}
    assert await store.pages({"x.test": (0, 2), "z.test": (0, 10)}) == {"x.test": [1, 2], "z.test": []}
    await store.note(epoch, [Progress("x.test", 0, 2, "txn")])
    assert (await standing(store))["x.test"] == (0, 3, 2, "txn", False)
    await store.note(epoch, [Progress("x.test", 3), Progress("y.test", 3)])
    assert await standing(store) == {}
    await store.note(epoch, [Progress("x.test", 1)])
    assert await standing(store) == {}, "it never goes back"


@ensureDeferred
async def test_what_is_given_up_becomes_the_last_event_of_each_room(database: Database) -> None:
    store, epoch = await begun(database)
    await log(store, epoch, (1, "!r", A), (2, "!r", A), (3, "!s", B), now=100)
    await log(store, epoch, (4, "!s", A), now=200)
    await store.note(epoch, [Progress("y.test", 2)])
    trimmed = await store.trim(epoch, 150, 1000)
    assert (trimmed.until, trimmed.destinations, trimmed.audiences) == (3, ["x.test"], [B])
    assert await store.missed({"x.test": 10, "y.test": 10}) == {"x.test": [("!r", 2), ("!s", 3)], "y.test": []}
    assert await store.missed({"x.test": 1}) == {"x.test": [("!r", 2)]}
    assert (await store.trim(epoch, 150, 1000)).until == 0
    assert (await store.trim(epoch, 0, 0)).destinations == ["x.test", "y.test"]
    assert await store.missed({"x.test": 10}) == {"x.test": [("!r", 2), ("!s", 4)]}
    told = [Told("x.test", "!r", 2), Told("x.test", "!s", 3)]
    await store.note(epoch, [], told)
    assert await store.missed({"x.test": 10}) == {"x.test": [("!s", 4)]}, "a later event was missed meanwhile"


@ensureDeferred
async def test_a_part_of_the_log_is_skipped_for_one_server(database: Database) -> None:
    store, epoch = await begun(database)
    await log(store, epoch, (1, "!r", A), (2, "!r", A), (3, "!s", A), (4, "!s", A))
    await store.skip(epoch, "x.test", 1, 3)
    assert await standing(store) == {"x.test": (3, 4, None, None, True), "y.test": (0, 4, None, None, False)}
    assert await store.missed({"x.test": 10}) == {"x.test": [("!r", 2), ("!s", 3)]}
    await store.forget_missed(epoch, 0)
    assert await store.missed({"x.test": 10}) == {"x.test": []}, "there are no such events"


@ensureDeferred
async def test_of_servers_that_are_in_no_room_any_more_nothing_is_kept(database: Database) -> None:
    store, epoch = await begun(database)
    world = World(database)
    await world.member(await world.room("@a:test"), "@b:x.test", "join")
    await log(store, epoch, (1, "!r", A))
    await store.note(epoch, [Progress("x.test", 1), Progress("y.test", 1)])

    def kept(txn: Transaction) -> list[str]:
        txn.execute("SELECT destination FROM federation_queues ORDER BY 1")
        return [destination for (destination,) in txn.rows()]

    await store.forget_missed(epoch, 0)
    assert await database.read("kept", kept) == ["x.test", "y.test"], "the log is about them"
    await store.trim(epoch, 0, 0)
    await store.forget_missed(epoch, 0)
    assert await database.read("kept", kept) == ["x.test"]


@ensureDeferred
async def test_who_takes_over_shuts_the_other_out(database: Database) -> None:
    store, first = await begun(database)
    await log(store, first, (5, "!r", A))
    second, positions = await store.begin()
    assert (second > first, positions) == (True, {"events": 5})
    for work in (
        store.note(first, [Progress("x.test", 5)]),
        store.log(first, 6, [Logged(6, "!r", A)], {}, 0),
        store.keep_positions(first, {"receipts": 1}),
        store.skip(first, "x.test", 0, 5),
        store.trim(first, 0, 0),
        store.forget_missed(first, 0),
    ):
        with pytest.raises(Fenced):
            await work
    await store.keep_positions(second, {"receipts": 7})
    assert (await store.begin())[1] == {"events": 5, "receipts": 7}


@ensureDeferred
async def test_the_servers_of_a_room_as_they_were(database: Database) -> None:
    world, chance = World(database), random.Random(5)
    rooms = [await world.room("@a:test") for _ in range(2)]
    users = [f"@{name}:{server}" for name in "abc" for server in ("test", "x.test", "y.test")]
    history: list[tuple[int, dict[str, dict[str, int]]]] = []
    for _ in range(60):
        room_id = chance.choice(rooms)
        await world.member(room_id, chance.choice(users), chance.choice(["join", "join", "leave", "invite"]))
        now = {
            each: dict(Counter(u.partition(":")[2] for u, m in world.rooms[each].memberships.items() if m == "join"))
            for each in rooms
        }
        history.append((world.stream, now))
    store = FederationEventsStore(database, "test")
    for position, then in history:
        assert await store.hosts_at(rooms, position) == then


@ensureDeferred
async def test_sending_begins_before_the_first_other_server_came(database: Database) -> None:
    world, store = World(database), FederationQueueStore(database, "test")
    room_id = await world.room("@a:test")
    await world.member(room_id, "@b:test", "join")
    assert await store.start_of_events(99) == 99
    row = await world.member(room_id, "@b:x.test", "join")
    assert await store.start_of_events(1_000) == row.stream - 1
