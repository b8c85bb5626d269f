"""What identity servers tell homeservers, and what these ask one another then. Server-server API, "Third-party
invites".
"""

from __future__ import annotations

from typing import Any

from synapse.handlers.doors.residence import Residence
from synapse.handlers.third_party_invites import Bound, Exchange, ThirdPartyInvites
from synapse.http.server import Request, serves


class ThirdPartyBound:
    """`/3pid/onbind`: an address has found its owner."""

    def __init__(self, invites: ThirdPartyInvites) -> None:
        self._invites = invites

    @serves("third_party_bound")
    async def bound(self, request: Request) -> dict[str, Any]:
        await self._invites.bound(request.body_as(Bound))
        return {}


class InviteExchange:
    """`/exchange_third_party_invite`."""

    def __init__(self, residence: Residence, invites: ThirdPartyInvites) -> None:
        self._residence = residence
        self._invites = invites

    @serves("exchange_third_party_invite")
    async def exchange(self, request: Request, room_id: str) -> dict[str, Any]:
        wanted = request.body_as(Exchange)
        await self._residence.version(request.origin, room_id)
        await self._invites.exchange(request.origin, room_id, wanted)
        return {}
