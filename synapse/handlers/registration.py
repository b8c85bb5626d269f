"""Making accounts: which names may be had, and the account with its profile, first device and token in one transaction.

The proof that somebody may register (user-interactive authentication, the shared secret) is asked for by the endpoints.
An account is made in the main process, so that names are unique and the news of it go out from one place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

from synapse.api.app_services import check_own_user
from synapse.api.constants import LoginTypes
from synapse.api.errors import Codes, MatrixError, forbidden, guest_access_forbidden, invalid_param, unknown
from synapse.api.identifiers import check_new_user_id, random_letters
from synapse.handlers.account_rules import Applicant
from synapse.handlers.new_sessions import DeviceRequest, LoggedIn
from synapse.handlers.profile import MAX_DISPLAY_NAME
from synapse.handlers.ui_auth import used_already
from synapse.replication.calls import Call
from synapse.storage.access_tokens import NewSession
from synapse.storage.external_ids import ExternalId
from synapse.storage.registration_proofs import (
    NO_PROOFS,
    Address,
    AddressTaken,
    Proofs,
    SessionGone,
    TokenUsedUp,
)
from synapse.storage.users import Made, NewUser

if TYPE_CHECKING:
    from synapse.api.app_services import AppServices
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
    app_service_id: str | None = None
    proofs: Proofs = NO_PROOFS
    identity: ExternalId | None = None


class RegistrationOptions(NamedTuple):
    """Who may register.

    `enabled`: whether anybody may; the shared secret works regardless. `guests`: whether anybody may have a guest's
    account. `hides_taken`: whether it is only told at the end that a name is taken. `welcomes`, `welcomes_guests`:
    whether there are rooms that new users, or guests, are to join.
    """

    enabled: bool
    guests: bool
    hides_taken: bool = False
    welcomes: bool = False
    welcomes_guests: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What became of it; None where the name is taken."""

    made: Made | None


CREATE_ACCOUNT: Final = Call("accounts.create", NewAccount, Outcome)


class Registration:
    """Makes accounts, from any process.

    :param welcome: brings a new user into rooms, in the main process; raises nothing.
    """

    def __init__(
        self,
        users: UserStore,
        sessions: NewSessions,
        rules: AccountRules,
        app_services: AppServices,
        main: MainProcess,
        clock: Clock,
        server_name: str,
        options: RegistrationOptions,
        welcome: Callable[[str], Awaitable[None]],
    ) -> None:
        self._users = users
        self._sessions = sessions
        self._rules = rules
        self._app_services = app_services
        self._main = main
        self._clock = clock
        self._server_name = server_name
        self._options = options
        self._welcome = welcome
        main.expose(CREATE_ACCOUNT, self._create)

    def check_enabled(self) -> None:
        """Raises 403 M_FORBIDDEN where registration is switched off."""
        if not self._options.enabled:
            raise forbidden("Registration is disabled on this server; ask its administrator for an account.")

    async def check_available(self, username: str | None) -> None:
        """Whether somebody could have that name; with None, one that is made up.

        Raises 400 M_INVALID_USERNAME; M_EXCLUSIVE; M_USER_IN_USE, unless that is kept secret from who only asks; and
        what `AccountRules.check_registration` raises.
        """
        user_id = None if username is None else self._user_id(username, None)
        await self._rules.check_registration(user_id, Applicant())
        if user_id is None or self._options.hides_taken:
            return
        if await self._users.get(user_id) is not None:
            raise in_use()

    def _user_id(self, username: str, app_service_id: str | None) -> str:
        user_id = check_new_user_id(username.lower(), self._server_name)
        service = self._app_services.get(app_service_id)
        if service is not None:
            check_own_user(service, user_id)
        self._app_services.check_user(user_id, app_service_id)
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
        proofs: Proofs = NO_PROOFS,
        app_service_id: str | None = None,
    ) -> LoggedIn:
        """Makes an account, and logs in with `device` unless it is None. Without a name, one is made up.

        A session of interactive authentication (`proofs.session_id`) makes one account; asked again, it logs in.

        Raises 400: M_INVALID_USERNAME, M_EXCLUSIVE, M_USER_IN_USE, M_INVALID_PARAM; and what
        `AccountRules.check_registration` raises.
        """
        if user_type is not None and user_type not in USER_TYPES:
            raise invalid_param(f"'user_type' must be one of {', '.join(sorted(USER_TYPES))}.")
        if display_name is not None and len(display_name) > MAX_DISPLAY_NAME:
            raise invalid_param(f"A display name has at most {MAX_DISPLAY_NAME} characters.")
        user_id = None if username is None else self._user_id(username, app_service_id)
        threepids = [(one.medium, one.address) for one in proofs.addresses]
        await self._rules.check_registration(user_id, Applicant(threepids, user_type, app_service_id))
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
                proofs=proofs,
                app_service_id=app_service_id,
            )
            made = (await self._main(CREATE_ACCOUNT, account)).made
            if made is not None and made.now:
                return answer
            if made is not None:
                return await self.log_in_again(made.user_id, device, refresh=refresh)
            if user_id is not None:
                raise in_use()

    async def check_unchanged(self, user_id: str, password_hash: str | None) -> None:
        """Raises 400 M_UNKNOWN where an account has got another password since it was made."""
        user = await self._users.get(user_id)
        if user is None or user.password_hash != password_hash:
            raise used_already()

    async def log_in_again(self, user_id: str, device: DeviceRequest | None, *, refresh: bool) -> LoggedIn:
        """The answer to who has registered an account just now and did not hear of it."""
        if device is None:
            return LoggedIn.without_session(user_id)
        return await self._sessions.begin(user_id, device, refresh=refresh)

    async def register_identity(self, user_id: str, identity: ExternalId, display_name: str | None) -> str | None:
        """Makes an account, without a password, for whom an identity provider vouches for.

        Whose account it is, which is another where one came about meanwhile. None, and nothing done, if the name is
        taken.
        """
        account = NewAccount(user_id=user_id, password_hash=None, display_name=display_name, identity=identity)
        made = (await self._main(CREATE_ACCOUNT, account)).made
        return None if made is None else made.user_id

    async def register_guest(self, device_name: str | None) -> LoggedIn:
        """An account without a password, with the rights of a guest.

        Raises 403 M_GUEST_ACCESS_FORBIDDEN, and what `AccountRules.check_registration` raises.
        """
        if not self._options.guests:
            raise guest_access_forbidden("This server has no guest accounts.")
        await self._rules.check_registration(None, Applicant(is_guest=True))
        device = DeviceRequest(initial_device_display_name=device_name)
        while True:
            user_id = self._made_up()
            session, answer = self._sessions.draft_of_guest(user_id, device)
            account = NewAccount(user_id=user_id, password_hash=None, session=session, is_guest=True)
            if (await self._main(CREATE_ACCOUNT, account)).made is not None:
                return answer

    def _made_up(self) -> str:
        return f"@{random_letters(10, _ALPHABET)}:{self._server_name}"

    @property
    def welcomes(self) -> bool:
        """Whether there are rooms for new users to join."""
        return self._options.welcomes

    async def welcome(self, user_id: str) -> None:
        """Brings a new user into these rooms; in the main process, raises nothing."""
        await self._welcome(user_id)

    async def _create(self, account: NewAccount) -> Outcome:
        now = int(self._clock.seconds() * 1000)
        user = NewUser(
            account.user_id,
            account.password_hash,
            now,
            account.display_name or account.user_id[1:].partition(":")[0],
            account.admin,
            account.user_type,
            account.session,
            account.is_guest,
            account.proofs,
            account.app_service_id,
            identity=account.identity,
            arrives=self._welcomes(account),
        )
        made = await honoured(self._users.create(user))
        if user.arrives and made is not None and made.now:
            await self._welcome(account.user_id)
        return Outcome(made)

    def _welcomes(self, account: NewAccount) -> bool:
        """Whether there are rooms for the new user to join; users of application services are led by those."""
        if account.app_service_id is not None:
            return False
        return self._options.welcomes_guests if account.is_guest else self._options.welcomes


T = TypeVar("T")


async def honoured(making: Awaitable[T]) -> T:
    """What comes of an account in the making; raises 400 or 403 where something that was proven holds no more."""
    try:
        return await making
    except SessionGone:
        raise unknown("The session is not known, or it has expired; begin again without 'auth'.") from None
    except TokenUsedUp:
        raise forbidden("The registration token has been used up or withdrawn meanwhile.") from None
    except AddressTaken:
        sentence = "The address is another account's meanwhile, or its validation was used already."
        raise MatrixError(400, Codes.THREEPID_IN_USE, sentence) from None


def proofs_of(session_id: str | None, proven: dict[str, Any]) -> Proofs:
    """What the account is to remember of what the stages proved."""
    found = [proven[kind] for kind in (LoginTypes.EMAIL_IDENTITY, LoginTypes.MSISDN) if kind in proven]
    return Proofs(
        session_id,
        proven.get(LoginTypes.REGISTRATION_TOKEN),
        tuple(Address(one["medium"], one["address"], one["validated_ts"], one["sid"]) for one in found),
        proven.get(LoginTypes.TERMS),
    )


def in_use() -> MatrixError:
    return MatrixError(400, Codes.USER_IN_USE, "This user name is taken; please choose another.")
