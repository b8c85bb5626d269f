"""State resolution: which state a room has where the DAG's branches disagree.

Theory of operation. Resolving is a pure computation that finds out on the way which events it needs, so it is written
as a generator: it yields a request, is sent the answer, and returns the resolved state. The caller does the loading,
from a database in a transaction, from a cache, asynchronously or not (`run` and `run_async` drive it). Three requests
exist:

    NeedEvents(ids, with_chains)  answered by Loaded(events, rejected); events that nobody has are left out. The answer
                                  may hold more than was asked; with `with_chains`, adding the events' auth chains
                                  saves rounds.
    NeedInChain(candidates)       answered by those of the candidates that are in the auth chain of any event of the
                                  *unconflicted* state (among what one cites, what that cites, and so on).
    NeedEntries(keys)             answered by the entries of the unconflicted state that have these keys.

What is not in conflict is never loaded, apart from the few entries that authorise what is: the cost grows with the
conflict, not with the room. A caller that knows the differences between its states calls `resolve_conflict`; one that
holds whole states calls `resolve`, which compares them and answers NeedEntries itself.

The algorithms are in `resolution_v1` and `resolution_v2`. Room versions 1, 2 and 12, "State resolution".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from synapse.api.room_versions import RoomVersion, StateResolution
from synapse.events.event import StateKey
from synapse.state.resolution_types import Loaded, NeedEntries, NeedEvents, NeedInChain, Request, Steps
from synapse.state.resolution_v1 import resolve_v1
from synapse.state.resolution_v2 import resolve_v2

__all__ = [
    "Loaded",
    "NeedEntries",
    "NeedEvents",
    "NeedInChain",
    "Request",
    "Steps",
    "resolve",
    "resolve_conflict",
    "run",
    "run_async",
    "separate",
]

StateMap = Mapping[StateKey, str]


def resolve(room_version: RoomVersion, state_sets: Sequence[StateMap]) -> Steps:
    """The resolution of one or more room states, each a map from (type, state key) to event id. Returns such a map."""
    unconflicted, conflicted = separate(state_sets)
    if not any(conflicted):
        return unconflicted
    steps = resolve_conflict(room_version, conflicted)
    answer: Any = None
    while True:
        try:
            request = steps.send(answer)
        except StopIteration as done:
            return {**unconflicted, **done.value}
        if isinstance(request, NeedEntries):
            answer = {key: unconflicted[key] for key in request.keys if key in unconflicted}
        else:
            answer = yield request


def resolve_conflict(room_version: RoomVersion, conflicted: Sequence[StateMap]) -> Steps:
    """The same where the conflict is known already: each map holds what is in one of the states and not in all.

    Returns what is to be added to the entries that all states share.
    """
    if room_version.state_resolution is StateResolution.V1:
        return (yield from resolve_v1(conflicted))
    return (yield from resolve_v2(room_version, conflicted))


def separate(state_sets: Sequence[StateMap]) -> tuple[dict[StateKey, str], list[dict[StateKey, str]]]:
    """The unconflicted state map, and for each state the entries that are not in it."""
    first = state_sets[0]
    keys: set[StateKey] = set()
    for other in state_sets[1:]:
        if other is not first:
            # The views compare in C; what remains is as large as the difference.
            keys.update(key for key, _event_id in first.items() ^ other.items())
    if not keys:
        return dict(first), [{} for _state in state_sets]
    conflicted = [{key: state[key] for key in keys if key in state} for state in state_sets]
    unconflicted = dict(first)
    for key in keys:
        unconflicted.pop(key, None)
    return unconflicted, conflicted


def run(
    steps: Steps,
    load: Callable[[NeedEvents], Loaded],
    in_chain: Callable[[frozenset[str]], Collection[str]],
    entries: Callable[[frozenset[StateKey]], StateMap] | None = None,
) -> dict[StateKey, str]:
    """Drive a resolution with functions that answer at once. `entries` is for `resolve_conflict`."""
    try:
        request = next(steps)
        while True:
            if isinstance(request, NeedEvents):
                request = steps.send(load(request))
            elif isinstance(request, NeedEntries):
                assert entries is not None
                request = steps.send(entries(request.keys))
            else:
                request = steps.send(in_chain(request.candidates))
    except StopIteration as done:
        result: dict[StateKey, str] = done.value
        return result


async def run_async(
    steps: Steps,
    load: Callable[[NeedEvents], Awaitable[Loaded]],
    in_chain: Callable[[frozenset[str]], Awaitable[Collection[str]]],
    entries: Callable[[frozenset[StateKey]], Awaitable[StateMap]],
) -> dict[StateKey, str]:
    """Drive a resolution with functions whose answers are awaited."""
    try:
        request = next(steps)
        while True:
            if isinstance(request, NeedEvents):
                request = steps.send(await load(request))
            elif isinstance(request, NeedEntries):
                request = steps.send(await entries(request.keys))
            else:
                request = steps.send(await in_chain(request.candidates))
    except StopIteration as done:
        result: dict[StateKey, str] = done.value
        return result
