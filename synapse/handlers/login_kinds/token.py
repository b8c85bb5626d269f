"""Logging in by a token that single sign-on, or a device that is logged in, has got for it.

Client-server API, "Token-based login".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import LoginTypes
from synapse.api.errors import bad_json, missing_param
from synapse.handlers.login_kinds import LoginProof
from synapse.storage.access_tokens import ProviderSession

if TYPE_CHECKING:
    from synapse.handlers.login_tokens import LoginTokens
    from synapse.http.request import Request


class TokenLogin:
    """m.login.token.

    :param get_token: whether clients that are logged in may get one, so that those that are not may ask for it.
    """

    kind: Final = LoginTypes.TOKEN

    def __init__(self, tokens: LoginTokens, *, get_token: bool) -> None:
        self._tokens = tokens
        self._get_token = get_token

    def flow(self) -> dict[str, Any]:
        return {"type": self.kind, "get_login_token": True} if self._get_token else {"type": self.kind}

    async def user_of(self, body: dict[str, Any], request: Request) -> LoginProof:
        """Raises 403 M_FORBIDDEN for a token that is no good (any more); 400."""
        token = body.get("token")
        if not isinstance(token, str):
            raise missing_param("token") if token is None else bad_json("The key 'token' must be a string.")
        found = await self._tokens.redeem(token)
        if found.auth_provider is None or found.provider_session is None:
            return LoginProof(found.user_id)
        return LoginProof(found.user_id, None, ProviderSession(found.auth_provider, found.provider_session))
