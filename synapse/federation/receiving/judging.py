"""Check 4: do an event's own auth events allow it?

Server-server API, "Checks performed on receipt of a PDU", 4; room versions, "Authorization rules".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from synapse.api.constants import EventTypes
from synapse.api.errors import AuthError
from synapse.events import auth
from synapse.events.event import Event
from synapse.federation.receiving.faults import Unfit
from synapse.federation.receiving.order import ancestors_first, auth_events_of
from synapse.federation.receiving.work import Found
from synapse.util.concurrency import pause

if TYPE_CHECKING:
    from synapse.util.clock import Clock

AT_ONCE: Final = 100
"""Events that are judged in one turn of the reactor: some milliseconds."""

Find = Callable[[str], Found | None]
"""Gives an event by its id."""


def unknown_auth_events(event: Event, create_id: str | None, find: Find) -> list[str]:
    """What cannot be found of that which decides about the event."""
    cited = list(event.auth_event_ids)
    if create_id is not None and event.type != EventTypes.CREATE:
        cited.append(create_id)
    return [event_id for event_id in cited if find(event_id) is None]


def judge(event: Event, create_id: str | None, find: Find) -> str | None:
    """Why the event's auth events do not allow it; None where they do.

    `create_id` is that of the room's create event in room versions in which no event cites it. Raises Unfit where one
    of them cannot be found: nothing can be said of the event then.
    """
    missing = unknown_auth_events(event, create_id, find)
    if missing:
        raise Unfit(f"The event cites {missing[0]}, which this server cannot get.")
    found = [each for event_id in event.auth_event_ids if (each := find(event_id)) is not None]
    create = None
    if create_id is not None and event.type != EventTypes.CREATE:
        create = find(create_id)
    try:
        if create is not None and create.rejected is not None:
            raise AuthError("The m.room.create event of the room was rejected.")
        cited = [each.event for each in found]
        auth.check_auth_events(event, cited, {each.event.event_id for each in found if each.rejected is not None})
        auth.check(event, auth.auth_state_of(cited, None if create is None else create.event))
    except AuthError as error:
        return error.message
    return None


async def judge_many(
    clock: Clock, events: Iterable[Event], create_id: str | None, find: Find
) -> list[tuple[Event, str | None]]:
    """Judge events that may cite each other: those that are cited before those that cite them, each with the reason why
    it is not allowed. What cites something that cannot be found is left out. Others have their turns meanwhile.
    """
    judged: dict[str, Found] = {}

    def find_any(event_id: str) -> Found | None:
        return judged.get(event_id) or find(event_id)

    results: list[tuple[Event, str | None]] = []
    for number, event in enumerate(_order_to_judge(events), start=1):
        if number % AT_ONCE == 0:
            await pause(clock)
        try:
            rejected = judge(event, create_id, find_any)
        except Unfit:
            continue
        judged[event.event_id] = Found(event, rejected)
        results.append((event, rejected))
    return results


def _order_to_judge(events: Iterable[Event]) -> list[Event]:
    """Events such that those that are cited come first; the create event, which need not be cited, first of all."""
    return ancestors_first(sorted(events, key=lambda event: event.type != EventTypes.CREATE), auth_events_of)
