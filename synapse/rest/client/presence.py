"""`/presence/{userId}/status`. Client-server API, "Presence"."""

from __future__ import annotations

from typing import Any

from synapse.api.identifiers import parse_user_id
from synapse.handlers.presence import PresenceReading
from synapse.http.server import Request, serves


class PresenceEndpoints:
    """Reading and setting presence."""

    def __init__(self, presence: PresenceReading) -> None:
        self._presence = presence

    @serves("presence_get")
    async def get(self, request: Request, user_id: str) -> dict[str, Any]:
        parse_user_id(user_id)
        return await self._presence.get(request.user.user_id, user_id)

    @serves("presence_set")
    async def set(self, request: Request, user_id: str) -> dict[str, Any]:
        parse_user_id(user_id)
        await self._presence.set(request.user.user_id, request.user.device_id, user_id, request.json_object())
        return {}
