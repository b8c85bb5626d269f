"""Rooms for tests of the pure core: events with real hashes and signatures, made in a line or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from functools import cache
from typing import Any

from signedjson.key import decode_signing_key_base64
from signedjson.types import SigningKey

from synapse.api.room_versions import RoomVersion, room_version
from synapse.events.auth_types import cited_types_for
from synapse.events.builder import build
from synapse.events.event import Event, StateKey

SERVER = "a.example"
KEY: SigningKey = decode_signing_key_base64("ed25519", "1", "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
ALICE, BOB, CAROL, DAVE = (f"@{name}:{SERVER}" for name in ("alice", "bob", "carol", "dave"))


class Room:
    """A room that grows event by event; every state event becomes part of `state`, whether or not it is allowed."""

    def __init__(self, version: str = "12", creator: str = ALICE, create: Mapping[str, Any] | None = None) -> None:
        self.version: RoomVersion = room_version(version)
        self.events: dict[str, Event] = {}
        self.state: dict[StateKey, Event] = {}
        self.heads: list[str] = []
        self.clock = 1_000_000
        self.counter = 0
        self.room_id: str | None = None if self.version.room_id_from_create else f"!room:{SERVER}"
        content: dict[str, Any] = {"room_version": version, **(create or {})}
        if not self.version.implicit_creator:
            content.setdefault("creator", creator)
        self.create = self.send(creator, "m.room.create", content, "")
        self.room_id = self.create.room_id

    def make(
        self,
        sender: str,
        type: str,
        content: dict[str, Any],
        state_key: str | None = None,
        *,
        state: Mapping[StateKey, Event] | None = None,
        prev_events: Sequence[str] | None = None,
        ts: int | None = None,
        depth: int | None = None,
        redacts: str | None = None,
        auth_events: Sequence[str] | None = None,
        server: str | None = None,
    ) -> Event:
        """An event that is not (yet) part of the room."""
        here = self.state if state is None else state
        self.clock += 1000
        self.counter += 1
        cited = cited_types_for(self.version, type, sender, state_key, content)
        prev = list(self.heads) if prev_events is None else list(prev_events)
        return build(
            self.version,
            room_id=self.room_id,
            sender=sender,
            type=type,
            content=content,
            state_key=state_key,
            prev_events=prev,
            auth_events=[here[key].event_id for key in cited if key in here] if auth_events is None else auth_events,
            depth=1 + max((self.events[p].depth for p in prev if p in self.events), default=0)
            if depth is None
            else depth,
            origin_server_ts=self.clock if ts is None else ts,
            server_name=server or sender.partition(":")[2],
            signing_key=KEY,
            redacts=redacts,
            event_id=f"$e{self.counter}:{SERVER}",
        )

    def add(self, event: Event) -> Event:
        self.events[event.event_id] = event
        self.heads = [event.event_id]
        if event.is_state():
            self.state[event.key] = event
        return event

    def send(self, sender: str, type: str, content: dict[str, Any], state_key: str | None = None, **how: Any) -> Event:
        return self.add(self.make(sender, type, content, state_key, **how))

    def member(self, user: str, membership: str, sender: str | None = None, **extra: Any) -> Event:
        return self.send(sender or user, "m.room.member", {"membership": membership, **extra}, user)

    def power(self, sender: str = ALICE, **content: Any) -> Event:
        return self.send(sender, "m.room.power_levels", content, "")

    def join_rule(self, rule: str, sender: str = ALICE) -> Event:
        return self.send(sender, "m.room.join_rules", {"join_rule": rule}, "")


def usual_room(version: str = "12") -> Room:
    """Alice created it; Bob (50) and Carol (0) are in it; anybody may join."""
    room = copy(_usual_room(version))
    room.events, room.state, room.heads = dict(room.events), dict(room.state), list(room.heads)
    return room


@cache
def _usual_room(version: str) -> Room:
    room = Room(version)
    room.member(ALICE, "join")
    users = {BOB: 50} if room.version.privileged_creators else {ALICE: 100, BOB: 50}
    room.power(users=users)
    room.join_rule("public")
    room.member(BOB, "join")
    room.member(CAROL, "join")
    return room
