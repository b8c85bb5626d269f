"""Logging in and out by password.

What a login leaves behind is a device and an access token for it; a login to a device that exists replaces its token. A
wrong user and a wrong password are told apart neither by the answer nor by the time that it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import LoginTypes
from synapse.api.errors import Codes, MatrixError, bad_json, forbidden, missing_param, unknown
from synapse.handlers.registration import DeviceRequest, LoggedIn, checked_device
from synapse.handlers.tokens import hash_token, make_token
from synapse.storage.access_tokens import NewSession

if TYPE_CHECKING:
    from synapse.handlers.auth import Authenticator
    from synapse.handlers.passwords import Passwords
    from synapse.http.ratelimit import RateLimits
    from synapse.storage.access_tokens import AccessTokenStore
    from synapse.storage.users import User, UserStore
    from synapse.util.clock import Clock

_MAX_NAME: Final = 255


class Login:
    """Checks passwords and makes sessions.

    :param limits: `rc_login.account` for all attempts at an account, `rc_login.failed_attempts` for failed ones.
    """

    def __init__(
        self,
        users: UserStore,
        tokens: AccessTokenStore,
        authenticator: Authenticator,
        passwords: Passwords,
        clock: Clock,
        server_name: str,
        *,
        passwords_enabled: bool,
        limits: RateLimits,
    ) -> None:
        self._users = users
        self._tokens = tokens
        self._authenticator = authenticator
        self._passwords = passwords
        self._clock = clock
        self._server_name = server_name
        self._passwords_enabled = passwords_enabled
        self._limits = limits

    def flows(self) -> list[str]:
        """The login types that this server takes."""
        return [LoginTypes.PASSWORD] if self._passwords_enabled else []

    async def login(self, body: dict[str, Any], device: DeviceRequest) -> LoggedIn:
        """Client-server API, `POST /login`. Raises 403 M_FORBIDDEN, M_USER_DEACTIVATED; 400; 429."""
        kind = body.get("type")
        if not isinstance(kind, str):
            raise missing_param("type") if kind is None else bad_json("The key 'type' must be a string.")
        if kind not in self.flows():
            raise unknown(f"The login type '{kind[:80]}' is not offered here; ask GET /login for those that are.")
        user = await self.check_password(self.named_user(body), body)
        return await self._new_session(user, device)

    async def check_stage(self, user_id: str, auth: dict[str, Any]) -> None:
        """The stage m.login.password of user-interactive authentication: it must be the user's own password."""
        if self.named_user(auth) != user_id:
            raise forbidden("The user in 'auth' is not the one who is logged in.")
        await self.check_password(user_id, auth)

    async def check_password(self, user_id: str, body: dict[str, Any]) -> User:
        """The user of that id, if the body has its password; raises 403 M_FORBIDDEN or M_USER_DEACTIVATED, 429."""
        password = body.get("password")
        if not isinstance(password, str):
            raise missing_param("password") if password is None else bad_json("The key 'password' must be a string.")
        self._limits.check("rc_login.account", user_id)
        self._limits.require("rc_login.failed_attempts", user_id)
        user = await self._users.get(user_id) if "\x00" not in user_id else None
        matches = await self._passwords.matches(password, None if user is None else user.password_hash)
        if user is not None and user.deactivated:  # its password is gone, so nobody could prove to be its owner
            raise MatrixError(403, Codes.USER_DEACTIVATED, "This account has been deactivated.")
        if not matches or user is None:
            self._limits.count("rc_login.failed_attempts", user_id)
            raise forbidden("The user name or the password is wrong.")
        return user

    async def _new_session(self, user: User, device: DeviceRequest) -> LoggedIn:
        device_id, device_name = checked_device(device)
        token = make_token(user.user_id)
        now = int(self._clock.seconds() * 1000)
        done = await self._tokens.login(NewSession(user.user_id, hash_token(token), device_id, device_name, now))
        await self._authenticator.forget(done.revoked)
        return LoggedIn(user_id=user.user_id, home_server=self._server_name, access_token=token, device_id=device_id)

    def named_user(self, body: dict[str, Any]) -> str:
        """The full id of the user that the body names, in `identifier` or, as of old, in `user`."""
        name = _name_in(body)
        if not name or len(name) > _MAX_NAME:
            raise forbidden("The user name or the password is wrong.")
        if not name.startswith("@"):
            return f"@{name.lower()}:{self._server_name}"
        localpart, _, domain = name.partition(":")
        return f"{localpart.lower()}:{domain}"


def _name_in(body: dict[str, Any]) -> str:
    identifier = body.get("identifier")
    if identifier is None:
        identifier = {"type": "m.id.user", "user": body.get("user")}
        if identifier["user"] is None:
            raise missing_param("identifier")
    if not isinstance(identifier, dict):
        raise bad_json("The key 'identifier' must be an object.")
    if identifier.get("type") != "m.id.user":
        raise unknown("Only identifiers of the type 'm.id.user' can log in here.")
    user = identifier.get("user")
    if not isinstance(user, str):
        raise missing_param("identifier.user") if user is None else bad_json("The user must be a string.")
    return user
