"""Clients that follow a server know in the end what is true: every event once, and the state of every room."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
import pytest_twisted

from synapse.handlers.pagination import PageRequest
from synapse.storage.database import Database
from synapse.sync.tokens import RoomToken
from tests.sync.harness import Harness
from tests.sync.readers import Readers

ALICE, BOB, CAROL = USERS = ("@alice:test", "@bob:test", "@carol:test")


class Follower:
    """A client: what it knows of each room, from syncs and, where a timeline has a gap, from pages of history."""

    def __init__(self, h: Harness, user_id: str, *, state_after: bool, limit: int) -> None:
        self.h = h
        self.user_id = user_id
        self.state_after = state_after
        self.filter: dict[str, Any] = {"room": {"timeline": {"limit": limit}}}
        self.readers = Readers(h)
        self.since: str | None = None
        self.states: dict[str, dict[tuple[str, str], str]] = {}
        self.events: dict[str, list[str]] = {}

    async def sync(self) -> None:
        device = f"{self.user_id}{self.state_after}"
        answer = await self.h.sync(
            self.user_id, self.since, device_id=device, state_after=self.state_after, **self.filter
        )
        rooms = answer.get("rooms", {})
        for room_id in rooms.get("leave", {}):
            self.states.pop(room_id, None)
            self.events.pop(room_id, None)
        for room_id, told in rooms.get("join", {}).items():
            await self._take(room_id, told)
        self.since = answer["next_batch"]

    async def _take(self, room_id: str, told: dict[str, Any]) -> None:
        is_new = room_id not in self.states
        state = self.states.setdefault(room_id, {})
        changes = list(told["state_after" if self.state_after else "state"]["events"])
        if not self.state_after:
            changes += [event for event in told["timeline"]["events"] if "state_key" in event]
        for event in changes:
            state[event["type"], event["state_key"]] = event["event_id"]
        known = self.events.setdefault(room_id, [])
        if told["timeline"]["limited"]:
            known += await self._gap(room_id, told["timeline"]["prev_batch"], None if is_new else self.since)
        known += [event["event_id"] for event in told["timeline"]["events"]]

    async def _gap(self, room_id: str, start: str, end: str | None) -> list[str]:
        token: RoomToken | None = RoomToken.parse(start)
        stop = None if end is None else RoomToken.parse(end)
        found: list[str] = []
        while token is not None:
            request = PageRequest(self.user_id, None, room_id, True, token, stop, limit=3)
            page = orjson.loads(await self.readers.pagination.messages(request))
            found += [event["event_id"] for event in page["chunk"]]
            token = RoomToken.parse(page["end"]) if "end" in page else None
        return found[::-1]


async def something(h: Harness, rng: random.Random, rooms: list[str]) -> None:
    """One thing that may happen on a server."""
    room = rng.choice(rooms)
    members = {u for u in USERS if h.world.rooms[room].memberships.get(u) == "join"}
    what = rng.random()
    user = rng.choice(USERS)
    if what < 0.15:
        membership = "leave" if user in members else "join"
        await h.world.member(room, user, membership)
    elif not members:
        await h.world.member(room, user)
    elif what < 0.35:
        name = rng.choice(("m.room.topic", "m.room.name", "org.example"))
        await h.world.state(room, rng.choice(sorted(members)), name, {"x": rng.random()}, rng.choice(("", "k")))
    elif what < 0.45:
        # From a branch: arrives now, but lies elsewhere in the room's history.
        depth = rng.randint(1, h.world.rooms[room].depth + 5)
        await h.world.event(room, rng.choice(sorted(members)), "m.room.message", {"body": "branch"}, depth=depth)
    else:
        await h.world.message(room, rng.choice(sorted(members)))


def check(h: Harness, follower: Follower, created: dict[str, list[str]]) -> None:
    for room_id, room in h.world.rooms.items():
        if room.memberships.get(follower.user_id) != "join":
            assert room_id not in follower.states
            continue
        assert follower.states[room_id] == room.state, room_id
        known = follower.events[room_id]
        assert len(known) == len(set(known))
        assert set(known) == set(created[room_id]), room_id


@pytest.mark.parametrize("memory", [False, True], ids=["database", "memory"])
@pytest.mark.parametrize("seed", [1, 2, 25])
@pytest_twisted.ensureDeferred
async def test_followers_know_what_is_true(database: Database, seed: int, memory: bool) -> None:
    rng = random.Random(seed)
    h = Harness(database, memory=memory)
    created: dict[str, list[str]] = {}
    h.world.on_event.append(lambda row, delta: created.setdefault(row.room_id, []).append(row.event_id))
    rooms = [await h.world.room(ALICE) for _ in range(3)]
    followers = [
        Follower(h, user, state_after=state_after, limit=rng.choice((1, 2, 5, 20)))
        for user in USERS
        for state_after in (False, True)
    ]
    for _ in range(12):
        for _ in range(rng.randint(1, 8)):
            await something(h, rng, rooms)
        for follower in followers:
            if rng.random() < 0.6:
                await follower.sync()
    for follower in followers:
        await follower.sync()
        check(h, follower, created)
