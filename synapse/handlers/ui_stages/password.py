"""`m.login.password`: the account's password, by which users prove to be its owners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.constants import LoginTypes
from synapse.api.errors import Codes, MatrixError, forbidden, unknown

if TYPE_CHECKING:
    from synapse.handlers.login_kinds.password import PasswordLogin
    from synapse.handlers.ui_stages.types import Attempt
    from synapse.storage.users import UserStore


class PasswordStage:
    """Client-server API, "Password-based".

    :param enabled: whether people log in by password here.
    """

    kind: str = LoginTypes.PASSWORD

    def __init__(self, login: PasswordLogin, users: UserStore, *, enabled: bool) -> None:
        self._login = login
        self._users = users
        self._enabled = enabled

    def params(self) -> dict[str, Any] | None:
        return None

    async def check(self, auth: dict[str, Any], attempt: Attempt) -> Any:
        """The id of the user whose password it is. A wrong one may be tried again; somebody else's is 403."""
        user_id = attempt.operation.user_id
        if user_id is None:
            raise unknown("A password proves nothing as long as nobody is logged in.")
        if await self._login.named_user(auth) != user_id:
            raise forbidden("The user in 'auth' is not the one who is logged in.")
        try:
            await self._login.check_password(user_id, auth)
        except MatrixError as error:
            if (error.code, error.errcode) != (403, Codes.FORBIDDEN):
                raise
            raise MatrixError(401, Codes.FORBIDDEN, "The password is wrong.") from None
        return user_id

    async def is_open_to(self, user_id: str | None) -> bool:
        if not self._enabled or user_id is None:
            return self._enabled
        user = await self._users.get(user_id)
        return user is not None and user.password_hash is not None
