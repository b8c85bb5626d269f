"""What identity servers tell homeservers. Server-server API, "Third-party invites"."""

from __future__ import annotations

from typing import Any

from synapse.handlers.third_party_invites import Bound, ThirdPartyInvites
from synapse.http.server import Request, serves


class ThirdPartyBound:
    """`/3pid/onbind`: an address has found its owner."""

    def __init__(self, invites: ThirdPartyInvites) -> None:
        self._invites = invites

    @serves("third_party_bound")
    async def bound(self, request: Request) -> dict[str, Any]:
        await self._invites.bound(request.body_as(Bound))
        return {}
