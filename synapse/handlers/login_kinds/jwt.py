"""Logging in by a JSON web token that something else gives out: org.matrix.login.jwt, as clients of Synapse know it.

The token says who logs in, by the localpart; who has no account gets one. It is checked by the one algorithm and key of
the configuration, whatever its own header says of them. RFC 7519, RFC 8725.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import Codes, MatrixError, bad_json, forbidden, missing_param
from synapse.api.identifiers import check_new_user_id
from synapse.handlers.login_kinds import LoginProof
from synapse.handlers.profile import MAX_DISPLAY_NAME
from synapse.util.jwt_keys import key_of

if TYPE_CHECKING:
    from synapse.config.jwt import JwtConfig
    from synapse.handlers.registration import Registration
    from synapse.http.ratelimit import RateLimits
    from synapse.http.request import Request
    from synapse.storage.users import UserStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

MAX_TOKEN: Final = 16_384  # characters


class JwtLogin:
    """Checks tokens.

    :param limits: `rc_login.account` for logins to an account.
    """

    kind: Final = "org.matrix.login.jwt"

    def __init__(
        self,
        config: JwtConfig,
        users: UserStore,
        registration: Registration,
        limits: RateLimits,
        clock: Clock,
        server_name: str,
    ) -> None:
        assert config.secret is not None, "checked with the configuration"
        assert config.algorithm is not None, "checked with the configuration"
        self._config = config
        self._algorithm = config.algorithm
        self._secret = config.secret
        self._users = users
        self._registration = registration
        self._limits = limits
        self._clock = clock
        self._server_name = server_name

    @cached_property
    def _key(self) -> Any:
        return key_of(self._algorithm, self._secret)

    def flow(self) -> dict[str, Any]:
        return {"type": self.kind}

    async def user_of(self, body: dict[str, Any], request: Request) -> LoginProof:
        """Raises 403 M_FORBIDDEN for a token that is no good; 400; 429; what registering raises."""
        token = body.get("token")
        if not isinstance(token, str):
            raise missing_param("token") if token is None else bad_json("The key 'token' must be a string.")
        claims = self._claims(token)
        localpart = claims.get(self._config.subject_claim)
        if not isinstance(localpart, str) or not localpart:
            raise forbidden(f"The token names nobody: its claim '{self._config.subject_claim}' is no user name.")
        try:
            user_id = check_new_user_id(localpart.lower(), self._server_name)
        except MatrixError as problem:
            raise forbidden(f"The token names nobody who could have an account here: {problem.message}") from None
        self._limits.check("rc_login.account", user_id)
        if await self._users.get(user_id) is None:
            await self._register(user_id, localpart, claims)
        return LoginProof(user_id)

    async def _register(self, user_id: str, localpart: str, claims: dict[str, Any]) -> None:
        name = claims.get(self._config.display_name_claim) if self._config.display_name_claim is not None else None
        shown = name[:MAX_DISPLAY_NAME] if isinstance(name, str) and "\x00" not in name else None
        try:
            await self._registration.register(localpart, None, None, display_name=shown)
        except MatrixError as problem:
            if problem.errcode != Codes.USER_IN_USE:  # somebody was faster, with the same token
                raise
        else:
            logger.info("%s was made for somebody who came with a JSON web token", user_id)

    def _claims(self, token: str) -> dict[str, Any]:
        from joserfc import jwt
        from joserfc.errors import ExpiredTokenError, JoseError

        if len(token) > MAX_TOKEN:
            raise forbidden("The token is too long to be one.")
        try:
            claims: dict[str, Any] = jwt.decode(token, self._key, algorithms=[self._algorithm]).claims
            jwt.JWTClaimsRegistry(now=int(self._clock.seconds()), **self._wanted(claims)).validate(claims)
        except ExpiredTokenError:
            raise forbidden("The token has expired.") from None
        except (JoseError, ValueError, TypeError) as error:
            logger.info("A JSON web token was refused: %s", type(error).__name__)
            raise forbidden("The token does not prove who you are.") from None
        return claims

    def _wanted(self, claims: dict[str, Any]) -> dict[str, Any]:
        """What claims must be; a token that is meant for somebody must be meant for us."""
        wanted: dict[str, Any] = {}
        if self._config.issuer is not None:
            wanted["iss"] = {"essential": True, "value": self._config.issuer}
        if self._config.audiences:
            wanted["aud"] = {"essential": True, "values": list(self._config.audiences)}
        elif "aud" in claims:
            raise ValueError("nobody in particular is an audience here")
        return wanted
