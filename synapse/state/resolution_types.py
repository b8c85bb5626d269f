"""What the parts of state resolution pass to one another: requests, answers, and events on their way."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from synapse.events.event import Event, StateKey


@dataclass(frozen=True, slots=True)
class NeedEvents:
    """Asks for events by id. `with_chains`: their whole auth chains will be asked for next."""

    ids: frozenset[str]
    with_chains: bool = False


@dataclass(frozen=True, slots=True)
class NeedInChain:
    """Asks which of these events are in the auth chain of the unconflicted state."""

    candidates: frozenset[str]


@dataclass(frozen=True, slots=True)
class NeedEntries:
    """Asks for these entries of the unconflicted state: a map from key to event id, of those that it has."""

    keys: frozenset[StateKey]


@dataclass(frozen=True, slots=True)
class Loaded:
    """The answer to NeedEvents. `rejected`: ids of those among the events that were rejected."""

    events: Mapping[str, Event]
    rejected: Collection[str] = frozenset()


Request = NeedEvents | NeedEntries | NeedInChain
Steps = Generator[Request, Any, dict[StateKey, str]]
"""A resolution under way: yields requests, is sent their answers, returns state."""


@dataclass(slots=True)
class Pool:
    """The events known so far, and those known to be missing; entries of the unconflicted state likewise.

    What is in conflict is not in the unconflicted state, and never asked for there.
    """

    conflicted: Set[StateKey] = frozenset()
    events: dict[str, Event] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    entries: dict[StateKey, str | None] = field(default_factory=dict)

    def look_up(self, keys: Iterable[StateKey]) -> Generator[Request, Any, None]:
        """Ask for those of the unconflicted entries that are not known yet, if any; then they are in `entries`."""
        wanted = frozenset(keys).difference(self.entries, self.conflicted)
        if wanted:
            found: Mapping[StateKey, str] = yield NeedEntries(wanted)
            self.entries.update((key, found.get(key)) for key in wanted)

    def load(self, ids: Iterable[str], with_chains: bool = False) -> Generator[Request, Any, None]:
        """Ask for those of the events that are not here yet, if any."""
        wanted = frozenset(ids).difference(self.events, self.missing)
        if not wanted:
            return
        loaded: Loaded = yield NeedEvents(wanted, with_chains)
        self.events.update(loaded.events)
        self.rejected.update(loaded.rejected)
        self.missing.update(wanted.difference(self.events))

    def load_chains(self, ids: Iterable[str]) -> Generator[Request, Any, None]:
        """Ask for the events and their whole auth chains, in as many rounds as it takes."""
        reached = set(ids)
        fresh = set(reached)
        while fresh:
            yield from self.load(fresh, with_chains=True)
            cited = {cited for event_id in fresh for cited in self.auth_ids(event_id)}
            fresh = cited - reached
            reached |= fresh

    def auth_ids(self, event_id: str) -> tuple[str, ...]:
        """What the event cites; nothing if it is missing."""
        event = self.events.get(event_id)
        return () if event is None else event.auth_event_ids
