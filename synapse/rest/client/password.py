"""Endpoints for changing one's password, and for what this server asks of passwords.

Client-server API, `POST /account/password`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.api.constants import LoginTypes
from synapse.api.errors import missing_param, missing_token
from synapse.handlers.password_change import PasswordChange
from synapse.handlers.password_policy import PasswordPolicy
from synapse.handlers.ui_auth import Flows, Operation, UiAuth, continues
from synapse.http.body import convert
from synapse.http.ratelimit import RateLimits
from synapse.http.server import Request, serves


class NewPassword(msgspec.Struct, frozen=True):
    """The body, without `auth`. The password is there once; a later step may leave it out."""

    new_password: str | None = None
    logout_devices: bool = True


class ChangePassword:
    """`/account/password`, `/password_policy`.

    :param reset_flows: by what those prove who they are who have forgotten the password.
    """

    def __init__(
        self, change: PasswordChange, policy: PasswordPolicy, ui_auth: UiAuth, reset_flows: Flows, limits: RateLimits
    ) -> None:
        self._change = change
        self._policy = policy
        self._ui_auth = ui_auth
        self._reset_flows = reset_flows
        self._limits = limits

    @serves("password_policy")
    async def policy(self, request: Request) -> dict[str, Any]:
        return self._policy.described()

    @serves("account_password")
    async def change(self, request: Request) -> dict[str, Any]:
        user = request.requester
        if user is None and not self._reset_flows:
            raise missing_token()
        self._change.check_enabled()
        body = request.json_object()
        if not continues(body):
            self._limits.check("rc_login.address", request.client_ip)
        # Whatever is wrong is said before the client is sent through the stages.
        wanted = convert(body, NewPassword)
        if wanted.new_password is not None:
            self._policy.check(wanted.new_password)
        elif not continues(body):
            raise missing_param("new_password")
        user_id = None if user is None else user.user_id
        operation = Operation("POST", "account_password", "change the password", user_id, password="new_password")
        flows = self._reset_flows if user_id is None else await self._ui_auth.own_flows(user_id)
        proven = await self._ui_auth.check(operation, body, flows, request)
        if proven.password_hash is None:
            raise missing_param("new_password")
        logout_devices = convert(proven.body, NewPassword).logout_devices
        if user is not None:
            await self._change.change(user, proven.password_hash, logout_devices)
        else:
            await self._change.reset(_address(proven.proofs), proven.password_hash, logout_devices)
        return {}


def _address(proofs: dict[str, Any]) -> dict[str, Any]:
    """What was proven by the stage that a flow for a forgotten password consists of."""
    return next(proofs[kind] for kind in (LoginTypes.EMAIL_IDENTITY, LoginTypes.MSISDN) if kind in proofs)
