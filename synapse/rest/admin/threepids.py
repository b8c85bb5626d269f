"""`GET /_synapse/admin/v1/threepid/{medium}/users/{address}`: whose an address is."""

from __future__ import annotations

from typing import Any

from synapse.api.errors import not_found
from synapse.api.threepids import canonical
from synapse.http.server import Request, serves
from synapse.storage.threepids import ThreepidStore


class AdminThreepids:
    """Finds users by their addresses."""

    def __init__(self, store: ThreepidStore) -> None:
        self._store = store

    @serves("admin_threepid_owner")
    async def owner(self, request: Request, medium: str, address: str) -> dict[str, Any]:
        user_id = await self._store.owner(medium, canonical(medium, address))
        if user_id is None:
            raise not_found("No user of this server has that address.")
        return {"user_id": user_id}
