"""`/presence/{userId}/status`. Client-server API, "Presence"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.identifiers import parse_user_id
from synapse.handlers.presence import PresenceReading
from synapse.http.server import Answer, Request, serves

if TYPE_CHECKING:
    from synapse.handlers.frontend_proxy import FrontendProxy


class PresenceEndpoints:
    """Where presence is off, a frontend proxy stands in: it hands reading on to the main process and sets nothing."""

    def __init__(self, presence: PresenceReading, proxy: FrontendProxy | None = None) -> None:
        self._presence = presence
        self._proxy = proxy

    @serves("presence_get")
    async def get(self, request: Request, user_id: str) -> dict[str, Any] | Answer:
        if self._proxy is not None:
            return await self._proxy.forward(request)
        parse_user_id(user_id)
        return await self._presence.get(request.user.user_id, user_id)

    @serves("presence_set")
    async def set(self, request: Request, user_id: str) -> dict[str, Any]:
        parse_user_id(user_id)
        await self._presence.set(request.user.user_id, user_id, request.json_object())
        return {}
