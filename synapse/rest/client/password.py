"""The endpoint for changing one's password. Client-server API, `POST /account/password`."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from synapse.api.constants import LoginTypes
from synapse.handlers.password_change import PasswordChange
from synapse.handlers.passwords import check_acceptable
from synapse.handlers.ui_auth import Operation, UiAuth
from synapse.http.body import convert
from synapse.http.server import Request, serves

_FLOWS: Final = [[LoginTypes.PASSWORD]]


class NewPassword(msgspec.Struct, frozen=True):
    """The body, without `auth`."""

    new_password: str
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
        if body.get("new_password") is not None or "auth" not in body:
            check_acceptable(convert(body, NewPassword).new_password)
        operation = Operation("POST", "account_password", "change the password", request.user.user_id)
        wanted = convert(await self._ui_auth.check(operation, body, _FLOWS), NewPassword)
        await self._change.change(request.user, wanted.new_password, wanted.logout_devices)
        return {}
