"""Making accounts: which names may be had, and the account with its profile, first device and token in one transaction.

The proof that somebody may register (user-interactive authentication, the shared secret) is asked for by the endpoints.
An account is made in the main process, so that names are unique and the news of it go out from one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from synapse.api.errors import Codes, MatrixError, forbidden, guest_access_forbidden, invalid_param
from synapse.api.identifiers import check_new_user_id, random_letters
from synapse.handlers.new_sessions import DeviceRequest, LoggedIn
from synapse.replication.calls import Call
from synapse.storage.access_tokens import NewSession
from synapse.storage.users import NewUser

if TYPE_CHECKING:
    from synapse.handlers.account_rules import AccountRules
    from synapse.handlers.new_sessions import NewSessions
    from synapse.replication.calls import MainProcess
    from synapse.storage.users import UserStore
    from synapse.util.clock import Clock

USER_TYPES: Final = frozenset({"support", "bot"})
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


class NewAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What an account is to be made of; without a session where nobody logs in with it."""

    user_id: str
    password_hash: str | None
    admin: bool = False
    user_type: str | None = None
    display_name: str | None = None
    session: NewSession | None = None
    is_guest: bool = False


CREATE_ACCOUNT: Final = Call("accounts.create", NewAccount, bool)


class Registration:
    """Makes accounts, from any process.

    :param enabled: whether anybody may register; the shared secret works regardless.
    :param guests: whether anybody may have a guest's account.
    """

    def __init__(
        self,
        users: UserStore,
        sessions: NewSessions,
        rules: AccountRules,
        main: MainProcess,
        clock: Clock,
        server_name: str,
        *,
        enabled: bool,
        guests: bool,
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._rules = rules
        self._main = main
        self._clock = clock
        self._server_name = server_name
        self._enabled = enabled
        self._guests = guests
        main.expose(CREATE_ACCOUNT, self._create)

    def check_enabled(self) -> None:
        """Raises 403 M_FORBIDDEN where registration is switched off."""
        if not self._enabled:
            raise forbidden("Registration is disabled on this server; ask its administrator for an account.")

    async def check_available(self, username: str) -> str:
        """The user id that the name would have.

        Raises 400 M_INVALID_USERNAME or M_USER_IN_USE, and what `AccountRules.check_registration` raises.
        """
        user_id = check_new_user_id(username.lower(), self._server_name)
        await self._rules.check_registration(user_id)
        if await self._users.get(user_id) is not None:
            raise in_use()
        return user_id

    async def register(
        self,
        username: str | None,
        password_hash: str | None,
        device: DeviceRequest | None,
        *,
        refresh: bool = False,
        admin: bool = False,
        user_type: str | None = None,
        display_name: str | None = None,
    ) -> LoggedIn:
        """Makes an account, and logs in with `device` unless it is None. Without a name, one is made up.

        Raises 400: M_INVALID_USERNAME, M_USER_IN_USE, M_INVALID_PARAM.
        """
        if user_type is not None and user_type not in USER_TYPES:
            raise invalid_param(f"'user_type' must be one of {', '.join(sorted(USER_TYPES))}.")
        user_id = None if username is None else await self.check_available(username)
        while True:
            account_id = user_id or self._made_up()
            answer, session = LoggedIn.without_session(account_id), None
            if device is not None:
                session, answer = self._sessions.draft(account_id, device, refresh=refresh)
            account = NewAccount(
                user_id=account_id,
                password_hash=password_hash,
                admin=admin,
                user_type=user_type,
                display_name=display_name,
                session=session,
            )
            if await self._main(CREATE_ACCOUNT, account):
                return answer
            if user_id is not None:
                raise in_use()

    async def register_guest(self, device_name: str | None) -> LoggedIn:
        """An account without a password, with the rights of a guest. Raises 403 M_GUEST_ACCESS_FORBIDDEN."""
        if not self._guests:
            raise guest_access_forbidden("This server has no guest accounts.")
        device = DeviceRequest(initial_device_display_name=device_name)
        while True:
            user_id = self._made_up()
            session, answer = self._sessions.draft_of_guest(user_id, device)
            account = NewAccount(user_id=user_id, password_hash=None, session=session, is_guest=True)
            if await self._main(CREATE_ACCOUNT, account):
                return answer

    def _made_up(self) -> str:
        return f"@{random_letters(10, _ALPHABET)}:{self._server_name}"

    async def _create(self, account: NewAccount) -> bool:
        now = int(self._clock.seconds() * 1000)
        return await self._users.create(
            NewUser(
                account.user_id,
                account.password_hash,
                now,
                account.display_name or account.user_id[1:].partition(":")[0],
                account.admin,
                account.user_type,
                account.session,
                account.is_guest,
            )
        )


def in_use() -> MatrixError:
    return MatrixError(400, Codes.USER_IN_USE, "This user name is taken; please choose another.")
