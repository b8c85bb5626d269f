"""Endpoints for accounts and sessions: logging in and out, and who is logged in.

Client-server API, "Login", "Current account information".
"""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.handlers.auth import Authenticator
from synapse.handlers.devices import Devices
from synapse.handlers.login import Login
from synapse.handlers.new_sessions import LoggedIn
from synapse.handlers.refresh import Refresh, Refreshed
from synapse.http.server import Request, serves
from synapse.storage.access_tokens import AccessTokenStore


class RefreshBody(msgspec.Struct, frozen=True):
    """The body of `POST /refresh`."""

    refresh_token: str


class Sessions:
    """`/login`, `/refresh`, `/logout` and `/account/whoami`."""

    def __init__(
        self,
        login: Login,
        refresh: Refresh,
        devices: Devices,
        tokens: AccessTokenStore,
        authenticator: Authenticator,
    ) -> None:
        self._login = login
        self._refresh = refresh
        self._devices = devices
        self._tokens = tokens
        self._authenticator = authenticator

    @serves("login_flows")
    async def flows(self, request: Request) -> dict[str, Any]:
        return {"flows": self._login.flows()}

    @serves("login")
    async def login(self, request: Request) -> LoggedIn:
        return await self._login.login(request.json_object(), request)

    @serves("refresh")
    async def refresh(self, request: Request) -> Refreshed:
        return await self._refresh.refresh(request.body_as(RefreshBody).refresh_token)

    @serves("logout")
    async def logout(self, request: Request) -> dict[str, Any]:
        user = request.user
        if user.device_id is not None:
            await self._devices.delete(user.user_id, [user.device_id])
        elif user.token_id is not None:
            await self._authenticator.forget(await self._tokens.revoke_deviceless(user.token_id))
        return {}

    @serves("logout_all")
    async def logout_all(self, request: Request) -> dict[str, Any]:
        await self._devices.delete(request.user.user_id, None)
        return {}

    @serves("whoami")
    async def whoami(self, request: Request) -> dict[str, Any]:
        user = request.user
        answer: dict[str, Any] = {"user_id": user.user_id, "is_guest": user.is_guest}
        if user.device_id is not None:
            answer["device_id"] = user.device_id
        return answer
