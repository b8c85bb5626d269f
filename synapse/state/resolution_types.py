"""What the parts of state resolution pass to one another: requests, answers, and events on their way."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Mapping
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
class Loaded:
    """The answer to NeedEvents. `rejected`: ids of those among the events that were rejected."""

    events: Mapping[str, Event]
    rejected: Collection[str] = frozenset()


Request = NeedEvents | NeedInChain
Steps = Generator[Request, Any, dict[StateKey, str]]
"""A resolution under way: yields requests, is sent their answers, returns state."""


@dataclass(slots=True)
class Pool:
    """The events known so far, and those known to be missing."""

    events: dict[str, Event] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)

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
