"""The endpoints that clients followed the server by before /sync: `/events`, `/initialSync`.

Client-server API, "Syncing" (deprecated endpoints).
"""

from __future__ import annotations

from synapse.api.identifiers import parse_room_id
from synapse.handlers import event_stream, initial_sync
from synapse.handlers.event_stream import EventStream
from synapse.handlers.initial_sync import InitialSync
from synapse.http.server import RawJson, Request, serves
from synapse.sync.tokens import StreamToken


class OldSyncEndpoints:
    """`GET /events`, `GET /initialSync` and `GET /rooms/{roomId}/initialSync`."""

    def __init__(self, events: EventStream, initial: InitialSync) -> None:
        self._events = events
        self._initial = initial

    @serves("events")
    async def events(self, request: Request) -> RawJson:
        start = request.arg("from")
        since = StreamToken.parse(start, "from") if start else None
        wait = request.int_arg("timeout", event_stream.DEFAULT_TIMEOUT, 0, event_stream.MAX_TIMEOUT)
        room_id = request.arg("room_id")
        room = None if room_id is None else parse_room_id(room_id)
        return RawJson(await self._events.follow(request.user.user_id, request.user.device_id, since, wait, room))

    @serves("initial_sync")
    async def initial_sync(self, request: Request) -> RawJson:
        limit = _limit(request)
        archived = request.bool_arg("archived")
        user = request.user
        return RawJson(await self._initial.everything(user.user_id, user.device_id, limit, archived))

    @serves("room_initial_sync")
    async def room_initial_sync(self, request: Request, room_id: str) -> RawJson:
        user = request.user
        limit = _limit(request)
        return RawJson(await self._initial.room(user.user_id, user.device_id, parse_room_id(room_id), limit))


def _limit(request: Request) -> int:
    return request.int_arg("limit", initial_sync.DEFAULT_LIMIT, 0, initial_sync.MAX_LIMIT)
