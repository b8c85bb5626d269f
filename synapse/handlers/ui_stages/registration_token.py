"""`m.login.registration_token`: a token that an administrator gave away lets people register."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import LoginTypes
from synapse.api.errors import Codes, MatrixError, bad_json, missing_param

if TYPE_CHECKING:
    from synapse.handlers.registration_tokens import RegistrationTokens
    from synapse.handlers.ui_stages.types import Attempt
    from synapse.http.ratelimit import RateLimits

LIMIT: Final = "rc_registration_token_validity"


class RegistrationTokenStage:
    """Client-server API, "Token-authenticated registration".

    :param limits: hold off who guesses, as where it is asked whether a token is valid.
    """

    kind: str = LoginTypes.REGISTRATION_TOKEN

    def __init__(self, tokens: RegistrationTokens, limits: RateLimits) -> None:
        self._tokens = tokens
        self._limits = limits

    def params(self) -> dict[str, Any] | None:
        return None

    async def check(self, auth: dict[str, Any], attempt: Attempt) -> Any:
        """The token. As long as the session lasts it counts as a use."""
        token = auth.get("token")
        if not isinstance(token, str):
            raise missing_param("auth.token") if token is None else bad_json("The key 'auth.token' must be a string.")
        self._limits.require(LIMIT, attempt.client_ip)
        if not await self._tokens.is_valid(token):
            self._limits.count(LIMIT, attempt.client_ip)
            raise MatrixError(401, Codes.UNAUTHORIZED, "The registration token is not valid (any more).")
        return token
