"""Events in an order in which each comes after those it refers to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from synapse.events.event import Event

References = Callable[[Event], tuple[str, ...]]
"""What of an event counts as a reference."""


def predecessors_of(event: Event) -> tuple[str, ...]:
    return event.prev_event_ids


def auth_events_of(event: Event) -> tuple[str, ...]:
    return event.auth_event_ids


def ancestors_first(events: Iterable[Event], references: References) -> list[Event]:
    """The events, each once and after those of them that it refers to; otherwise in their order.

    Where ids are chosen by servers (room versions 1 and 2) events may refer to each other in a circle; such a circle is
    cut somewhere.
    """
    by_id = {event.event_id: event for event in events}
    ordered: dict[str, Event] = {}
    entered: set[str] = set()
    for first in by_id:
        pending = [first]
        while pending:
            event_id = pending[-1]
            if event_id in ordered:
                pending.pop()
                continue
            event = by_id[event_id]
            before = [each for each in references(event) if each in by_id and each not in entered]
            if event_id in entered or not before:
                entered.add(event_id)
                ordered[event_id] = event
                pending.pop()
            else:
                entered.add(event_id)
                pending += before
    return list(ordered.values())
