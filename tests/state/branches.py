"""Rooms whose history forks, for tests of state resolution, and a driver that answers from memory."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from synapse.api.errors import AuthError
from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.state import resolution
from synapse.state.resolution import Loaded, NeedEvents
from synapse.state.resolution_graph import in_chain_of
from tests.events.factory import ALICE, BOB, CAROL, DAVE, Room

StateMap = dict[StateKey, str]


class Branch:
    """One line of history: its own state, in a room shared with other branches."""

    def __init__(self, room: Room, state: Mapping[StateKey, Event], head: str) -> None:
        self.room, self.state, self.head = room, dict(state), head

    @classmethod
    def of(cls, room: Room) -> Branch:
        return cls(room, room.state, room.heads[0])

    def fork(self) -> Branch:
        return Branch(self.room, self.state, self.head)

    def send(self, sender: str, type: str, content: dict[str, Any], key: str = "", ts: int | None = None) -> Event:
        event = self.room.make(sender, type, content, key, state=self.state, prev_events=[self.head], ts=ts)
        auth.check(event, self.state)
        self.room.events[event.event_id] = event
        self.state[event.key] = event
        self.head = event.event_id
        return event

    def member(self, user: str, membership: str, sender: str | None = None, ts: int | None = None) -> Event:
        return self.send(sender or user, "m.room.member", {"membership": membership}, user, ts)

    def ids(self) -> StateMap:
        return {key: event.event_id for key, event in self.state.items()}


def resolve(
    room: Room, states: Sequence[StateMap], rejected: frozenset[str] = frozenset(), with_chains: bool = False
) -> StateMap:
    """Resolve from memory; every answer is checked to be asked for once only."""
    asked: set[str] = set()
    unconflicted, _conflicted = resolution.separate(states)

    def load(request: NeedEvents) -> Loaded:
        assert not request.ids & asked, "an event was asked for twice"
        asked.update(request.ids)
        found = {i: room.events[i] for i in request.ids if i in room.events}
        if with_chains and request.with_chains:
            found = dict(room.events)
        return Loaded(found, rejected)

    def in_chain(candidates: frozenset[str]) -> set[str]:
        return in_chain_of(candidates, unconflicted.values(), lambda i: room.events[i].auth_event_ids)

    return resolution.run(resolution.resolve(room.version, states), load, in_chain)


USERS = [ALICE, BOB, CAROL, DAVE]


def random_branches(version: str, chooser: random.Random, steps: int = 25) -> tuple[Room, list[StateMap]]:
    """A room of that version whose branches did random things, each allowed where it was done."""
    room = Room(version)
    trunk = Branch.of(room)
    trunk.member(ALICE, "join")
    trunk.send(ALICE, "m.room.power_levels", _power(version, chooser))
    trunk.send(ALICE, "m.room.join_rules", {"join_rule": "public"})
    branches = [trunk]
    for _ in range(steps):
        if len(branches) < 4 and chooser.random() < 0.2:
            branches.append(chooser.choice(branches).fork())
        _random_step(chooser.choice(branches), version, chooser)
    return room, [branch.ids() for branch in branches]


def _power(version: str, chooser: random.Random) -> dict[str, Any]:
    users = {user: chooser.choice([0, 50, 60, 100]) for user in USERS[1:] if chooser.random() < 0.6}
    if version != "12":
        users[ALICE] = 100
    return {"users": users, "users_default": chooser.choice([0, 0, 50])}


def _random_step(branch: Branch, version: str, chooser: random.Random) -> None:
    sender, target = chooser.choice(USERS), chooser.choice(USERS)
    ts = chooser.choice([None, None, 5_000, 6_000])  # clocks of other servers may lie
    try:
        match chooser.randrange(8):
            case 0 | 1:
                branch.member(sender, chooser.choice(["join", "join", "leave"]), ts=ts)
            case 2:
                branch.member(target, chooser.choice(["invite", "leave", "ban"]), sender=sender, ts=ts)
            case 3:
                branch.send(sender, "m.room.power_levels", _power(version, chooser), ts=ts)
            case 4:
                rule = chooser.choice(["public", "invite"])
                branch.send(sender, "m.room.join_rules", {"join_rule": rule}, ts=ts)
            case _:
                kind = chooser.choice(["m.room.topic", "m.room.name"])
                branch.send(sender, kind, {"x": chooser.randrange(100)}, ts=ts)
    except AuthError:
        pass
