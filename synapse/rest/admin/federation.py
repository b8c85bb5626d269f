"""`/_synapse/admin/v1/federation/destinations[/{destination}[/rooms]]` and `…/reset_connection`."""

from __future__ import annotations

from typing import Any, Final

from synapse.handlers.federation_admin import FederationAdmin
from synapse.http.server import Request, serves
from synapse.storage.destinations_admin import ORDERS, Selection

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000
MAX_OFFSET: Final = 10_000_000


class AdminFederation:
    """Other servers, for administrators."""

    def __init__(self, admin: FederationAdmin) -> None:
        self._admin = admin

    @serves("admin_destinations")
    async def page(self, request: Request) -> dict[str, Any]:
        selection = Selection(
            contains=request.arg("destination") or "",
            order=request.choice_arg("order_by", tuple(ORDERS), "destination"),
            backwards=_backwards(request),
            offset=request.int_arg("from", 0, maximum=MAX_OFFSET),
            limit=request.int_arg("limit", DEFAULT_LIMIT, maximum=MAX_LIMIT),
        )
        return await self._admin.page(selection)

    @serves("admin_destination")
    async def get(self, request: Request, destination: str) -> dict[str, Any]:
        return await self._admin.get(destination)

    @serves("admin_destination_rooms")
    async def rooms(self, request: Request, destination: str) -> dict[str, Any]:
        offset = request.int_arg("from", 0, maximum=MAX_OFFSET)
        limit = request.int_arg("limit", DEFAULT_LIMIT, maximum=MAX_LIMIT)
        return await self._admin.rooms(destination, _backwards(request), offset, limit)

    @serves("admin_destination_reset")
    async def reset(self, request: Request, destination: str) -> dict[str, Any]:
        return await self._admin.reset_connection(destination)


def _backwards(request: Request) -> bool:
    return request.choice_arg("dir", ("f", "b"), "f") == "b"
