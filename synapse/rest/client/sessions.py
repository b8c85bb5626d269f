"""Endpoints for accounts and sessions: registering, logging in and out, and who is logged in.

Client-server API, "Account registration", "Login", "Current account information".
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from synapse.api.constants import LoginTypes
from synapse.api.errors import bad_json
from synapse.handlers.auth import Authenticator
from synapse.handlers.devices import Devices
from synapse.handlers.guest_upgrade import GuestUpgrade
from synapse.handlers.login import Login
from synapse.handlers.new_sessions import DeviceRequest, LoggedIn
from synapse.handlers.passwords import check_acceptable
from synapse.handlers.refresh import Refresh, Refreshed
from synapse.handlers.registration import Registration
from synapse.handlers.ui_auth import Operation, UiAuth
from synapse.http.body import convert
from synapse.http.server import Request, serves
from synapse.storage.access_tokens import AccessTokenStore

_FLOWS: Final = [[LoginTypes.DUMMY]]


class RegisterBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `POST /register`, without `auth`."""

    username: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool = False
    guest_access_token: str | None = None  # of the guest whose account is to become a full one
    refresh_token: bool = False  # whether the client could use one; it is not obliged to get one

    def device(self) -> DeviceRequest | None:
        if self.inhibit_login:
            return None
        return DeviceRequest(device_id=self.device_id, initial_device_display_name=self.initial_device_display_name)


class Register:
    """`/register`."""

    def __init__(self, registration: Registration, guests: GuestUpgrade, ui_auth: UiAuth) -> None:
        self._registration = registration
        self._guests = guests
        self._ui_auth = ui_auth

    @serves("register")
    async def register(self, request: Request) -> LoggedIn:
        body = request.json_object(allow_empty=True)
        if request.choice_arg("kind", ("user", "guest"), "user") == "guest":
            name = body.get("initial_device_display_name")
            if name is not None and not isinstance(name, str):
                raise bad_json("The field 'initial_device_display_name' must be a string.")
            return await self._registration.register_guest(name)
        self._registration.check_enabled()
        await self._check(convert(body, RegisterBody), request)
        operation = Operation("POST", "register", "register an account", None, password="password")
        proven = await self._ui_auth.check(operation, body, _FLOWS, request)
        wanted = convert(proven.body, RegisterBody)
        hash_, device, refresh = proven.password_hash, wanted.device(), wanted.refresh_token
        if wanted.guest_access_token is not None:
            user_id = await self._guests.check(wanted.username, wanted.guest_access_token, request)
            return await self._guests.upgrade(user_id, hash_, device, refresh=refresh)
        return await self._registration.register(wanted.username, hash_, device, refresh=refresh)

    async def _check(self, body: RegisterBody, request: Request) -> None:
        """Whatever is wrong is said before the client is sent through the stages."""
        if body.guest_access_token is not None:
            await self._guests.check(body.username, body.guest_access_token, request)
        elif body.username is not None:
            await self._registration.check_available(body.username)
        if body.password is not None:
            check_acceptable(body.password)

    @serves("register_available")
    async def available(self, request: Request) -> dict[str, Any]:
        self._registration.check_enabled()
        await self._registration.check_available(request.required_arg("username"))
        return {"available": True}


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
