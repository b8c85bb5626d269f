"""Endpoints that read a room: state, members, messages, what surrounds an event.

Client-server API, "Getting events for a room" and "Event context".
"""

from __future__ import annotations

from typing import Any

from synapse.api.errors import invalid_param
from synapse.api.filters import RoomEventFilter, parse_room_event_filter
from synapse.api.identifiers import parse_room_id
from synapse.handlers import context, pagination
from synapse.handlers.context import EventContext
from synapse.handlers.pagination import EVERYTHING, PageRequest, Pagination
from synapse.handlers.room_reading import RoomReading
from synapse.http import body as json_body
from synapse.http.server import RawJson, Request, serves
from synapse.sync.tokens import RoomToken
from synapse.util.storable import problem_of


class RoomReadingEndpoints:
    """`/rooms/{roomId}/state`, `/members`, `/joined_members` and `/event`."""

    def __init__(self, reading: RoomReading) -> None:
        self._reading = reading

    @serves("room_state")
    async def state(self, request: Request, room_id: str) -> RawJson:
        return RawJson(await self._reading.state(request.user.user_id, parse_room_id(room_id)))

    @serves("room_state_get")
    async def state_entry(self, request: Request, room_id: str, event_type: str, state_key: str) -> RawJson:
        whole = request.choice_arg("format", ("content", "event"), "content") == "event"
        room_id = parse_room_id(room_id)
        return RawJson(await self._reading.state_entry(request.user.user_id, room_id, event_type, state_key, whole))

    @serves("room_members")
    async def members(self, request: Request, room_id: str) -> RawJson:
        at = request.arg("at")
        return RawJson(
            await self._reading.members(
                request.user.user_id,
                parse_room_id(room_id),
                None if at is None else RoomToken.parse(at, "at"),
                request.arg("membership"),
                request.arg("not_membership"),
            )
        )

    @serves("room_joined_members")
    async def joined_members(self, request: Request, room_id: str) -> RawJson:
        return RawJson(await self._reading.joined_members([request.user.user_id], parse_room_id(room_id)))

    @serves("room_event")
    async def event(self, request: Request, room_id: str, event_id: str) -> RawJson:
        user = request.user
        return RawJson(await self._reading.event(user.user_id, user.device_id, parse_room_id(room_id), event_id))

    @serves("event")
    async def any_event(self, request: Request, event_id: str) -> RawJson:
        user = request.user
        return RawJson(await self._reading.any_event(user.user_id, user.device_id, event_id))


class MessagesEndpoint:
    """`GET /rooms/{roomId}/messages`."""

    def __init__(self, messages: Pagination) -> None:
        self._messages = messages

    @serves("room_messages")
    async def messages(self, request: Request, room_id: str) -> RawJson:
        wanted = room_event_filter(request)
        page = PageRequest(
            user_id=request.user.user_id,
            device_id=request.user.device_id,
            room_id=parse_room_id(room_id),
            backwards=request.choice_arg("dir", ("b", "f")) == "b",
            start=room_token(request, "from"),
            end=room_token(request, "to"),
            limit=request.int_arg("limit", wanted.limit, 1, pagination.MAX_LIMIT),
            filter=wanted,
        )
        return RawJson(await self._messages.messages(page))


class ContextEndpoint:
    """`GET /rooms/{roomId}/context/{eventId}`."""

    def __init__(self, events: EventContext) -> None:
        self._events = events

    @serves("room_context")
    async def context(self, request: Request, room_id: str, event_id: str) -> RawJson:
        user, room_id = request.user, parse_room_id(room_id)
        wanted = room_event_filter(request)
        limit = request.int_arg("limit", min(wanted.limit, context.MAX_LIMIT), 0, context.MAX_LIMIT)
        return RawJson(await self._events.around(user.user_id, user.device_id, room_id, event_id, limit, wanted))


def room_token(request: Request, name: str) -> RoomToken | None:
    """A token of the query; an empty one counts as none. Raises M_INVALID_PARAM."""
    text = request.arg(name)
    return RoomToken.parse(text, name) if text else None


def room_event_filter(request: Request) -> RoomEventFilter:
    """The query's `filter`, a JSON object. Raises M_NOT_JSON, M_INVALID_PARAM."""
    text = request.arg("filter")
    return parse_room_event_filter(filter_json(text)) if text else EVERYTHING


def filter_json(text: str) -> Any:
    """The JSON of a filter in the query; what it names can be looked for. Raises M_NOT_JSON, M_INVALID_PARAM."""
    value = json_body.decode(text.encode(), "The parameter 'filter'")
    if (problem := problem_of(value)) is not None:
        raise invalid_param(f"The filter cannot be used: {problem}.")
    return value
