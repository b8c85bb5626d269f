"""Endpoints by which other servers get events of rooms: single ones, state, history, what authorises them.

Server-server API, "Retrieving events", "Backfilling and retrieving missing events", "Retrieving event authorisation
information".
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from synapse.api.errors import missing_param
from synapse.federation.serving.history import MAX_BACKFILL, MAX_MISSING
from synapse.handlers.served_events import ServedEvents
from synapse.http.server import Answer, Request, serves

_DEFAULT_MISSING: Final = 10

_Count = Annotated[int, msgspec.Meta(ge=0)]


class MissingEvents(msgspec.Struct, frozen=True):
    """The body of `POST /get_missing_events/{roomId}`. Servers leave out what there is none of."""

    latest_events: list[str] = []
    earliest_events: list[str] = []
    limit: _Count = _DEFAULT_MISSING
    min_depth: int = 0


class FederationEvents:
    """`/event`, `/state`, `/state_ids`, `/event_auth`, `/backfill`, `/get_missing_events`."""

    def __init__(self, events: ServedEvents) -> None:
        self._events = events

    @serves("federation_event")
    async def event(self, request: Request, event_id: str) -> Answer:
        return await self._events.event(request.origin, event_id)

    @serves("federation_state")
    async def state(self, request: Request, room_id: str) -> Answer:
        event_id = request.required_arg("event_id")
        return await self._events.state(request.origin, room_id, event_id)

    @serves("federation_state_ids")
    async def state_ids(self, request: Request, room_id: str) -> Answer:
        event_id = request.required_arg("event_id")
        return await self._events.state_ids(request.origin, room_id, event_id)

    @serves("federation_event_auth")
    async def event_auth(self, request: Request, room_id: str, event_id: str) -> Answer:
        return await self._events.event_auth(request.origin, room_id, event_id)

    @serves("federation_backfill")
    async def backfill(self, request: Request, room_id: str) -> Answer:
        event_ids = request.args("v")
        if not event_ids:
            raise missing_param("v")
        request.required_arg("limit")
        limit = request.int_arg("limit", MAX_BACKFILL, minimum=1, maximum=MAX_BACKFILL)
        return await self._events.backfill(request.origin, room_id, event_ids, limit)

    @serves("federation_get_missing_events")
    async def get_missing_events(self, request: Request, room_id: str) -> Answer:
        wish = request.body_as(MissingEvents)
        latest, earliest, limit = wish.latest_events, wish.earliest_events, min(wish.limit, MAX_MISSING)
        return await self._events.missing(request.origin, room_id, latest, earliest, limit, wish.min_depth)
