"""A client that believes every answer of /sync ends with what is true, whatever it asks for: with gaps, filters, lazily
loaded members, either form of state, after restarts; in rooms that fork, hide their history, invite and ban.

The client applies answers by the letter of the specification, and nothing else. What is true is worked out beside the
server, from the events alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import pytest_twisted

from synapse.storage.database import Database
from synapse.storage.timeline import TimelineRow
from tests.sync.harness import Harness

ALICE, BOB, CAROL = USERS = ("@alice:test", "@bob:test", "@carol:test")
Key = tuple[str, str]
MEMBER = "m.room.member"


@dataclass
class Happened:
    """An event and what held at it: the room's visibility, and memberships, before and after."""

    row: TimelineRow
    visibility: tuple[str, str]
    memberships: dict[str, str]

    def shown_to(self, user: str, joins: list[int]) -> bool:
        """Client-server API, "Room history visibility". `joins` are the positions at which the user came in."""
        membership = self.memberships.get(user, "leave")
        if self.row.type == MEMBER and self.row.state_key == user:
            return True
        later = any(join > self.row.stream for join in joins)
        for visibility in self.visibility:
            if visibility == "world_readable" or membership == "join":
                return True
            if visibility == "shared" and later:
                return True
            if visibility == "invited" and membership == "invite":
                return True
        return False


@dataclass
class Truth:
    """All rooms, from the events as they happen."""

    h: Harness
    events: dict[str, list[Happened]] = field(default_factory=dict)
    visibility: dict[str, str] = field(default_factory=dict)
    forked: set[tuple[str, Key]] = field(default_factory=set)  # entries of which the last event is not what holds

    def note(self, row: TimelineRow, delta: Any) -> None:
        before = after = self.visibility.get(row.room_id, "shared")
        if row.type == "m.room.history_visibility" and delta is not None:
            after = self.visibility[row.room_id] = orjson.loads(row.json)["content"]["history_visibility"]
        memberships = dict(self.h.world.rooms[row.room_id].memberships)
        self.events.setdefault(row.room_id, []).append(Happened(row, (before, after), memberships))

    def membership(self, room_id: str, user: str) -> str:
        return self.h.world.rooms[room_id].memberships.get(user, "leave")

    def timeline(self, room_id: str, user: str, after: int) -> list[str]:
        """The events that a joined user is to be told of, by id."""
        happened = self.events[room_id]
        joins = [
            e.row.stream
            for e in happened
            if e.row.type == MEMBER and e.row.state_key == user and e.memberships[user] == "join"
        ]
        state = set(self.h.world.rooms[room_id].state.values())
        return [
            e.row.event_id
            for e in happened
            if e.row.stream > after and (e.shown_to(user, joins) or e.row.event_id in state)
        ]


class Client:
    """What a client knows. Each sync may ask in another way."""

    def __init__(self, truth: Truth, user: str, rng: random.Random, *, lazy: bool) -> None:
        self.truth, self.h, self.user, self.rng, self.lazy = truth, truth.h, user, rng, lazy
        self.device = f"{user} {lazy}"
        self.since: str | None = None
        self.position = 0
        self.state: dict[str, dict[Key, str]] = {}
        self.pending: dict[str, str] = {}
        self.doubtful: set[tuple[str, Key]] = set()  # entries that the classic form of state cannot tell

    async def sync(self) -> None:
        rng = self.rng
        limit = rng.choice((1, 2, 5, 100))
        timeline: dict[str, Any] = {"limit": limit}
        if rng.random() < 0.3:
            timeline["types"] = ["m.room.message"]
        after = rng.random() < 0.5
        asked = {"room": {"timeline": timeline, "state": {"lazy_load_members": self.lazy}}}
        full = self.since is not None and rng.random() < 0.1
        answer = await self.h.sync(
            self.user, self.since, device_id=self.device, state_after=after, full_state=full, **asked
        )
        rooms = answer.get("rooms", {})
        for part in ("invite", "knock"):
            for room_id in rooms.get(part, {}):
                self.state.pop(room_id, None)
                self.pending[room_id] = part
        for room_id, told in rooms.get("leave", {}).items():
            self._check_left(room_id, told, "types" in timeline)
            self._check_left_state(room_id, told["state_after" if after else "state"]["events"])
            self.state.pop(room_id, None)
            self.pending.pop(room_id, None)
        for room_id, told in rooms.get("join", {}).items():
            self._take(room_id, told, after=after, limit=limit, messages="types" in timeline)
        self.since = answer["next_batch"]
        self.position = self.h.world.stream
        self._check()

    def _take(self, room_id: str, told: dict[str, Any], *, after: bool, limit: int, messages: bool) -> None:
        is_new = room_id not in self.state
        self.pending.pop(room_id, None)
        state = self.state.setdefault(room_id, {})
        events = told["timeline"]["events"]
        for event in told["state_after" if after else "state"]["events"]:
            self._apply(room_id, state, event)
        for event in events:
            assert not self.lazy or after or self._knows_sender(state, event)
            if not after and "state_key" in event:
                self._apply(room_id, state, event)
        self._doubt(room_id, state, [] if after else events)
        assert not self.lazy or all(self._knows_sender(state, event) for event in events)
        self._check_timeline(room_id, told["timeline"], is_new=is_new, limit=limit, messages=messages)

    def _apply(self, room_id: str, state: dict[Key, str], event: dict[str, Any]) -> None:
        key = (event["type"], event["state_key"])
        state[key] = event["event_id"]
        self.doubtful.discard((room_id, key))

    def _doubt(self, room_id: str, state: dict[Key, str], events: list[dict[str, Any]]) -> None:
        """Where the timeline ends with an event that the rules did not choose: the classic form cannot say so."""
        for event in events:
            key = (event["type"], event.get("state_key", ""))
            if "state_key" in event and self.h.world.rooms[room_id].state.get(key) != state[key]:
                assert (room_id, key) in self.truth.forked
                self.doubtful.add((room_id, key))

    def _knows_sender(self, state: dict[Key, str], event: dict[str, Any]) -> bool:
        """Whether there is a membership to show beside the event; not where the event is itself the first."""
        is_own = event["type"] == MEMBER and event["state_key"] == event["sender"]
        return is_own or (MEMBER, event["sender"]) in state or event["type"] == "m.room.create"

    def _check_timeline(
        self, room_id: str, timeline: dict[str, Any], *, is_new: bool, limit: int, messages: bool
    ) -> None:
        told = [event["event_id"] for event in timeline["events"]]
        expected = self.truth.timeline(room_id, self.user, 0 if is_new else self.position)
        if messages:
            kinds = {e.row.event_id: e.row.type for e in self.truth.events[room_id]}
            expected = [event_id for event_id in expected if kinds[event_id] == "m.room.message"]
        assert len(told) <= limit
        if not timeline["limited"]:
            assert told == expected
        elif not is_new:
            assert len(told) == limit < len(expected)
            assert told == expected[-limit:]
        elif self.since is not None:
            # What was in force while the user was away is told as state here, so it need not stand in the timeline.
            assert [event_id for event_id in expected if event_id in told] == told

    def _check_left(self, room_id: str, told: dict[str, Any], messages: bool) -> None:
        """Nothing that happened after they left, but what became of themselves."""
        last = next((e.row.event_id for e in reversed(self.truth.events[room_id]) if self._is_own(e)), None)
        events = told["timeline"]["events"]
        if not messages:
            assert events[-1]["event_id"] == last
        happened = {e.row.event_id: e for e in self.truth.events[room_id]}
        for event in events:
            assert happened[event["event_id"]].shown_to(self.user, []) or self._was_shown(room_id, event["event_id"])

    def _check_left_state(self, room_id: str, state: list[dict[str, Any]]) -> None:
        """Nothing that came into force after they had left for the last time."""
        joined = [e.row.stream for e in self.truth.events[room_id] if e.memberships.get(self.user) == "join"]
        left = min(
            (e.row.stream for e in self.truth.events[room_id] if e.row.stream > max(joined, default=0)), default=0
        )
        streams = {e.row.event_id: e.row.stream for e in self.truth.events[room_id]}
        for event in state:
            is_own = (event["type"], event["state_key"]) == (MEMBER, self.user)
            assert is_own or (joined and streams[event["event_id"]] <= left)

    def _was_shown(self, room_id: str, event_id: str) -> bool:
        """Whether the event was there to be seen when the user was in the room for the last time before they left."""
        joins = [e.row.stream for e in self.truth.events[room_id] if self._is_own(e) and self._joined(e)]
        return any(e.row.event_id == event_id and e.shown_to(self.user, joins) for e in self.truth.events[room_id])

    def _is_own(self, event: Happened) -> bool:
        return event.row.type == MEMBER and event.row.state_key == self.user

    def _joined(self, event: Happened) -> bool:
        return event.memberships[self.user] == "join"

    def _check(self) -> None:
        rooms = self.h.world.rooms
        memberships = {room_id: self.truth.membership(room_id, self.user) for room_id in rooms}
        assert set(self.state) == {room_id for room_id, membership in memberships.items() if membership == "join"}
        pending = {room_id: kind for room_id, kind in memberships.items() if kind in ("invite", "knock")}
        assert self.pending == pending
        for room_id, known in self.state.items():
            true = {
                key: event_id for key, event_id in rooms[room_id].state.items() if (room_id, key) not in self.doubtful
            }
            mine = {key: event_id for key, event_id in known.items() if (room_id, key) not in self.doubtful}
            if self.lazy:
                assert (MEMBER, self.user) in mine
                true = {key: event_id for key, event_id in true.items() if key[0] != MEMBER or key in mine}
            assert mine == true


class Life:
    """Things that happen to rooms."""

    def __init__(self, truth: Truth, rng: random.Random) -> None:
        self.truth, self.h, self.rng = truth, truth.h, rng
        self.past: dict[tuple[str, Key], list[str]] = {}
        truth.h.world.on_event.insert(0, self._note)

    def _note(self, row: TimelineRow, delta: Any) -> None:
        if row.state_key is not None:
            self.past.setdefault((row.room_id, (row.type, row.state_key)), []).append(row.event_id)

    async def go_on(self) -> None:
        room_id = self.rng.choice(list(self.h.world.rooms))
        joined = [user for user in USERS if self.truth.membership(room_id, user) == "join"]
        what = self.rng.random()
        if not joined or what < 0.3:
            await self._move(room_id, self.rng.choice(USERS), joined)
        elif what < 0.5:
            await self._state(room_id, self.rng.choice(joined))
        elif what < 0.58:
            value = self.rng.choice(("shared", "joined", "invited", "world_readable"))
            content = {"history_visibility": value}
            await self.h.world.state(room_id, self.rng.choice(joined), "m.room.history_visibility", content)
        else:
            await self._say(room_id, self.rng.choice(joined))

    async def _move(self, room_id: str, user: str, joined: list[str]) -> None:
        others = [other for other in joined if other != user]
        now = self.truth.membership(room_id, user)
        ways = [("join", user), ("leave", user)] if now != "ban" else []
        if now == "leave":
            ways.append(("knock", user))
        if others:
            ways.append(("leave" if now in ("join", "ban") else "invite", others[0]))
            ways.append(("ban", others[0]))
        if ways:
            membership, sender = self.rng.choice(ways)
            await self.h.world.member(room_id, user, membership, sender, number=self.rng.random())

    async def _state(self, room_id: str, user: str) -> None:
        kind, key = self.rng.choice((("m.room.topic", ""), ("m.room.name", ""), ("org.example", self.rng.choice("ab"))))
        loses = self.rng.random() < 0.2 and (kind, key) in self.h.world.rooms[room_id].state
        entry = (room_id, (kind, key))
        self.truth.forked.discard(entry)
        if loses:
            self.truth.forked.add(entry)
        await self.h.world.event(room_id, user, kind, {"x": self.rng.random()}, key, loses=loses)

    async def _say(self, room_id: str, user: str) -> None:
        columns: dict[str, Any] = {}
        if self.rng.random() < 0.15:
            columns["depth"] = self.rng.randint(1, self.h.world.rooms[room_id].depth + 3)
        turns = [
            (*key, self.rng.choice(ids))
            for (room, key), ids in sorted(self.past.items())
            if room == room_id and key[0] not in (MEMBER, "m.room.history_visibility") and len(ids) > 1
        ]
        if turns and self.rng.random() < 0.15:
            columns["turn"] = self.rng.choice(turns)
            self.truth.forked.add((room_id, columns["turn"][:2]))
        await self.h.world.event(room_id, user, "m.room.message", {"body": "hello"}, **columns)


@pytest.mark.parametrize("memory", [False, True], ids=["database", "memory"])
@pytest.mark.parametrize("seed", [100, 107, 300])
@pytest_twisted.ensureDeferred
async def test_what_a_client_believes_is_true(database: Database, seed: int, memory: bool) -> None:
    rng = random.Random(seed)
    h = Harness(database, memory=memory)
    truth = Truth(h)
    life = Life(truth, rng)
    h.world.on_event.append(truth.note)
    for number in range(3):
        await h.world.room(USERS[number], visibility=rng.choice((None, "joined", "invited", "shared")))
    clients = [Client(truth, user, rng, lazy=lazy) for user in USERS for lazy in (False, True)]
    for _ in range(25):
        for _ in range(rng.randint(1, 10)):
            await life.go_on()
        if rng.random() < 0.1:
            h.handler = h._build()  # another process, which remembers nothing of what it told
        for client in clients:
            if rng.random() < 0.6:
                await client.sync()
    for client in clients:
        await client.sync()
