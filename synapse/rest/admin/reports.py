"""Administrators' endpoints for what users have reported: `event_reports`, `room_reports`, `user_reports`."""

from __future__ import annotations

from typing import Any, Final

from synapse.api.errors import invalid_param
from synapse.handlers.reports import ReportsAdmin
from synapse.http.server import Request, serves
from synapse.storage.reports import EVENTS, ROOMS, USERS, Kind, Selection

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000

_KINDS: Final = {"event": EVENTS, "room": ROOMS, "user": USERS}


class AdminReports:
    """`/_synapse/admin/v1/{event,room,user}_reports[/{report_id}]`."""

    def __init__(self, reports: ReportsAdmin) -> None:
        self._reports = reports

    @serves("admin_event_reports", "admin_room_reports", "admin_user_reports")
    async def page(self, request: Request) -> dict[str, Any]:
        kind = _kind(request)
        selection = Selection(
            contains={name: text for name in kind.filters if (text := request.arg(name)) is not None},
            newest_first=request.choice_arg("dir", ("b", "f"), "b") == "b",
            offset=request.int_arg("from", 0),
            limit=request.int_arg("limit", DEFAULT_LIMIT, maximum=MAX_LIMIT),
        )
        return await self._reports.page(kind, selection)

    @serves("admin_event_report_get", "admin_room_report_get", "admin_user_report_get")
    async def get(self, request: Request, report_id: str) -> dict[str, Any]:
        return await self._reports.get(_kind(request), _number(report_id))

    @serves("admin_event_report_delete", "admin_room_report_delete", "admin_user_report_delete")
    async def delete(self, request: Request, report_id: str) -> dict[str, Any]:
        await self._reports.delete(_kind(request), _number(report_id))
        return {}


def _kind(request: Request) -> Kind:
    """Which reports an endpoint is about, as its name says: `admin_event_reports`."""
    return _KINDS[request.name.split("_")[1]]


def _number(report_id: str) -> int:
    if not (report_id.isascii() and report_id.isdigit() and len(report_id) <= 18):
        raise invalid_param("The id of a report is a whole number.")
    return int(report_id)
