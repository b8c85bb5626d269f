"""Endpoints for profiles. Client-server API, "Profiles"."""

from __future__ import annotations

from typing import Any

from synapse.api.errors import guest_access_forbidden
from synapse.handlers.profile import Profiles, check_owner
from synapse.http.server import Request, serves


class ProfileEndpoints:
    """`/profile/{userId}` and its fields."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles

    @serves("profile_get")
    async def get(self, request: Request, user_id: str) -> dict[str, Any]:
        await self._profiles.check_may_look(request.requester, user_id)
        return await self._profiles.get(user_id)

    @serves("profile_field_get")
    async def get_field(self, request: Request, user_id: str, field: str) -> dict[str, Any]:
        await self._profiles.check_may_look(request.requester, user_id)
        return await self._profiles.get_field(user_id, field)

    @serves("profile_field_set")
    async def set_field(self, request: Request, user_id: str, field: str) -> dict[str, Any]:
        _check_changer(request, user_id, field)
        await self._profiles.set_field(user_id, field, request.json_object())
        return {}

    @serves("profile_field_delete")
    async def delete_field(self, request: Request, user_id: str, field: str) -> dict[str, Any]:
        _check_changer(request, user_id, field)
        await self._profiles.delete_field(user_id, field)
        return {}


def _check_changer(request: Request, user_id: str, field: str) -> None:
    """Raises 403 for the profiles of others; guests have a display name, and nothing else to change."""
    check_owner(request.user.user_id, user_id)
    if request.user.is_guest and field != "displayname":
        raise guest_access_forbidden("Guests may change nothing of their profile but the display name.")
