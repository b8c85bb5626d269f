"""The state where branches meet some of which are known from other servers' word alone.

The writer resolves what it knows, by state groups. Here a branch may be a whole state that another server has told, so
whole states are compared; it happens only where a room's history has a gap.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from synapse.events.event import Event, StateKey
from synapse.federation.receiving.faults import Unfit
from synapse.state.resolution import Loaded, NeedEvents, resolve, run_async, separate

if TYPE_CHECKING:
    from synapse.federation.receiving.work import Work
    from synapse.state.store import StateReader
    from synapse.storage.events import EventsStore

MAX_CONFLICT: Final = 5_000
"""Entries on which branches may disagree."""

StateIds = dict[StateKey, str]


class Meeting:
    """Resolves. Everything that the states refer to is stored."""

    def __init__(self, server_name: str, groups: StateReader, events: EventsStore) -> None:
        self.server_name = server_name
        self._groups = groups
        self._events = events

    async def meet(self, work: Work, event: Event, states: Sequence[Mapping[StateKey, str]]) -> StateIds:
        """The state before an event: where `states` and those after its predecessors in the room's graph meet. Raises
        Unfit where they disagree about too much."""
        groups = {
            stored.state_group
            for event_id in event.prev_event_ids
            if (stored := work.stored.get(event_id)) is not None and stored.state_group is not None
        }
        branches = [*states, *[await self._groups.at_group_ids(group) for group in sorted(groups)]]
        unconflicted, conflicted = separate(branches)
        disputed = {key for branch in conflicted for key in branch}
        if not disputed:
            return unconflicted
        if len(disputed) > MAX_CONFLICT:
            raise Unfit("The branches before the event disagree about more than this server can resolve.")
        agreed = list(unconflicted.values())

        async def in_chain(candidates: frozenset[str]) -> Collection[str]:
            return await self._events.in_auth_chains(agreed, candidates)

        async def entries(keys: frozenset[StateKey]) -> StateIds:
            return {key: unconflicted[key] for key in keys if key in unconflicted}

        return await run_async(resolve(work.version, branches), self._load, in_chain, entries)

    async def _load(self, request: NeedEvents) -> Loaded:
        read = self._events.with_auth_chains if request.with_chains else self._events.get_many
        stored = await read(request.ids)
        rejected = {event_id for event_id, each in stored.items() if each.rejected is not None}
        return Loaded({event_id: each.event for event_id, each in stored.items()}, rejected)
