"""Which servers are in a room: what is remembered is what the tables say, whatever happens and whenever it is asked."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from pytest_twisted import ensureDeferred

from synapse.api.errors import MatrixError
from synapse.federation.hosts import RoomHosts
from synapse.handlers.federation_door import FederationDoor
from synapse.replication import event_rows
from synapse.replication.event_rows import Row, StateRow
from synapse.state.store import StateReader
from synapse.storage.current_state import CurrentStateStore
from synapse.storage.database import Database
from synapse.storage.events import EventsStore
from synapse.storage.room_hosts import HostCounts, RoomHostsStore
from synapse.storage.state import StateStore
from synapse.util.caches import Cache, LruCache
from tests.support.world import World

SERVERS = ("test", "far.example", "[::1]:8448")
USERS = [f"@{name}:{server}" for name in "abcd" for server in SERVERS]
MEMBERSHIPS = ("join", "join", "leave", "ban", "invite", "knock")


class Made:
    """A world, and what a process remembers of it that hears of each change when the test says so."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.world = World(db)
        self.rooms: Cache[str, HostCounts] = Cache("rooms", 10)
        self.hosts = RoomHosts(RoomHostsStore(db), self.rooms)
        events = EventsStore(db, LruCache("events", 100))
        self.state = StateReader(CurrentStateStore(db), StateStore(db), events, LruCache("state", 10))
        self.door = FederationDoor(self.state, self.hosts, LruCache("lists", 10))
        self.heard = 0

    async def member(self, room_id: str, user_id: str, membership: str) -> None:
        """A membership is written, with the head that the writer keeps, but not told yet."""
        row = await self.world.member(room_id, user_id, membership)
        await self.world.sql(
            "INSERT INTO room_heads VALUES (%s, %s, 1, %s, %s) ON CONFLICT (room_id) DO UPDATE "
            "SET state_ordering = EXCLUDED.state_ordering",
            *(room_id, [row.event_id], row.stream, row.stream),
        )

    async def hear(self, until: int | None = None) -> None:
        until = self.world.stream if until is None else until
        rows: list[tuple[int, Row]] = await self.db.read("rows", event_rows.read, self.heard, until, 1000)
        self.heard = until
        self.hosts.learn(rows)

    async def truth(self, room_id: str) -> dict[str, int]:
        members = self.world.rooms[room_id].memberships.items()
        return dict(Counter(user_id.partition(":")[2] for user_id, membership in members if membership == "join"))


@ensureDeferred
async def test_what_is_remembered_stays_true(database: Database) -> None:
    made, chance = Made(database), random.Random(4)
    rooms = [await made.world.room("@a:test") for _ in range(2)]
    for room_id in rooms:
        await made.member(room_id, "@a:test", "join")
    await made.hear()
    for step in range(250):
        room_id = chance.choice(rooms)
        await made.member(room_id, chance.choice(USERS), chance.choice(MEMBERSHIPS))
        if step % 40 == 39:
            made.hosts.forget_all()
        if chance.random() < 0.3:  # read between the write and its announcement, which must not count it twice
            await made.hosts.joined(chance.choice(rooms))
        if chance.random() < 0.7:
            await made.hear()
            assert await made.hosts.joined_many(rooms) == {each: await made.truth(each) for each in rooms}


@ensureDeferred
async def test_a_warm_room_costs_no_statement_and_what_was_handed_out_stays(database: Database) -> None:
    made = Made(database)
    room_id = await made.world.room("@a:test")
    await made.member(room_id, "@a:test", "join")
    await made.hear()
    before = await made.hosts.joined(room_id)
    await made.member(room_id, "@b:far.example", "join")
    with database.counted() as counts:
        await made.hosts.joined(room_id)
    assert not counts.sql
    await made.hear()
    with database.counted() as counts:
        assert await made.hosts.joined(room_id) == {"test": 1, "far.example": 1}
    assert not counts.sql
    assert before == {"test": 1}


@ensureDeferred
async def test_rooms_that_nobody_knows_take_no_room_in_memory(database: Database) -> None:
    made = Made(database)
    for number in range(20):
        assert await made.hosts.joined(f"!{number}:far.example") == {}
    assert len(made.rooms) == 0


@ensureDeferred
async def test_rows_that_do_not_tell_memberships_make_it_read_again(database: Database) -> None:
    made = Made(database)
    room_id = await made.world.room("@a:test")
    await made.member(room_id, "@a:test", "join")
    await made.hosts.joined(room_id)
    row = await made.world.member(room_id, "@b:far.example", "join")
    made.hosts.learn([(row.stream, StateRow(room_id, "m.room.member", "@b:far.example", row.event_id, None))])
    assert await made.hosts.joined(room_id) == {"test": 1, "far.example": 1}


@ensureDeferred
async def test_servers_that_are_in_the_room_are_let_in_also_before_this_process_has_heard(database: Database) -> None:
    made = Made(database)
    room_id = await made.world.room("@a:test")
    await made.hear()
    with pytest.raises(MatrixError) as refused:
        await made.door.check("far.example", room_id)
    assert (refused.value.code, refused.value.errcode) == (403, "M_FORBIDDEN")
    await made.member(room_id, "@b:far.example", "join")
    await made.door.check("far.example", room_id)
    with pytest.raises(MatrixError):
        await made.door.check("far.example", "!unknown:test")


@ensureDeferred
async def test_the_access_list_keeps_servers_out(database: Database) -> None:
    made = Made(database)
    acl = {"allow": ["*"], "deny": ["far.example"]}
    room_id = await made.world.room("@a:test", m__room__server_acl=acl)
    await made.member(room_id, "@b:far.example", "join")
    await made.door.check_acl("near.example", room_id)
    for check in (made.door.check, made.door.check_acl):
        with pytest.raises(MatrixError, match=r"m\.room\.server_acl"):
            await check("far.example", room_id)
    with database.counted() as counts:
        await made.door.check_acl("near.example", room_id)
    assert not counts.sql


@ensureDeferred
async def test_a_redacted_access_list_lets_nobody_in(database: Database) -> None:
    made = Made(database)
    room_id = await made.world.room("@a:test")
    acl = await made.world.state(room_id, "@a:test", "m.room.server_acl", {"allow": ["*"]})
    await made.member(room_id, "@b:far.example", "join")
    await made.door.check_acl("near.example", room_id)
    await made.world.redact(acl, "@a:test")
    fresh = Made(database).door
    with pytest.raises(MatrixError):
        await fresh.check_acl("near.example", room_id)


@ensureDeferred
async def test_of_a_room_that_is_made_here_nothing_is_asked(database: Database) -> None:
    made = Made(database)
    room_id = "!made:here"
    create = StateRow(room_id, "m.room.create", "", "$create", None)
    joins = [StateRow(room_id, "m.room.member", f"@{n}:test", f"${n}", None, "join") for n in "ab"]
    with database.counted() as counts:
        made.hosts.learn([(5, create), (6, joins[0])])
        assert await made.hosts.joined(room_id) == {"test": 1}
        made.hosts.learn([(9, joins[1])])
        assert await made.hosts.joined(room_id) == {"test": 2}
    assert counts.statements_read == 0
