"""The endpoint for a login token of one's own. Client-server API, `POST /login/get_token`."""

from __future__ import annotations

from typing import Any

from synapse.handlers.get_token import GetToken
from synapse.handlers.ui_auth import Operation, UiAuth
from synapse.http.server import Request, serves


class GetLoginToken:
    """`/login/get_token`."""

    def __init__(self, get_token: GetToken, ui_auth: UiAuth) -> None:
        self._get_token = get_token
        self._ui_auth = ui_auth

    @serves("login_get_token")
    async def get_token(self, request: Request) -> dict[str, Any]:
        user = request.user
        self._get_token.check_allowed(user.user_id)
        body = request.json_object(allow_empty=True)
        if self._get_token.options.require_ui_auth:
            operation = Operation("POST", "login_get_token", "log in another device", user.user_id)
            await self._ui_auth.check(operation, body, await self._ui_auth.own_flows(user.user_id), request)
        token = await self._get_token.token_for(user.user_id)
        return {"login_token": token, "expires_in_ms": self._get_token.options.lifetime_ms}
