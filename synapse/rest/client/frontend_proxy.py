"""Presence on a frontend_proxy, which serves it only where presence is switched off: reading passes through to the main
process, and setting changes nothing.
"""

from __future__ import annotations

from typing import Any

from synapse.handlers.frontend_proxy import FrontendProxy
from synapse.handlers.presence_calls import parse_setting
from synapse.handlers.profile import check_owner
from synapse.http.server import Answer, Request, serves


class PresenceStub:
    """`/presence/{userId}/status` where nobody's presence is tracked."""

    def __init__(self, proxy: FrontendProxy) -> None:
        self._proxy = proxy

    @serves("presence_get")
    async def get(self, request: Request, user_id: str) -> Answer:
        return await self._proxy.forward(request)

    @serves("presence_set")
    async def set(self, request: Request, user_id: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        parse_setting(user_id, request.json_object())  # what is no presence is refused all the same
        return {}
