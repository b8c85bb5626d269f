"""Letting a user replace their cross-signing keys without a proof: for those who cannot prove who they are by what the
server asks for, and of whose identity the administrator has made sure.
"""

from __future__ import annotations

from synapse.api.identifiers import parse_user_id
from synapse.handlers.cross_signing import CrossSigning
from synapse.http.server import Request, serves


class AdminCrossSigning:
    """Opens the window of ten minutes."""

    def __init__(self, keys: CrossSigning) -> None:
        self._keys = keys

    @serves("admin_allow_cross_signing_replacement")
    async def allow(self, request: Request, user_id: str) -> dict[str, int]:
        parse_user_id(user_id)
        return {"updatable_without_uia_before_ms": await self._keys.allow_replacement(user_id)}
