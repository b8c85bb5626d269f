"""Where other servers learn of users' devices and keys. Server-server API, "Device Management", "End-to-End
Encryption".
"""

from __future__ import annotations

from typing import Any

from synapse.handlers.edus.given_keys import GivenKeys
from synapse.http.server import Request, serves


class UserKeysEndpoints:
    """`/_matrix/federation/v1/user/`."""

    def __init__(self, keys: GivenKeys) -> None:
        self._keys = keys

    @serves("federation_user_devices")
    async def devices(self, request: Request, user_id: str) -> dict[str, Any]:
        return await self._keys.devices(request.origin, user_id)

    @serves("federation_user_keys_query")
    async def query(self, request: Request) -> dict[str, Any]:
        return await self._keys.query(request.json_object())

    @serves("federation_user_keys_claim")
    async def claim(self, request: Request) -> dict[str, Any]:
        return await self._keys.claim(request.json_object())
