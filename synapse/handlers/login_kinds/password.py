"""Logging in by password. (Proving by it that one is still oneself: `synapse.handlers.ui_stages.password`.)

A wrong user and a wrong password are told apart neither by the answer nor by the time that it takes.

Client-server API, "Login", m.login.password.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.constants import LoginTypes
from synapse.api.errors import MatrixError, bad_json, forbidden, missing_param
from synapse.handlers.login_kinds import LoginProof

if TYPE_CHECKING:
    from synapse.handlers.login_names import LoginNames
    from synapse.handlers.passwords import Passwords
    from synapse.http.ratelimit import RateLimits
    from synapse.http.request import Request
    from synapse.storage.users import UserStore


class PasswordLogin:
    """Checks passwords.

    :param limits: `rc_login.account` for all attempts at an account, `rc_login.failed_attempts` for failed ones.
    """

    kind: Final = LoginTypes.PASSWORD

    def __init__(self, users: UserStore, names: LoginNames, passwords: Passwords, limits: RateLimits) -> None:
        self._users = users
        self._names = names
        self._passwords = passwords
        self._limits = limits

    def flow(self) -> dict[str, Any]:
        return {"type": self.kind}

    async def user_of(self, body: dict[str, Any], request: Request) -> LoginProof:
        """Raises 403 M_FORBIDDEN; 400; 429."""
        user_id = await self.named_user(body)
        return LoginProof(user_id, await self.check_password(user_id, body))

    async def check_password(self, user_id: str, body: dict[str, Any]) -> str:
        """The hash of the password in the body. Raises 403 M_FORBIDDEN unless it is the user's; 400; 429."""
        password = body.get("password")
        if not isinstance(password, str):
            raise missing_param("password") if password is None else bad_json("The key 'password' must be a string.")
        self._limits.check("rc_login.account", user_id)
        # It counts as failed as long as nobody knows better: no more guesses shall pass at once than in turn.
        self._limits.check("rc_login.failed_attempts", user_id)
        try:
            kept = await self._matching_hash(user_id, password)
        except Exception:  # it was not even tried
            self._limits.forgive("rc_login.failed_attempts", user_id)
            raise
        if kept is None:
            raise forbidden("The user name or the password is wrong.")
        self._limits.forgive("rc_login.failed_attempts", user_id)
        return await self._renewed(user_id, password, kept)

    async def _matching_hash(self, user_id: str, password: str) -> str | None:
        """The hash that is kept of the password; None, after the same time, where it is not that user's."""
        user = await self._users.get(user_id) if "\x00" not in user_id else None
        kept = None if user is None or user.deactivated else user.password_hash
        return kept if await self._passwords.matches(password, kept) else None

    async def _renewed(self, user_id: str, password: str, kept: str) -> str:
        """Hashes are made anew when the algorithm or its cost has changed: only now is the password there to do it."""
        try:
            renewed = await self._passwords.renewed(password, kept)
        except MatrixError:  # there is too much to do at this moment: the next login will do
            return kept
        if renewed is not None:
            await self._users.replace_password_hash(user_id, kept, renewed)
        return renewed or kept

    async def named_user(self, body: dict[str, Any]) -> str:
        """Whom the body names, as `LoginNames.named` has it."""
        return await self._names.named(body)
