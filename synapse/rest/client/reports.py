"""Endpoints for reporting events, rooms and users. Client-server API, "Reporting Content"."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from synapse.api.identifiers import parse_event_id, parse_room_id
from synapse.handlers.reports import Reports
from synapse.http.server import Request, serves


class EventReport(msgspec.Struct, frozen=True):
    """The body for an event. `score`, from -100 (most offensive) to 0, is what clients sent before Matrix 1.18."""

    reason: str | None = None
    score: Annotated[int, msgspec.Meta(ge=-100, le=0)] | None = None


class Report(msgspec.Struct, frozen=True):
    """The body for a room or a user; the reason may be blank."""

    reason: str


class ReportEndpoints:
    """`/rooms/{roomId}/report/{eventId}`, `/rooms/{roomId}/report`, `/users/{userId}/report`."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    @serves("report_event")
    async def event(self, request: Request, room_id: str, event_id: str) -> dict[str, Any]:
        body = request.body_as(EventReport)
        room_id, event_id = parse_room_id(room_id), parse_event_id(event_id)
        await self._reports.event(request.user.user_id, room_id, event_id, body.reason, body.score)
        return {}

    @serves("report_room")
    async def room(self, request: Request, room_id: str) -> dict[str, Any]:
        reason = request.body_as(Report).reason
        await self._reports.room(request.user.user_id, parse_room_id(room_id), reason)
        return {}

    @serves("report_user")
    async def user(self, request: Request, user_id: str) -> dict[str, Any]:
        await self._reports.user(request.user.user_id, user_id, request.body_as(Report).reason)
        return {}
