"""Sessions: what every way of logging in, and registering, ends with; a device and an access token for it.

Who is to be logged in has been proven before (`synapse.handlers.login_kinds`). Here it is refused to those who must not
log in at all, and nothing else makes sessions. Client-server API, "Login", "Relationship between access tokens and
devices".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from synapse.api.errors import Codes, MatrixError, forbidden, invalid_param
from synapse.api.identifiers import new_device_id
from synapse.handlers.tokens import REFRESH, hash_token, make_token
from synapse.storage.access_tokens import NewSession
from synapse.storage.new_devices import DeviceIdTaken
from synapse.storage.refresh_tokens import NewRefreshToken
from synapse.util.problems import log_failure

if TYPE_CHECKING:
    from synapse.handlers.account_rules import AccountRules
    from synapse.handlers.auth import Authenticator
    from synapse.handlers.device_changes import DeviceChanges
    from synapse.handlers.lifetimes import Lifetimes
    from synapse.handlers.login_kinds import LoginProof
    from synapse.storage.access_tokens import AccessTokenStore
    from synapse.storage.users import UserStore
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

MAX_DEVICE_ID: Final = 255  # bytes
MAX_DEVICE_NAME: Final = 100  # characters


class AccountChanged(MatrixError):
    """403: while somebody was logging in, the account was deactivated, or got another password."""

    def __init__(self) -> None:
        super().__init__(403, Codes.FORBIDDEN, "The account was changed just now; please try again.")


class DeviceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The device that a client asks to be logged in as."""

    device_id: str | None = None
    initial_device_display_name: str | None = None


class LoggedIn(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to a registration or login; without token and device where `inhibit_login` was asked for."""

    user_id: str
    home_server: str
    access_token: str | None = None
    device_id: str | None = None
    refresh_token: str | None = None
    expires_in_ms: int | None = None
    well_known: dict[str, Any] | None = None  # of logins alone

    @classmethod
    def without_session(cls, user_id: str) -> LoggedIn:
        return cls(user_id=user_id, home_server=user_id.partition(":")[2])


class Draft(NamedTuple):
    """A session that is still to be stored, and what to tell the client once it is."""

    session: NewSession
    answer: LoggedIn


class NewSessions:
    """Makes sessions."""

    def __init__(
        self,
        users: UserStore,
        tokens: AccessTokenStore,
        lifetimes: Lifetimes,
        authenticator: Authenticator,
        rules: AccountRules,
        devices: DeviceChanges,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._devices = devices
        self._users = users
        self._tokens = tokens
        self._lifetimes = lifetimes
        self._authenticator = authenticator
        self._clock = clock

    async def begin(
        self, user_id: str, device: DeviceRequest, *, refresh: bool, proof: LoginProof | None = None
    ) -> LoggedIn:
        """Logs a user in who has proven to be that user. A device that exists loses the tokens that it had.

        `refresh`: whether the client can use a refresh token; `proof`: what there is to know of how it was proven.
        Raises 403 M_USER_DEACTIVATED or M_FORBIDDEN, `AccountChanged`, 400 M_INVALID_PARAM, and what
        `AccountRules.check_login` raises.
        """
        draft = self.draft(user_id, device, refresh=refresh)
        await self._check_standing(user_id)
        password_hash = None if proof is None else proof.password_hash
        session = draft.session._replace(provider_session=None if proof is None else proof.provider_session)
        await self._store(session, password_hash)
        return draft.answer

    async def begin_elsewhere(self, user_id: str, device_id: str, stands_for_it: bytes) -> None:
        """A session that an authorization server has begun and ends; its tokens are not ours to store.

        `stands_for_it` is stored in place of a token's hash, and goes when the device goes. Raises as `begin` does.
        """
        device_id, _ = checked_device(DeviceRequest(device_id=device_id))
        await self._check_standing(user_id)
        await self._store(NewSession(user_id, stands_for_it, device_id, None, int(self._clock.seconds() * 1000)), None)

    async def _store(self, session: NewSession, password_hash: str | None) -> None:
        try:
            done = await self._authenticator.revoking(self._tokens.login(session, password_hash))
        except DeviceIdTaken:
            raise device_id_taken() from None
        if done is None:
            raise AccountChanged
        if done.new_device and session.device_id is not None:
            await self._tell(session.user_id, session.device_id)

    async def begin_without_device(self, user_id: str, valid_until_ms: int | None) -> LoggedIn:
        """A session for an administrator, in the name of a user, who sees no device of it. Raises as `begin` does."""
        await self._check_standing(user_id)
        token, now = make_token(user_id), int(self._clock.seconds() * 1000)
        if await self._tokens.login(NewSession(user_id, hash_token(token), None, None, now, valid_until_ms)) is None:
            raise AccountChanged
        return msgspec.structs.replace(LoggedIn.without_session(user_id), access_token=token)

    def draft(self, user_id: str, device: DeviceRequest, *, refresh: bool) -> Draft:
        """A session to be stored in the transaction that makes the account. Raises 400 M_INVALID_PARAM."""
        now = int(self._clock.seconds() * 1000)
        session_end = self._lifetimes.session_end(now)
        access_end = self._lifetimes.access_end(now, session_end, refreshable=refresh)
        if not refresh:
            return self._draft(user_id, device, now, access_end)
        text = make_token(user_id, REFRESH)
        token = NewRefreshToken(hash_token(text), self._lifetimes.refresh_end(now, session_end), session_end)
        session, answer = self._draft(user_id, device, now, access_end)
        return Draft(session._replace(refresh=token), msgspec.structs.replace(answer, refresh_token=text))

    def draft_of_guest(self, user_id: str, device: DeviceRequest) -> Draft:
        """The session of a guest, who cannot log in again, and so is never logged out by time."""
        return self._draft(user_id, device, int(self._clock.seconds() * 1000), None)

    def _draft(self, user_id: str, device: DeviceRequest, now: int, expires_ts: int | None) -> Draft:
        device_id, device_name = checked_device(device)
        token = make_token(user_id)
        answer = LoggedIn(
            user_id=user_id,
            home_server=user_id.partition(":")[2],
            access_token=token,
            device_id=device_id,
            expires_in_ms=None if expires_ts is None else expires_ts - now,
        )
        return Draft(NewSession(user_id, hash_token(token), device_id, device_name, now, expires_ts), answer)

    async def _tell(self, user_id: str, device_id: str) -> None:
        """Has it known that there is a new device. The login stands without that, and keys are told when they come."""
        try:
            await self._devices.devices_changed(user_id, [device_id])
        except Exception as error:
            log_failure(logger, error, "Nobody could be told of a new device of %s", user_id)

    async def _check_standing(self, user_id: str) -> None:
        user = await self._users.get(user_id)
        if user is None:
            raise forbidden("There is no such user on this server.")
        if user.deactivated:
            raise MatrixError(403, Codes.USER_DEACTIVATED, "This account has been deactivated.")
        await self._rules.check_login(user)


def device_id_taken() -> MatrixError:
    return forbidden("A device cannot have the ID of one of its user's cross-signing keys; choose another.")


def checked_device(device: DeviceRequest) -> tuple[str, str | None]:
    """Device id (a new one where none is asked for) and name. Raises 400 M_INVALID_PARAM."""
    device_id = new_device_id() if device.device_id is None else device.device_id
    if not device_id or len(device_id.encode()) > MAX_DEVICE_ID or "\x00" in device_id:
        raise invalid_param(f"A device ID has 1 to {MAX_DEVICE_ID} bytes and no NUL character.")
    return device_id, checked_device_name(device.initial_device_display_name)


def checked_device_name(name: str | None) -> str | None:
    """Raises 400 M_INVALID_PARAM for a name that is too long."""
    if name is not None and (len(name) > MAX_DEVICE_NAME or "\x00" in name):
        raise invalid_param(f"A device's name has at most {MAX_DEVICE_NAME} characters, and no NUL character.")
    return name
