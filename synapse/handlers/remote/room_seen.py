"""What a server says a room is, when it lets somebody in: checked before anything of it is believed.

The server may lie, and it may hand on what others got wrong. What makes the room (m.room.create, its version, who may
come in) must be right, or the answer is worth nothing; single events that are not right are left out, as they would be
wherever else they came from.

Server-server API, `PUT /send_join`; "Checks performed on receipt of a PDU".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.api.constants import EventTypes
from synapse.api.errors import AuthError
from synapse.api.room_versions import RoomVersion
from synapse.events import auth
from synapse.events.event import Event, StateKey
from synapse.federation.errors import BadAnswer
from synapse.storage.persist_events import Outlier

if TYPE_CHECKING:
    from synapse.federation.answers import Pdus
    from synapse.federation.receiving.checks import EventChecks
    from synapse.federation.receiving.pipeline import Pipeline

logger = logging.getLogger(__name__)

MAX_EVENTS: Final = 200_000
"""Events that a room's state and its auth chain may have together."""

MAX_FETCHED: Final = 100
"""Events that are asked for by themselves, because the server left them out."""

_CREATE: Final = (EventTypes.CREATE, "")

Fetch = Callable[[str], Awaitable[Any]]
"""Asks the server for an event by its id; raises FederationError."""


class RoomSeen(NamedTuple):
    """The state of a room before a join, and all that is to be kept with it, ancestors first."""

    state: dict[StateKey, Event]
    outliers: list[Outlier]


class RoomCheck:
    """Looks through what servers say of rooms."""

    def __init__(self, checks: EventChecks, pipeline: Pipeline) -> None:
        self._checks = checks
        self._pipeline = pipeline

    async def look(self, server: str, join: Event, state: Pdus, auth_chain: Pdus, fetch: Fetch) -> RoomSeen:
        """The room as `server` tells it, into which `join` leads. Raises BadAnswer where it cannot be so."""
        if len(state) + len(auth_chain) > MAX_EVENTS:
            raise BadAnswer(server, f"{server} tells of a room with more than {MAX_EVENTS} events in its state.")
        version, room_id = join.room_version, join.room_id
        present = await self._checks.check_many(state, version, room_id=room_id)
        chain = await self._checks.check_many(auth_chain.without(state), version, room_id=room_id)
        told = len(state)
        del state, auth_chain
        by_key = _by_key(server, present)
        _check_create(server, by_key.get(_CREATE), version)
        events = {event.event_id: event for event in (*chain, *present)}
        await self._complete(events, join, fetch)
        judged = await self._pipeline.auth_checked(list(events.values()), version)
        rejected = {event.event_id: why for event, why in judged if why is not None}
        kept = {event.event_id for event, _ in judged}
        seen = {k: e for k, e in by_key.items() if e.event_id in kept and e.event_id not in rejected}
        if len(seen) < told:
            logger.warning(
                "Of the state of %s as %s tells it, %d events are not right", room_id, server, told - len(seen)
            )
        _check_join(server, join, seen, events, rejected)
        return RoomSeen(seen, [Outlier(event, why) for event, why in judged])

    async def _complete(self, events: dict[str, Event], join: Event, fetch: Fetch) -> None:
        """Asks for auth events that are not among the events, within bounds."""
        cited = {cited for event in (join, *events.values()) for cited in event.auth_event_ids}
        missing = cited - events.keys()
        asked: set[str] = set()
        while missing and len(asked) < MAX_FETCHED:
            now = sorted(missing)[: MAX_FETCHED - len(asked)]
            asked.update(now)
            raws = [raw for event_id in now if (raw := await fetch(event_id)) is not None]
            for event in await self._checks.check_many(raws, join.room_version, room_id=join.room_id):
                if event.event_id in asked:
                    events[event.event_id] = event
                    missing.update(event.auth_event_ids)
            missing -= events.keys() | asked


def _by_key(server: str, state: Collection[Event]) -> dict[StateKey, Event]:
    found: dict[StateKey, Event] = {}
    for event in state:
        if not event.is_state():
            raise BadAnswer(server, f"{server} tells of a state with an event that is none.")
        if event.key in found:
            raise BadAnswer(server, f"{server} tells of a state with two events for {event.key}.")
        found[event.key] = event
    return found


def _check_create(server: str, create: Event | None, version: RoomVersion) -> None:
    if create is None:
        raise BadAnswer(server, f"{server} tells of a room without m.room.create.")
    if create.content.get("room_version", "1") != version.identifier:
        raise BadAnswer(server, f"{server} proposed a join for another version than the room has.")


def _check_join(
    server: str,
    join: Event,
    state: Mapping[StateKey, Event],
    events: Mapping[str, Event],
    rejected: Mapping[str, str],
) -> None:
    """The join must be allowed by what it cites, and by the state that it finds."""
    cited = [events[event_id] for event_id in join.auth_event_ids if event_id in events]
    try:
        if len(cited) < len(join.auth_event_ids):
            raise AuthError("The join cites events that the server does not have.")
        auth.check_auth_events(join, cited, rejected)
        auth.check(join, auth.auth_state_of(cited, state.get(_CREATE)))
        auth.check(join, state)
    except AuthError as error:
        raise BadAnswer(server, f"The room as {server} tells it does not allow the join: {error.message}") from error
