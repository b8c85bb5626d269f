"""Endpoints about how events of a room hang together: relations, threads, and what was said at a certain time.

Client-server API, "Relationships API", "Threading" and "Getting events for a room".
"""

from __future__ import annotations

from typing import Final

from synapse.api.errors import missing_param
from synapse.api.identifiers import parse_event_id, parse_room_id
from synapse.handlers import relations, threads
from synapse.handlers.nearest_event import NearestEvent
from synapse.handlers.pagination import PageRequest
from synapse.handlers.relations import Relations, RelationsRequest
from synapse.handlers.threads import Threads
from synapse.http.server import Json, RawJson, Request, serves
from synapse.rest.client.room_reading import room_token

_LATEST: Final = 2**53


class RelationsEndpoints:
    """`GET /rooms/{roomId}/relations/{eventId}`, also by type of relation and of event."""

    def __init__(self, relations: Relations) -> None:
        self._relations = relations

    @serves("room_relations")
    async def relations(self, request: Request, room_id: str, event_id: str, rel_type: str) -> RawJson:
        return await self._answer(request, room_id, event_id, rel_type, None)

    @serves("room_relations_of_type")
    async def relations_of_type(
        self, request: Request, room_id: str, event_id: str, rel_type: str, event_type: str
    ) -> RawJson:
        return await self._answer(request, room_id, event_id, rel_type, event_type)

    async def _answer(
        self, request: Request, room_id: str, event_id: str, rel_type: str, event_type: str | None
    ) -> RawJson:
        page = PageRequest(
            user_id=request.user.user_id,
            device_id=request.user.device_id,
            room_id=parse_room_id(room_id),
            backwards=request.choice_arg("dir", ("b", "f"), "b") == "b",
            start=room_token(request, "from"),
            end=room_token(request, "to"),
            limit=request.int_arg("limit", relations.DEFAULT_LIMIT, 1, relations.MAX_LIMIT),
        )
        recurse = request.bool_arg("recurse") if request.arg("recurse") is not None else None
        wanted = RelationsRequest(page, parse_event_id(event_id), rel_type or None, event_type, recurse)
        return RawJson(await self._relations.of(wanted))


class ThreadsEndpoint:
    """`GET /rooms/{roomId}/threads`."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads

    @serves("room_threads")
    async def threads(self, request: Request, room_id: str) -> RawJson:
        participated = request.choice_arg("include", ("all", "participated"), "all") == "participated"
        limit = request.int_arg("limit", threads.DEFAULT_LIMIT, 1, threads.MAX_LIMIT)
        start = room_token(request, "from")
        user, room_id = request.user, parse_room_id(room_id)
        return RawJson(
            await self._threads.of(
                user.user_id, user.device_id, room_id, participated=participated, start=start, limit=limit
            )
        )


class TimestampEndpoint:
    """`GET /rooms/{roomId}/timestamp_to_event`."""

    def __init__(self, nearest: NearestEvent) -> None:
        self._nearest = nearest

    @serves("room_timestamp_to_event")
    async def timestamp_to_event(self, request: Request, room_id: str) -> Json:
        timestamp = request.int_arg("ts", None, -_LATEST, _LATEST)
        if timestamp is None:
            raise missing_param("ts")
        backwards = request.choice_arg("dir", ("f", "b")) == "b"
        row = await self._nearest.find(request.user.user_id, parse_room_id(room_id), timestamp, backwards=backwards)
        return {"event_id": row.event_id, "origin_server_ts": row.origin_server_ts}
