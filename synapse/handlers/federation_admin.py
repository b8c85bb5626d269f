"""What administrators see of other servers, and having one tried again at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import not_found, unknown
from synapse.api.identifiers import is_server_name

if TYPE_CHECKING:
    from synapse.federation.destinations import Destinations
    from synapse.storage.destinations_admin import DestinationsAdminStore, Selection


class FederationAdmin:
    """In any process."""

    def __init__(self, store: DestinationsAdminStore, destinations: Destinations) -> None:
        self._store = store
        self._destinations = destinations

    async def page(self, selection: Selection) -> dict[str, Any]:
        """Servers; `next_token` is missing on the last page."""
        total, found = await self._store.page(selection)
        answer = {"destinations": [each._asdict() for each in found], "total": total}
        return answer | _next(selection.offset, len(found), total)

    async def get(self, destination: str) -> dict[str, Any]:
        """One server. Raises 404."""
        found = await self._store.get(destination) if is_server_name(destination) else None
        if found is None:
            raise not_found("Nothing is known of a server of that name.")
        return found._asdict()

    async def rooms(self, destination: str, backwards: bool, offset: int, limit: int) -> dict[str, Any]:
        """The rooms that a server is in. Raises 404."""
        await self.get(destination)
        total, found = await self._store.rooms(destination, backwards, offset, limit)
        answer = {"rooms": [each._asdict() for each in found], "total": total}
        return answer | _next(offset, len(found), total)

    async def reset_connection(self, destination: str) -> dict[str, Any]:
        """Has a server that is left alone tried again. Raises 404, and 400 where there is no need."""
        await self.get(destination)
        if not await self._destinations.try_again(destination):
            raise unknown("This server is not left alone: there is no pause to be ended.", 400)
        return {}


def _next(offset: int, count: int, total: int) -> dict[str, Any]:
    return {"next_token": str(offset + count)} if count and offset + count < total else {}
