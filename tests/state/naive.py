"""State resolution written down as the definitions read, without a thought for cost: what the real one must agree with.

It loads everything, computes every chain in full, and finds orderings by looking at all candidates each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from synapse.api.errors import AuthError
from synapse.api.room_versions import RoomVersion, StateResolution
from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.events.power_levels import PowerLevels

POWER: StateKey = ("m.room.power_levels", "")


class Naive:
    def __init__(self, version: RoomVersion, events: Mapping[str, Event], create: Event) -> None:
        self.version, self.events, self.create = version, events, create
        self.v2_1 = version.state_resolution is StateResolution.V2_1

    def cited(self, event_id: str) -> list[str]:
        return list(self.events[event_id].auth_event_ids)

    def chain(self, event_id: str) -> set[str]:
        chain: set[str] = set()
        for cited in self.cited(event_id):
            chain |= {cited} | self.chain(cited)
        return chain

    def resolve(self, states: Sequence[Mapping[StateKey, str]]) -> dict[StateKey, str]:
        keys = {key for state in states for key in state}
        unconflicted = {
            key: states[0][key] for key in keys if key in states[0] and len({state.get(key) for state in states}) == 1
        }
        conflicted = {event_id for state in states for key, event_id in state.items() if key not in unconflicted}
        chains = [set[str]().union(*(self.chain(event_id) for event_id in state.values())) for state in states]
        full = conflicted | (set[str]().union(*chains) - chains[0].intersection(*chains))
        if self.v2_1 and conflicted:
            below = set[str]().union(*(self.chain(event_id) | {event_id} for event_id in conflicted))
            full |= {event_id for event_id in below if event_id in conflicted or self.chain(event_id) & conflicted}

        power = {event_id for event_id in full if self.is_power(self.events[event_id])}
        selected = power | {event_id for event_id in full if any(event_id in self.chain(p) for p in power)}
        state: dict[StateKey, str] = {} if self.v2_1 else dict(unconflicted)
        for event_id in self.power_order(selected):
            self.try_event(state, event_id)
        for event_id in self.mainline_order(full - selected, state.get(POWER)):
            self.try_event(state, event_id)
        return {**state, **unconflicted}

    def is_power(self, event: Event) -> bool:
        if event.type in ("m.room.power_levels", "m.room.join_rules"):
            return True
        kicked = event.content.get("membership") in ("leave", "ban")
        return event.type == "m.room.member" and kicked and event.sender != event.state_key

    def power_of_sender(self, event_id: str) -> int:
        cited = {self.events[i].key: self.events[i] for i in self.cited(event_id)}
        create = cited.get(("m.room.create", ""), self.create if self.v2_1 else None)
        return PowerLevels(cited.get(POWER), create, self.version).user(self.events[event_id].sender)

    def power_order(self, event_ids: set[str]) -> list[str]:
        left, ordered = set(event_ids), []
        while left:
            free = [event_id for event_id in left if not left & set(self.cited(event_id))]
            best = min(free, key=lambda i: (-self.power_of_sender(i), self.events[i].origin_server_ts, i))
            ordered.append(best)
            left.remove(best)
        return ordered

    def power_line(self, event_id: str) -> list[str]:
        line: list[str] = []
        while True:
            found = [i for i in self.cited(event_id) if self.events[i].key == POWER]
            if not found:
                return line
            event_id = found[0]
            line.append(event_id)

    def mainline_order(self, event_ids: set[str], power_id: str | None) -> list[str]:
        mainline = [] if power_id is None else [power_id, *self.power_line(power_id)]

        def position(event_id: str) -> float:
            return next((mainline.index(i) for i in self.power_line(event_id) if i in mainline), float("inf"))

        return sorted(event_ids, key=lambda i: (-position(i), self.events[i].origin_server_ts, i))

    def try_event(self, state: dict[StateKey, str], event_id: str) -> None:
        event = self.events[event_id]
        sources = {self.events[i].key: self.events[i] for i in self.cited(event_id)}
        if self.v2_1:
            sources[auth.CREATE_KEY] = self.create
        sources.update({key: self.events[i] for key, i in state.items()})
        try:
            auth.check(event, sources)
        except AuthError:
            return
        state[event.key] = event_id
