"""The endpoints that clients followed the server by before /sync: `/events`, `/initialSync`.

Client-server API, "Syncing" (deprecated endpoints).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.api.constants import Presence
from synapse.api.errors import guest_access_forbidden
from synapse.api.identifiers import parse_room_id
from synapse.handlers import event_stream, initial_sync
from synapse.handlers.event_stream import EventStream, Question
from synapse.handlers.initial_sync import InitialSync
from synapse.http.server import RawJson, Request, serves
from synapse.sync.tokens import StreamToken

if TYPE_CHECKING:
    from synapse.handlers.syncing_users import SyncingUsers


class OldSyncEndpoints:
    """`GET /events`, `GET /initialSync` and `GET /rooms/{roomId}/initialSync`.

    :param syncing: is told who follows everything, which makes them seem online.
    """

    def __init__(self, events: EventStream, initial: InitialSync, syncing: SyncingUsers) -> None:
        self._events = events
        self._initial = initial
        self._syncing = syncing

    @serves("events")
    async def events(self, request: Request) -> RawJson:
        user, start, room_id = request.user, request.arg("from"), request.arg("room_id")
        question = Question(
            user.user_id,
            user.device_id,
            StreamToken.parse(start, "from") if start else None,
            request.int_arg("timeout", event_stream.DEFAULT_TIMEOUT, 0, event_stream.MAX_TIMEOUT),
            None if room_id is None else parse_room_id(room_id),
            request.int_arg("limit", event_stream.LIMIT, 1, event_stream.LIMIT),
        )
        if question.room_id is not None:
            return RawJson(await self._events.follow(question))
        if user.is_guest:
            raise guest_access_forbidden("Guests may follow single rooms only; name one with the parameter 'room_id'.")
        with self._syncing.syncing(user.user_id, user.device_id, Presence.ONLINE):
            return RawJson(await self._events.follow(question))

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
