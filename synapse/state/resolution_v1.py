"""State resolution of room version 1. Known to be flawed, and kept as it is: a room's rules do not change.

Room version 1, "State resolution".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha1

from synapse.api.constants import EventTypes
from synapse.api.errors import AuthError
from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.state.resolution_types import Pool, Steps

_PASSES = (EventTypes.POWER_LEVELS, EventTypes.JOIN_RULES, EventTypes.MEMBER)
"""Types that affect authorisation, in the order in which their conflicts are resolved."""


def resolve_v1(conflicted: Sequence[Mapping[StateKey, str]]) -> Steps:
    """What resolves the conflict: entries to add to those that all states share. A key that some states lack is no
    conflict here."""
    candidates: dict[StateKey, set[str]] = {}
    for branch in conflicted:
        for key, event_id in branch.items():
            candidates.setdefault(key, set()).add(event_id)
    resolved = {key: min(ids) for key, ids in candidates.items() if len(ids) == 1}
    pool = Pool(candidates.keys())
    yield from pool.load(event_id for ids in candidates.values() for event_id in ids)
    disputed = {key: _present(ids, pool) for key, ids in candidates.items() if len(ids) > 1}
    keys = {key for events in disputed.values() for event in events for key in auth.auth_types_for_event(event)}
    yield from pool.look_up(keys)
    found = (resolved.get(key) or pool.entries.get(key) for key in keys)
    yield from pool.load(event_id for event_id in found if event_id is not None)
    for event_type in _PASSES:
        # All keys of a type are judged by the same state, so that their order does not matter.
        before = _State(dict(resolved), pool)
        for key, events in disputed.items():
            if key[0] == event_type and events:
                resolved[key] = _last_in_row(events, before).event_id
    state = _State(dict(resolved), pool)
    for key, events in disputed.items():
        if key[0] not in _PASSES:
            winner = _first_allowed(events, state)
            if winner is not None:
                resolved[key] = winner.event_id
    return resolved


class _State:
    """The state so far, with its events."""

    def __init__(self, resolved: dict[StateKey, str], pool: Pool) -> None:
        self._resolved, self._pool = resolved, pool

    def allows(self, event: Event, instead: Event | None = None) -> bool:
        """Whether the event passes the authorisation rules here, with `instead` in the place that is its own."""
        state: dict[StateKey, Event] = {}
        for key in auth.auth_types_for_event(event):
            event_id = self._resolved.get(key) or self._pool.entries.get(key)
            found = self._pool.events.get(event_id) if event_id is not None else None
            if found is not None:
                state[key] = found
        if instead is not None:
            state[instead.key] = instead
        try:
            auth.check(event, state)
        except AuthError:
            return False
        return True


def _present(event_ids: Iterable[str], pool: Pool) -> list[Event]:
    return [pool.events[event_id] for event_id in event_ids if event_id in pool.events]


def _digest(event: Event) -> bytes:
    return sha1(event.event_id.encode(), usedforsecurity=False).digest()


def _last_in_row(events: list[Event], state: _State) -> Event:
    """Ascending by depth, then descending by hash: each event replaces the one before it as long as that allows it."""
    ordered = sorted(sorted(events, key=_digest, reverse=True), key=lambda event: event.depth)
    winner = ordered[0]
    for event in ordered[1:]:
        if not state.allows(event, instead=winner):
            break
        winner = event
    return winner


def _first_allowed(events: list[Event], state: _State) -> Event | None:
    """The allowed event of the highest depth, and among those of the lowest hash."""
    for event in sorted(events, key=lambda event: (-event.depth, _digest(event))):
        if state.allows(event):
            return event
    return None
