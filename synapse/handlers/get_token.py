"""A login token for a further device of a user who is logged in. Client-server API, `POST /login/get_token`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse.api.errors import unrecognized

if TYPE_CHECKING:
    from synapse.handlers.login_tokens import LoginTokens
    from synapse.http.ratelimit import RateLimits

LIMIT = "rc_login_token"


class Options(NamedTuple):
    """Whether, after which proof, and for how many milliseconds tokens are given (`login_via_existing_session`)."""

    enabled: bool
    require_ui_auth: bool
    lifetime_ms: int


class GetToken:
    """Gives users tokens for their further devices.

    :param limits: `rc_login_token`, by user.
    """

    def __init__(self, tokens: LoginTokens, options: Options, limits: RateLimits) -> None:
        self._tokens = tokens
        self._limits = limits
        self.options = options

    def check_allowed(self, user_id: str) -> None:
        """Raises 404 M_UNRECOGNIZED where no tokens are given, 429."""
        if not self.options.enabled:
            raise unrecognized("This server gives no login tokens to those who are logged in.")
        self._limits.require(LIMIT, user_id)

    async def token_for(self, user_id: str) -> str:
        """A new token for the user, who may have it. Raises 429."""
        self._limits.check(LIMIT, user_id)
        return await self._tokens.issue(user_id, lifetime_ms=self.options.lifetime_ms)
