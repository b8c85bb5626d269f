"""Endpoints for making an account, and for asking beforehand whether that could succeed.

Client-server API, "Account registration and management", "Guest Access".
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from synapse.api.app_services import AppServices
from synapse.api.constants import LoginTypes
from synapse.api.errors import MatrixError, bad_json, missing_param
from synapse.handlers.guest_upgrade import GuestUpgrade
from synapse.handlers.login_kinds.app_service import service_of
from synapse.handlers.new_sessions import DeviceRequest, LoggedIn
from synapse.handlers.password_policy import PasswordPolicy
from synapse.handlers.registration import Registration, proofs_of
from synapse.handlers.registration_tokens import RegistrationTokens
from synapse.handlers.ui_auth import Flows, Operation, UiAuth, continues, used_already
from synapse.http.body import convert
from synapse.http.ratelimit import RateLimits
from synapse.http.server import Request, serves
from synapse.util.clock import Clock

ANSWERED_AGAIN_MS: Final = 10 * 60 * 1000
"""For how long the last step of a registration may be repeated by who did not hear of its success."""

_OPERATION: Final = Operation(
    *("POST", "register", "register an account", None), password="password", keeps_session=True, takes_any=True
)


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
    """`/register`, `/register/available`.

    :param flows: what those who register have to prove.
    """

    def __init__(
        self,
        registration: Registration,
        guests: GuestUpgrade,
        app_services: AppServices,
        ui_auth: UiAuth,
        flows: Flows,
        policy: PasswordPolicy,
        limits: RateLimits,
        clock: Clock,
    ) -> None:
        self._registration = registration
        self._app_services = app_services
        self._guests = guests
        self._ui_auth = ui_auth
        self._flows = flows
        self._policy = policy
        self._limits = limits
        self._clock = clock

    @serves("register")
    async def register(self, request: Request) -> LoggedIn:
        body = request.json_object(allow_empty=True)
        is_guest = request.choice_arg("kind", ("user", "guest"), "user") == "guest"
        if is_guest or not continues(body):
            asker = request.requester
            self._limits.check("rc_registration", request.client_ip if asker is None else asker.user_id)
        if is_guest:
            name = body.get("initial_device_display_name")
            if name is not None and not isinstance(name, str):
                raise bad_json("The field 'initial_device_display_name' must be a string.")
            return await self._registration.register_guest(name)
        wanted = convert(body, RegisterBody)
        if body.get("type") == LoginTypes.APPLICATION_SERVICE:
            return await self._register_for_service(wanted, request)
        self._registration.check_enabled()
        earlier = await self._earlier(body)
        if earlier is None:
            try:
                await self._check(wanted, request)
            except MatrixError:
                # The same step may have been taken at the same time by another process.
                if (earlier := await self._earlier(body)) is None:
                    raise
        proven = await self._ui_auth.check(_OPERATION, body, self._flows, request)
        wanted = convert(proven.body, RegisterBody)
        device, refresh = wanted.device(), wanted.refresh_token
        if earlier is not None:
            await self._registration.check_unchanged(earlier, proven.password_hash)
            return await self._registration.log_in_again(earlier, device, refresh=refresh)
        proofs = proofs_of(proven.session_id, proven.proofs)
        if wanted.guest_access_token is not None:
            user_id = await self._guests.check(wanted.username, wanted.guest_access_token, request)
            return await self._guests.upgrade(user_id, proven.password_hash, device, refresh=refresh, proofs=proofs)
        return await self._registration.register(
            wanted.username, proven.password_hash, device, refresh=refresh, proofs=proofs
        )

    async def _register_for_service(self, wanted: RegisterBody, request: Request) -> LoggedIn:
        """Application-service API, "Server admin style permissions": no stages, no password."""
        service = service_of(self._app_services, request)
        if wanted.username is None:
            raise missing_param("username")
        device, refresh = wanted.device(), wanted.refresh_token
        return await self._registration.register(
            wanted.username, None, device, refresh=refresh, app_service_id=service.id
        )

    async def _earlier(self, body: dict[str, Any]) -> str | None:
        """The account that the request's session has made already, just now. Raises 400 for one made long ago."""
        auth = body.get("auth")
        session_id = auth.get("session") if isinstance(auth, dict) else None
        if not isinstance(session_id, str):
            return None
        remembered = (await self._ui_auth.session(session_id)).server_dict
        user_id: str | None = remembered.get("registered")
        if user_id is not None and remembered["registered_ts"] < self._clock.seconds() * 1000 - ANSWERED_AGAIN_MS:
            raise used_already()
        return user_id

    async def _check(self, body: RegisterBody, request: Request) -> None:
        """Whatever is wrong is said before the client is sent through the stages."""
        if body.guest_access_token is not None:
            await self._guests.check(body.username, body.guest_access_token, request)
            await self._registration.check_available(None)
        else:
            await self._registration.check_available(body.username)
        if body.password is not None:
            self._policy.check(body.password)

    @serves("register_available")
    async def available(self, request: Request) -> dict[str, Any]:
        self._registration.check_enabled()
        await self._registration.check_available(request.required_arg("username"))
        return {"available": True}


class RegistrationTokenValidity:
    """`/register/m.login.registration_token/validity`."""

    def __init__(self, registration: Registration, tokens: RegistrationTokens) -> None:
        self._registration = registration
        self._tokens = tokens

    @serves("registration_token_validity")
    async def validity(self, request: Request) -> dict[str, Any]:
        self._registration.check_enabled()
        return {"valid": await self._tokens.is_valid(request.required_arg("token"))}
