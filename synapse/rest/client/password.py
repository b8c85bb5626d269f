"""The endpoint for changing one's password. Client-server API, `POST /account/password`."""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.api.errors import missing_param
from synapse.handlers.password_change import PasswordChange
from synapse.handlers.passwords import check_acceptable
from synapse.handlers.ui_auth import Operation, UiAuth
from synapse.http.body import convert
from synapse.http.server import Request, serves


class NewPassword(msgspec.Struct, frozen=True):
    """The body, without `auth`. The password is there once; a later step may leave it out."""

    new_password: str | None = None
    logout_devices: bool = True


class ChangePassword:
    """`/account/password`."""

    def __init__(self, change: PasswordChange, ui_auth: UiAuth) -> None:
        self._change = change
        self._ui_auth = ui_auth

    @serves("account_password")
    async def change(self, request: Request) -> dict[str, Any]:
        self._change.check_enabled()
        body = request.json_object()
        # Whatever is wrong is said before the client is sent through the stages.
        wanted = convert(body, NewPassword)
        if wanted.new_password is not None:
            check_acceptable(wanted.new_password)
        elif not isinstance(body.get("auth"), dict) or "session" not in body["auth"]:
            raise missing_param("new_password")
        user = request.user
        operation = Operation("POST", "account_password", "change the password", user.user_id, password="new_password")
        proven = await self._ui_auth.check(operation, body, await self._ui_auth.own_flows(user.user_id), request)
        if proven.password_hash is None:
            raise missing_param("new_password")
        await self._change.change(user, proven.password_hash, convert(proven.body, NewPassword).logout_devices)
        return {}
