"""Logging in by password. (Proving by it that one is still oneself: `synapse.handlers.ui_stages.password`.)

A wrong user and a wrong password are told apart neither by the answer nor by the time that it takes.

Client-server API, "Login", m.login.password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import LoginTypes
from synapse.api.errors import Codes, MatrixError, bad_json, forbidden, missing_param, unknown

if TYPE_CHECKING:
    from synapse.handlers.passwords import Passwords
    from synapse.http.ratelimit import RateLimits
    from synapse.http.request import Request
    from synapse.storage.users import UserStore

_MAX_NAME: Final = 255


class PasswordLogin:
    """Checks passwords.

    :param limits: `rc_login.account` for all attempts at an account, `rc_login.failed_attempts` for failed ones.
    """

    kind: Final = LoginTypes.PASSWORD

    def __init__(self, users: UserStore, passwords: Passwords, server_name: str, limits: RateLimits) -> None:
        self._users = users
        self._passwords = passwords
        self._server_name = server_name
        self._limits = limits

    def flow(self) -> dict[str, Any]:
        return {"type": self.kind}

    async def user_of(self, body: dict[str, Any], request: Request) -> str:
        """Raises 403 M_FORBIDDEN or M_USER_DEACTIVATED; 400; 429."""
        user_id = await self.named_user(body)
        await self.check_password(user_id, body)
        return user_id

    async def check_password(self, user_id: str, body: dict[str, Any]) -> None:
        """Raises 403 M_FORBIDDEN unless the body has the user's password; M_USER_DEACTIVATED; 400; 429."""
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

    async def named_user(self, body: dict[str, Any]) -> str:
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
    kind = identifier.get("type")
    if not isinstance(kind, str):
        raise (
            missing_param("identifier.type")
            if kind is None
            else bad_json("The type of the identifier must be a string.")
        )
    if kind != "m.id.user":
        raise unknown("Only identifiers of the type 'm.id.user' can log in here.")
    user = identifier.get("user")
    if not isinstance(user, str):
        raise missing_param("identifier.user") if user is None else bad_json("The user must be a string.")
    return user
