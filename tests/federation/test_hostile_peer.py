"""A server in a room that tries whatever comes to its mind: forks, gaps, lies about states, events of other rooms, and
what is no event. It may talk; the room stays what its people have made it.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import pytest_twisted

from synapse.api.errors import MatrixError
from synapse.events.builder import seal
from synapse.events.event import Event
from synapse.federation.receiving.work import REQUESTS
from synapse.storage.database import Transaction
from synapse.storage.pool import PoolSettings
from tests.federation.visitor import Visitor, present, visit
from tests.rest.people import person
from tests.support.homeserver import homeserver

VALUES = (None, True, -1, 2**53, 2**64, 1.5, "", "x", "\x00", "\ud800", [], {}, [[]], {"a": {}}, ["$x"], [["$x", {}]])


class Hostile:
    """What comes to its mind, by a seed."""

    def __init__(self, seed: int, eve: Visitor, room: str, other: str, hers: str) -> None:
        self.rng = random.Random(seed)
        self.eve, self.room, self.other, self.hers = eve, room, other, hers
        self.made: list[Event] = []
        self.alice = "@alice:test"

    async def pdus(self) -> list[Any]:
        return [await self._one() for _ in range(self.rng.randint(1, 5))]

    async def _one(self) -> Any:
        action = self.rng.choice(
            [
                self._talk,
                self._talk,
                self._fork,
                self._seize,
                self._kick,
                self._gap,
                self._twist,
                self._stray,
                self._redact,
            ]
        )
        made = await action()
        if isinstance(made, Event):
            self.made.append(made)
        return made

    async def _talk(self) -> Event:
        return await self.eve.make(self.room, content={"body": str(self.rng.random())})

    async def _fork(self) -> Event:
        """Something that comes after any of what was there, known here or not, allowed or not."""
        after = self.rng.sample(self.made, min(len(self.made), self.rng.randint(1, 3)))
        prev = [event.event_id for event in after] or None
        if self.rng.random() < 0.5:
            return await self.eve.make(self.room, prev=prev, content={"n": self.rng.getrandbits(40)})
        name = {"membership": "join", "displayname": str(self.rng.random())}
        return await self.eve.make(self.room, "m.room.member", name, self.eve.user(), prev=prev)

    async def _seize(self) -> Event:
        kind = self.rng.choice(["m.room.power_levels", "m.room.name", "m.room.join_rules", "m.room.create"])
        content = {"users": {self.eve.user(): 100}, "name": "Eve's", "join_rule": "public", "creator": self.eve.user()}
        event = await self.eve.make(self.room, kind, content, "")
        cited = self.rng.sample(event.auth_event_ids, self.rng.randint(0, len(event.auth_event_ids)))
        return await self.eve.make(self.room, kind, content, "", auth_events=cited)

    async def _kick(self) -> Event:
        content = {"membership": self.rng.choice(["leave", "ban", "invite", "join"])}
        return await self.eve.make(self.room, "m.room.member", content, self.alice)

    async def _gap(self) -> Event:
        """Comes after something that leads nowhere, or to a state that was made up."""
        seized = await self._seize()
        gap = await self.eve.make(self.room, prev=["$gone"] if self.rng.random() < 0.5 else [seized.event_id])
        oldest = await self.eve.make(self.room, prev=[gap.event_id], content={"n": self.rng.getrandbits(40)})
        newest = await self.eve.make(self.room, prev=[oldest.event_id], content={"n": self.rng.getrandbits(40)})
        ids = [*(await present(self.eve.server, self.room)).values()]
        state = [*self.rng.sample(ids, self.rng.randint(0, len(ids))), seized.event_id, "$nothing"]
        self.eve.before = lambda latest: [oldest, *self.made[-3:]] if newest.event_id in latest else []
        self.eve.state_at = lambda event_id: {"pdu_ids": state, "auth_chain_ids": self.rng.sample(ids, 2)}
        return newest

    async def _twist(self) -> Any:
        """An event with any of its fields replaced, signed anew where that can be."""
        event = await self._fork()
        raw = dict(event.raw)
        for key in self.rng.sample(list(raw), self.rng.randint(1, 2)):
            raw[key] = self.rng.choice(VALUES)
        if self.rng.random() < 0.5:
            try:
                return dict(seal(dict(raw), event.room_version, self.eve.name, self.eve.key).raw)
            except (MatrixError, ValueError, TypeError, KeyError, AttributeError):
                pass
        return {key: value for key, value in raw.items() if _can_be_sent(value)}

    async def _stray(self) -> Event:
        """Refers to another room."""
        elsewhere = await self.eve.make(self.other)
        if self.rng.random() < 0.5:
            return await self.eve.make(self.room, prev=elsewhere.prev_event_ids)
        return await self.eve.make(self.room, auth_events=elsewhere.auth_event_ids)

    async def _redact(self) -> Event:
        return await self.eve.make(self.room, "m.room.redaction", {}, redacts=self.hers)


def _can_be_sent(value: Any) -> bool:
    return value not in ("\ud800", 2**64, 1.5)


@pytest.mark.parametrize(("seed", "version"), [(1, "12"), (2, "2")])
@pytest_twisted.ensureDeferred
async def test_the_room_stays_what_it_was(database_settings: PoolSettings, seed: int, version: str) -> None:
    async with homeserver(database_settings) as server:
        alice = await person(server, "alice")
        room, other = await alice.room(room_version=version), await alice.room(room_version=version)
        eve = await visit(server)
        await eve.join(room)
        await eve.join(other)
        hers = await alice.say(room, "hers")
        hostile = Hostile(seed, eve, room, other, hers)
        before, elsewhere = await present(server, room), await present(server, other)
        for _ in range(30):
            asked = len(eve.asked)
            await eve.send(*await hostile.pdus())  # which is answered with 200
            assert len(eve.asked) - asked <= 2 * REQUESTS
        after = await present(server, room)
        own = ("m.room.member", eve.user())
        assert {key for key in after | before if after.get(key) != before.get(key)} <= {own}
        assert await present(server, other) == elsewhere
        assert (await alice.get(f"/rooms/{room}/event/{hers}"))["content"]["body"] == "hers"
        await alice.say(room, "on")
        sync = await alice.get("/sync")
        assert sync["rooms"]["join"][room]["timeline"]["events"][-1]["content"]["body"] == "on"
        assert await server.hs.database.read("what should not be there", _odd, room, other) == []


@pytest_twisted.ensureDeferred
async def test_an_impossible_room_is_no_matter_of_the_other_events(database_settings: PoolSettings) -> None:
    async with homeserver(database_settings) as server:
        room = await (await person(server, "alice")).room()
        eve = await visit(server)
        await eve.join(room)
        good = await eve.make(room)
        assert await eve.send({**good.raw, "room_id": "!a\x00b:evil.test"}, good) == {good.event_id: {}}


def _odd(txn: Transaction, room: str, other: str) -> list[Any]:
    """Events of rooms that there are not; states with entries that were rejected, or of another room."""
    txn.execute(
        """
        SELECT 'room', e.event_id FROM events e WHERE e.room_id <> ALL(%s)
        UNION ALL
        SELECT 'current', c.event_id FROM current_state c JOIN events e USING (event_id)
            WHERE e.rejected IS NOT NULL OR e.room_id <> c.room_id
        UNION ALL
        SELECT 'group', s.event_id FROM state_group_entries s JOIN state_groups g ON g.id = s.state_group
            JOIN events e ON e.event_id = s.event_id
            WHERE e.rejected IS NOT NULL OR e.room_id <> g.room_id
        """,
        ([room, other],),
    )
    return txn.rows()
