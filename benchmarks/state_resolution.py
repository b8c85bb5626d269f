"""What resolving state costs: CPU milliseconds by number of members, forks and room version.

    python -m benchmarks.state_resolution

The cost is to grow with the conflict, not with the room. "all" is `resolve` on whole states, with the comparison of
every state and, from memory, the walk through the unconflicted state's auth events; "conflict" is `resolve_conflict`,
for a caller that knows the difference already and has an index of auth events. Budget: 200 ms for 10,000 members in 50
forks.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from signedjson.key import decode_signing_key_base64

from synapse.api.room_versions import room_version
from synapse.events.auth_types import cited_types_for
from synapse.events.builder import build
from synapse.events.event import Event, StateKey
from synapse.state import resolution
from synapse.state.resolution import Loaded, NeedEvents
from synapse.state.resolution_graph import in_chain_of

KEY = decode_signing_key_base64("ed25519", "1", "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
ALICE = "@alice:example.org"


class BigRoom:
    """A room with many members, half of whom joined before the power levels were last changed."""

    def __init__(self, version: str, members: int) -> None:
        self.version = room_version(version)
        self.events: dict[str, Event] = {}
        self.room_id: str | None = None if self.version.room_id_from_create else "!big:example.org"
        self.time = 1_000_000
        state: dict[StateKey, Event] = {}
        create = self.send(state, ALICE, "m.room.create", {"room_version": version, "creator": ALICE}, "")
        self.room_id = create.room_id
        self.send(state, ALICE, "m.room.member", {"membership": "join"}, ALICE)
        self.users = {} if self.version.privileged_creators else {ALICE: 100}
        self.send(state, ALICE, "m.room.power_levels", {"users": self.users}, "")
        self.send(state, ALICE, "m.room.join_rules", {"join_rule": "public"}, "")
        for number in range(members):
            user = f"@user{number}:example.org"
            self.send(state, user, "m.room.member", {"membership": "join"}, user)
            if number == members // 2:
                moderators = {f"@user{n}:example.org": 50 for n in range(100)}
                self.send(state, ALICE, "m.room.power_levels", {"users": {**self.users, **moderators}}, "")
        self.state = state

    def send(self, state: dict[StateKey, Event], sender: str, kind: str, content: dict[str, object], key: str) -> Event:
        self.time += 1
        cited = [state[k].event_id for k in cited_types_for(self.version, kind, sender, key, content) if k in state]
        event = build(
            self.version,
            room_id=self.room_id,
            sender=sender,
            type=kind,
            content=content,
            state_key=key,
            prev_events=[] if not state else [state["m.room.create", ""].event_id],
            auth_events=cited,
            depth=self.time,
            origin_server_ts=self.time,
            server_name="example.org",
            signing_key=KEY,
        )
        self.events[event.event_id] = event
        state[event.key] = event
        return event

    def forks(self, count: int) -> list[dict[StateKey, str]]:
        """States of branches in each of which a moderator set the topic, removed somebody and somebody else left."""
        states = []
        for number in range(count):
            state = dict(self.state)
            moderator, victim, leaver = (f"@user{n}:example.org" for n in (number, 200 + number, 400 + number))
            self.send(state, moderator, "m.room.topic", {"topic": str(number)}, "")
            self.send(state, moderator, "m.room.member", {"membership": "leave"}, victim)
            self.send(state, leaver, "m.room.member", {"membership": "leave"}, leaver)
            states.append({key: event.event_id for key, event in state.items()})
        return states

    def load(self, request: NeedEvents) -> Loaded:
        return Loaded({event_id: self.events[event_id] for event_id in request.ids})

    def entries(self, keys: frozenset[StateKey]) -> dict[StateKey, str]:
        return {key: self.state[key].event_id for key in keys if key in self.state}

    def auth_ids(self, event_id: str) -> tuple[str, ...]:
        return self.events[event_id].auth_event_ids


def milliseconds(work: Callable[[], object]) -> float:
    """The CPU time of the best of five runs."""
    best = float("inf")
    for _ in range(5):
        before = time.process_time()
        work()
        best = min(best, time.process_time() - before)
    return best * 1000


def measure(version: str, members: int, forks: int) -> tuple[float, float]:
    room = BigRoom(version, members)
    states = room.forks(forks)
    unconflicted, conflicted = resolution.separate(states)
    sources = list(unconflicted.values())
    shared = in_chain_of(room.events, sources, room.auth_ids)

    def whole() -> object:
        steps = resolution.resolve(room.version, states)
        return resolution.run(steps, room.load, lambda ids: in_chain_of(ids, sources, room.auth_ids))

    def conflict() -> object:
        steps = resolution.resolve_conflict(room.version, conflicted)
        return resolution.run(steps, room.load, lambda ids: ids & shared, room.entries)

    return milliseconds(whole), milliseconds(conflict)


def main() -> None:
    print(f"{'version':>8}{'members':>9}{'forks':>7}{'all ms':>10}{'conflict ms':>13}")
    for version in ("1", "11", "12"):
        for members, forks in ((1_000, 2), (10_000, 2), (1_000, 50), (10_000, 50)):
            whole, conflict = measure(version, members, forks)
            print(f"{version:>8}{members:>9}{forks:>7}{whole:>10.1f}{conflict:>13.1f}")


if __name__ == "__main__":
    main()
