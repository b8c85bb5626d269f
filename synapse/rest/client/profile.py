"""Endpoints for profiles. Client-server API, "Profiles"."""

from __future__ import annotations

from typing import Any

from synapse.handlers.profile import Profiles, check_owner
from synapse.http.server import Request, serves


class ProfileEndpoints:
    """`/profile/{userId}` and its fields."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    @serves("profile_get")
    async def get(self, request: Request, user_id: str) -> dict[str, Any]:
        return await self._profiles.get(user_id)

    @serves("profile_field_get")
    async def get_field(self, request: Request, user_id: str, field: str) -> dict[str, Any]:
        return await self._profiles.get_field(user_id, field)

    @serves("profile_field_set")
    async def set_field(self, request: Request, user_id: str, field: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        await self._profiles.set_field(user_id, field, request.json_object())
        return {}

    @serves("profile_field_delete")
    async def delete_field(self, request: Request, user_id: str, field: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        await self._profiles.delete_field(user_id, field)
        return {}
