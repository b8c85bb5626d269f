"""What coming into other servers' rooms costs in statements, and what a resident that says anything can do."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest_twisted

from synapse.handlers.remote.joining import PIECE
from synapse.storage.pool import PoolSettings
from tests.federation.test_joining_by_worker import Way
from tests.rest.people import Person, person
from tests.support.homeserver import TestServer, homeserver
from tests.support.limits import UNLIMITED
from tests.support.resident import Answered, Resident

THERE = "there.test"


@asynccontextmanager
async def visited(settings: PoolSettings, *residents: Resident) -> AsyncIterator[tuple[TestServer, Person]]:
    """A server with a user, who reaches the residents."""
    async with homeserver(settings, **UNLIMITED) as server:
        Way(*residents).used_by(server)
        yield server, await person(server, "alice")


def room_of(members: int, name: str = THERE) -> Resident:
    resident = Resident(name)
    resident.join(f"@m{n}:{name}" for n in range(members))
    return resident


async def join(alice: Person, resident: Resident) -> tuple[int, Any]:
    return await alice.ask("POST", f"/join/{quote(resident.room_id)}?via={resident.name}", {})


@pytest_twisted.ensureDeferred
async def test_statements_do_not_grow_with_the_members_but_by_the_piece(database_settings: PoolSettings) -> None:
    first, small, large = room_of(3, "first.test"), room_of(5), room_of(PIECE - 50, "large.test")
    async with visited(database_settings, first, small, large) as (server, alice):
        await join(alice, first)
        costs = []
        for resident in (small, large):
            with server.hs.database.counted() as counts:
                assert (await join(alice, resident))[0] == 200
            costs.append((counts.statements_read, counts.statements_written, counts.sql))
        (read, written, sql), (read_large, written_large, sql_large) = costs
        assert (read_large, written_large) == (read, written), (sql, sql_large)
        assert read <= 16, sql
        assert written <= 24, sql


@pytest_twisted.ensureDeferred
async def test_a_resident_that_says_anything_gets_no_fault_and_no_half_made_room(
    database_settings: PoolSettings,
) -> None:
    chance = random.Random(20)
    resident = room_of(4)
    odd = [None, True, 0, -1, 1.5, 2**70, "", "\x00", "x" * 70_000, [], {}, [[]], {"a": {}}, "$x", "@x:y", [None]]

    def spoiled(value: Any, depth: int = 0) -> Any:
        """The same with something odd somewhere."""
        if depth > 4 or not isinstance(value, (dict, list)) or not value or chance.random() < 0.15:
            return chance.choice(odd)
        if isinstance(value, dict):
            key = chance.choice(list(value))
            return {**value, key: spoiled(value[key], depth + 1)}
        place = chance.randrange(len(value))
        return [*value[:place], spoiled(value[place], depth + 1), *value[place + 1 :]]

    def lie(answered: Answered) -> Answered:
        return chance.choice([200, 200, 200, 200, 400, 403, 500, 302]), spoiled(answered[1])

    async with visited(database_settings, resident) as (_server, alice):
        for number in range(150):
            operation = ("make_join", "send_join")[number % 2]
            resident.lie = {operation: lie}
            code, body = await join(alice, resident)
            assert code == 200 or (code in (400, 403, 404, 413, 502) and body["errcode"].startswith("M_")), body
            joined = (await alice.do("GET", "/joined_rooms"))["joined_rooms"]
            assert joined == ([resident.room_id] if code == 200 else [])
            if code == 200:
                await alice.do("POST", f"/rooms/{quote(resident.room_id)}/leave", {})
                await alice.do("POST", f"/rooms/{quote(resident.room_id)}/forget", {})
        resident.lie = {}
        assert (await join(alice, resident))[0] == 200
