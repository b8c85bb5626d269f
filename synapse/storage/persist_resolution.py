"""Where branches of a room meet: resolves their states for the writer, at a cost that grows with the conflict.

Theory of operation. The branches' state groups are compared by what changed since they parted (`differences`), so a
room of 10,000 members is never read whole. What resolution asks of the unconflicted state is looked up entry by entry.
Whether some event is in the auth chain of that state is found from the event upwards, by who cites it: what lies on a
branch alone is cited by few. Only where too many cite an event, and none of those looked at is in force, the whole
unconflicted state is walked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from synapse.events.event import Event, StateKey
from synapse.metrics import table
from synapse.state.groups import Delta
from synapse.state.resolution import Loaded, NeedEvents, resolve_conflict, run_async

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.storage.events import EventsStore
    from synapse.storage.persist_state import BatchState

_CITING: Final = 100
"""Events that cite one event, of which more are not looked at."""

_SEARCHED: Final = 2_000
"""Events that are looked at in all, before the other way is taken."""


MAX_DISPUTED: Final = 2_000
"""Entries on which branches of a room may disagree, to be resolved for an event of another server."""


class TooDisputed(Exception):
    """Branches disagree on more entries than are resolved."""


class Resolver:
    """Resolves the states of a batch."""

    def __init__(self, batch: BatchState, events: EventsStore) -> None:
        self._batch = batch
        self._events = events

    async def meet(self, version: RoomVersion, groups: Collection[int], base: int, most: int | None = None) -> Delta:
        """What turns the state of group `base` into the one in which branches with the states of `groups` meet.

        Raises `TooDisputed` where they disagree on more than `most` entries.
        """
        states = await self._batch.differences({*groups, base})
        branches = [states[group] for group in groups]
        own = states[base]
        agreed = {key: branches[0][key] for key in own if all(b[key] == branches[0][key] for b in branches)}
        merged: Delta = dict(agreed)
        if most is not None and len(own) - len(agreed) > most:
            raise TooDisputed
        if len(agreed) < len(own):
            table.EVENTS_RESOLUTIONS.inc()
            conflict = _Conflict(self._batch, self._events, base, agreed, own.keys() - agreed.keys())
            disputed = [{k: e for k, e in b.items() if k not in agreed and e is not None} for b in branches]
            steps = resolve_conflict(version, disputed)
            resolved = await run_async(steps, conflict.load, conflict.in_chain, conflict.entries)
            merged.update(dict.fromkeys(conflict.keys))
            merged.update(resolved)
        return {key: event_id for key, event_id in merged.items() if event_id != own.get(key)}


class _Conflict:
    """One resolution, and what it asks. The unconflicted state is that of `base`, but `agreed` where that has something
    to say, and without `keys`, which are in conflict."""

    def __init__(
        self,
        batch: BatchState,
        events: EventsStore,
        base: int,
        agreed: Mapping[StateKey, str | None],
        keys: Collection[StateKey],
    ) -> None:
        self.keys = keys
        self._batch = batch
        self._events = events
        self._base = base
        self._agreed = agreed

    async def load(self, request: NeedEvents) -> Loaded:
        new = self._batch.new
        events = {event_id: new[event_id] for event_id in request.ids if event_id in new}
        missing = [event_id for event_id in request.ids if event_id not in events]
        read = self._events.with_auth_chains if request.with_chains else self._events.get_many
        stored = await read(missing) if missing else {}
        events.update((event_id, found.event) for event_id, found in stored.items())
        rejected = {event_id for event_id, found in stored.items() if found.rejected is not None}
        return Loaded(events, rejected | self._batch.rejected.intersection(events))

    async def entries(self, keys: Collection[StateKey]) -> dict[StateKey, str]:
        known = {key: event_id for key in keys if (event_id := self._agreed.get(key)) is not None}
        others = {key for key in keys if key not in self._agreed and key not in self.keys}
        return {**known, **(await self._batch.entries(self._base, others) if others else {})}

    # -- auth chains -----------------------------------------------------------------------------------------------

    async def in_chain(self, candidates: frozenset[str]) -> Collection[str]:
        search = _Search(candidates)
        while search.frontier and search.looked_at <= _SEARCHED:
            citing = await self._citing(search.frontier)
            keys = {event_id: key for citers in citing.values() for event_id, key in citers.items()}
            present = await self.entries(set(keys.values()))
            search.step(citing, {event_id for event_id, key in keys.items() if present.get(key) == event_id})
        unclear = search.unclear.union(*search.frontier.values()) - search.found
        return search.found | (await self._by_walking(unclear) if unclear else set())

    async def _citing(self, event_ids: Collection[str]) -> dict[str, dict[str, StateKey]]:
        citing = await self._events.citing(event_ids, _CITING + 1)
        for event in self._batch.new.values():
            if event.is_state():
                for cited in event.auth_event_ids:
                    if cited in event_ids:
                        citing.setdefault(cited, {})[event.event_id] = event.key
        return citing

    async def _by_walking(self, candidates: Collection[str]) -> set[str]:
        state = {**await self._batch.ids(self._base), **self._agreed}
        sources = {e for key, e in state.items() if key not in self.keys and e is not None}
        found, stored = _through_new(sources, candidates, self._batch.new)
        return found | await self._events.in_auth_chains(stored, candidates)


class _Search:
    """The way from candidates up to those who cite them. `frontier` are the events reached last, each with the
    candidates that it leads to; `found` the candidates that something in force leads to."""

    def __init__(self, candidates: Collection[str]) -> None:
        self.frontier: dict[str, set[str]] = {candidate: {candidate} for candidate in candidates}
        self.found: set[str] = set()
        self.unclear: set[str] = set()
        self.looked_at = 0
        self._seen: dict[str, set[str]] = {candidate: {candidate} for candidate in candidates}

    def step(self, citing: Mapping[str, Mapping[str, StateKey]], in_force: Collection[str]) -> None:
        """One level up: who cites the frontier, and which of them are in the unconflicted state."""
        reached: dict[str, set[str]] = {}
        for cited, leads_to in self.frontier.items():
            citers = citing.get(cited, {})
            self.looked_at += len(citers)
            if any(event_id in in_force for event_id in citers):
                self.found |= leads_to
            elif len(citers) > _CITING:
                self.unclear |= leads_to
            else:
                for event_id in citers:
                    seen = self._seen.setdefault(event_id, set())
                    reached.setdefault(event_id, set()).update(leads_to - seen)
                    seen |= leads_to
        done = self.found | self.unclear
        self.frontier = {event_id: left for event_id, leads_to in reached.items() if (left := leads_to - done)}


def _through_new(sources: set[str], candidates: Collection[str], new: Mapping[str, Event]) -> tuple[set[str], set[str]]:
    """The candidates that the new ones among the sources, and among what those cite, cite; and the stored events in
    whose chains the others may be."""
    found: set[str] = set()
    stored: set[str] = set()
    queue = list(sources)
    seen = set(sources)
    while queue:
        event_id = queue.pop()
        if event_id not in new:
            stored.add(event_id)
            continue
        cited = set(new[event_id].auth_event_ids)
        found |= cited.intersection(candidates)
        queue += cited - seen
        seen |= cited
    return found, stored
