"""What administrators decide about accounts: locking and suspending them.

Only that something is decided stands here; what follows from it is in `account_rules`. It holds in every process when
the administrator is answered, or at the latest when the stream `caches` has reached the process.

Client-server API, "Account moderation", "Server Administration".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.api.errors import forbidden, invalid_param, not_found
from synapse.api.identifiers import domain_of, parse_user_id

if TYPE_CHECKING:
    from synapse.handlers.auth import Authenticator
    from synapse.http.request import Requester
    from synapse.storage.standing import Mark, StandingStore
    from synapse.storage.users import User, UserStore


class Moderation:
    """Locks and suspends accounts on behalf of administrators."""

    def __init__(self, store: StandingStore, users: UserStore, authenticator: Authenticator, server_name: str) -> None:
        self._store = store
        self._users = users
        self._authenticator = authenticator
        self._server_name = server_name

    async def marked(self, admin: Requester, user_id: str, mark: Mark) -> bool:
        """Whether the account is locked, or suspended. Raises 400 M_INVALID_PARAM, 403 M_FORBIDDEN, 404 M_NOT_FOUND."""
        user = await self._target(admin, user_id)
        return user.locked if mark == "locked" else user.suspended

    async def mark(self, admin: Requester, user_id: str, mark: Mark, value: bool) -> None:
        """Locks or suspends an account, or ends that. Raises like `marked`, and 403 for the administrator's own."""
        if user_id == admin.user_id:
            raise forbidden("Administrators cannot lock or suspend their own accounts.")
        await self._target(admin, user_id)
        await self._authenticator.forget(await self._store.mark(user_id, mark, value))

    async def _target(self, admin: Requester, user_id: str) -> User:
        parse_user_id(user_id)
        if domain_of(user_id) != self._server_name:
            raise invalid_param("The user does not belong to this server.")
        user = await self._users.get(user_id)
        if user is None or user.deactivated:
            raise not_found("This server has no such user, or the account has been deactivated.")
        if user.admin and user.user_id != admin.user_id:
            raise forbidden("Accounts of other administrators can be neither looked at nor changed in this way.")
        return user
