"""State resolution of room versions 2 to 11 ("v2"), and of room version 12 ("v2.1"), which differs in two places.

Theory of operation. First everything that might matter is gathered: the *full conflicted set* (`_full_conflicted_set`).
Its power events, and what authorises them, are put into an order in which those with more power come first, and tried
one after the other against the state that has been built so far. Then all other events are tried in the order of the
power levels events that they were sent under, the mainline. What all states agreed on wins over everything in the end.

v2.1 adds the conflicted state subgraph to the full conflicted set, and begins with an empty state.

Room version 2, "State resolution"; room version 12, "State resolution". The steps are numbered as there.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from typing import Any

from synapse.api.constants import EventTypes, Membership
from synapse.api.errors import AuthError
from synapse.api.identifiers import create_id_of_room
from synapse.api.room_versions import RoomVersion, StateResolution
from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.events.power_levels import PowerLevels
from synapse.state.resolution_graph import (
    chain_difference,
    chain_of,
    citing_first,
    subgraph_between,
    topological,
)
from synapse.state.resolution_types import NeedInChain, Pool, Request, Steps

_POWER_LEVELS: StateKey = (EventTypes.POWER_LEVELS, "")

StateMap = Mapping[StateKey, str]


def resolve_v2(room_version: RoomVersion, conflicted: Sequence[StateMap]) -> Steps:
    """What resolves the conflict: entries to add to those that all states share."""
    pool = Pool({key for branch in conflicted for key in branch})
    full = yield from _full_conflicted_set(room_version, conflicted, pool)
    create = yield from _load_create(room_version, full, pool)
    state = _PartialState(room_version.state_resolution is StateResolution.V2, pool, create)

    power = {event_id for event_id in full if _is_power_event(pool.events[event_id])}
    power |= chain_of(power, pool.auth_ids) & full  # step 1
    yield from state.apply(_by_power(power, room_version, pool, create))  # step 2
    yield from state.look_up([_POWER_LEVELS])
    others = yield from _by_mainline(full - power, state.get(_POWER_LEVELS), pool)  # step 3
    yield from state.apply(others)  # step 4
    yield from pool.look_up(state.resolved)
    return {key: event_id for key, event_id in state.resolved.items() if pool.entries.get(key) is None}  # step 5


def _full_conflicted_set(
    room_version: RoomVersion, conflicted: Sequence[StateMap], pool: Pool
) -> Generator[Request, Any, set[str]]:
    """The conflicted state set, the auth difference and, in v2.1, the conflicted state subgraph; only events we have.

    Unconflicted events are in all states, so their chains are in the full chains of all states: the difference is that
    of the conflicted events' chains, less what is in the chain of the unconflicted state too.
    """
    sets = [frozenset(state.values()) for state in conflicted]
    disputed = frozenset[str]().union(*sets)
    yield from pool.load_chains(disputed)
    order = citing_first(disputed, pool.auth_ids)
    full = set(disputed)
    if room_version.state_resolution is StateResolution.V2_1:
        full |= subgraph_between(disputed, order, pool.auth_ids)
    candidates = chain_difference(sets, order, pool.auth_ids) - full
    if candidates:
        shared: Collection[str] = yield NeedInChain(frozenset(candidates))
        full |= candidates.difference(shared)
    return {event_id for event_id in full if event_id in pool.events}


def _load_create(room_version: RoomVersion, full: Iterable[str], pool: Pool) -> Generator[Request, Any, Event | None]:
    """The create event where events do not cite it (room version 12), unless it was rejected."""
    some_event = next(iter(full), None)
    if some_event is None or not room_version.room_id_from_create:
        return None
    create_id = create_id_of_room(pool.events[some_event].room_id)
    yield from pool.load([create_id])
    return None if create_id in pool.rejected else pool.events.get(create_id)


def _is_power_event(event: Event) -> bool:
    """Whether the event might take away somebody's ability to do something in the room."""
    if event.type in (EventTypes.POWER_LEVELS, EventTypes.JOIN_RULES):
        return True
    return event.membership in (Membership.LEAVE, Membership.BAN) and event.sender != event.state_key


def _by_power(event_ids: set[str], room_version: RoomVersion, pool: Pool, create: Event | None) -> list[Event]:
    """The events in reverse topological power ordering."""

    def rank(event_id: str) -> tuple[int, int, str]:
        event = pool.events[event_id]
        cited = {found.key: found for found in _cited(event, pool)}
        levels = PowerLevels(cited.get(_POWER_LEVELS), cited.get(auth.CREATE_KEY, create), room_version)
        return -levels.user(event.sender), event.origin_server_ts, event_id

    ranks = {event_id: rank(event_id) for event_id in event_ids}
    return [pool.events[event_id] for event_id in topological(event_ids, pool.auth_ids, ranks.__getitem__)]


def _by_mainline(event_ids: set[str], power_levels_id: str | None, pool: Pool) -> Generator[Request, Any, list[Event]]:
    """The events in the mainline ordering based on a power levels event (None: every position is infinite)."""
    position: dict[str, int] = {}
    while power_levels_id is not None and power_levels_id not in position:
        position[power_levels_id] = len(position)
        yield from pool.load([power_levels_id], with_chains=True)
        yield from pool.load(pool.auth_ids(power_levels_id), with_chains=True)
        power_levels_id = _power_levels_cited(power_levels_id, pool)
    infinite = len(position)
    found = _MainlinePositions(position, infinite, pool)
    events = [pool.events[event_id] for event_id in event_ids]
    return sorted(events, key=lambda event: (-found.of(event.event_id), event.origin_server_ts, event.event_id))


class _MainlinePositions:
    """Where on the mainline events stand, remembered for every power levels event passed on the way."""

    def __init__(self, mainline: Mapping[str, int], infinite: int, pool: Pool) -> None:
        self._known = dict(mainline)
        self._infinite = infinite
        self._pool = pool

    def of(self, event_id: str) -> int:
        """The position of the first mainline event among those that the event was sent under, itself not counted."""
        passed: list[str] = []
        current = _power_levels_cited(event_id, self._pool)
        while current is not None and current not in self._known:
            self._known[current] = self._infinite  # so that a cycle would end
            passed.append(current)
            current = _power_levels_cited(current, self._pool)
        position = self._infinite if current is None else self._known[current]
        for power_levels_id in passed:
            self._known[power_levels_id] = position
        return position


def _power_levels_cited(event_id: str, pool: Pool) -> str | None:
    event = pool.events.get(event_id)
    if event is None:
        return None
    return next((found.event_id for found in _cited(event, pool) if found.key == _POWER_LEVELS), None)


def _cited(event: Event, pool: Pool) -> list[Event]:
    """The state events that an event cites, as far as we have them."""
    found = (pool.events.get(event_id) for event_id in event.auth_event_ids)
    return [cited for cited in found if cited is not None and cited.is_state()]


class _PartialState:
    """The state that the iterative auth checks build: `resolved` over the unconflicted state, or over nothing."""

    def __init__(self, from_unconflicted: bool, pool: Pool, create: Event | None) -> None:
        self.resolved: dict[StateKey, str] = {}
        self._from_unconflicted = from_unconflicted
        self._pool = pool
        self._create = create

    def look_up(self, keys: Iterable[StateKey]) -> Generator[Request, Any, None]:
        """Has `get` know these entries."""
        if self._from_unconflicted:
            yield from self._pool.look_up(keys)

    def get(self, key: StateKey) -> str | None:
        found = self.resolved.get(key)
        return self._pool.entries.get(key) if found is None and self._from_unconflicted else found

    def apply(self, events: Sequence[Event]) -> Generator[Request, Any, None]:
        """The iterative auth checks: each event that the state allows becomes part of it."""
        needed = {key: None for event in events for key in auth.auth_types_for_event(event)}
        yield from self.look_up(needed)
        ids = (self.get(key) for key in needed)
        yield from self._pool.load(event_id for event_id in ids if event_id is not None)
        for event in events:
            try:
                auth.check(event, self._auth_state(event))
            except AuthError:
                continue
            self.resolved[event.key] = event.event_id

    def _auth_state(self, event: Event) -> dict[StateKey, Event]:
        """What decides about the event: the state and, where that has no entry, the event's own auth events."""
        keys = auth.auth_types_for_event(event)
        state = {}
        for cited in _cited(event, self._pool):
            if cited.key in keys and cited.event_id not in self._pool.rejected:
                state[cited.key] = cited
        if self._create is not None:
            state.setdefault(auth.CREATE_KEY, self._create)
        for key in keys:
            event_id = self.get(key)
            present = self._pool.events.get(event_id) if event_id is not None else None
            if present is not None:
                state[key] = present
        return state
