"""Accounts in the hands of administrators: looking at them, their passwords and ranks, logging in as their users.

Making accounts, and changing several things of one at once: `synapse.handlers.user_admin_changes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import Codes, MatrixError, forbidden, invalid_param, not_found
from synapse.api.identifiers import domain_of, parse_user_id
from synapse.handlers.passwords import check_acceptable

if TYPE_CHECKING:
    from synapse.handlers.auth import Authenticator
    from synapse.handlers.new_sessions import LoggedIn, NewSessions
    from synapse.handlers.password_change import PasswordChange
    from synapse.handlers.passwords import Passwords
    from synapse.http.request import Requester
    from synapse.storage.external_ids import ExternalIdStore
    from synapse.storage.threepids import ThreepidStore
    from synapse.storage.user_admin import Described, Selection, UserAdminStore
    from synapse.util.clock import Clock


class UserAdmin:
    """In the main process."""

    def __init__(
        self,
        store: UserAdminStore,
        threepids: ThreepidStore,
        external_ids: ExternalIdStore,
        passwords: Passwords,
        password_change: PasswordChange,
        sessions: NewSessions,
        authenticator: Authenticator,
        clock: Clock,
        server_name: str,
    ) -> None:
        self._store = store
        self._threepids = threepids
        self._external_ids = external_ids
        self._passwords = passwords
        self._password_change = password_change
        self._sessions = sessions
        self._authenticator = authenticator
        self._clock = clock
        self._server_name = server_name

    # -- looking -----------------------------------------------------------------------------------------------------

    async def page(self, selection: Selection) -> dict[str, Any]:
        """A page of the list of accounts, with the `from` of the next one."""
        users, total = await self._store.page(selection)
        answer: dict[str, Any] = {"users": [_in_list(user) for user in users], "total": total}
        if selection.offset + len(users) < total:
            answer["next_token"] = str(selection.offset + len(users))
        return answer

    async def get(self, user_id: str) -> dict[str, Any]:
        """Raises 400 M_INVALID_PARAM, 404 M_NOT_FOUND."""
        described = await self.existing(user_id)
        addresses = [
            {
                "medium": one.medium,
                "address": one.address,
                "validated_at": one.validated_ts,
                "added_at": one.added_ts,
            }
            for one in await self._threepids.of_user(user_id)
        ]
        identities = [one._asdict() for one in await self._external_ids.of_user(user_id)]
        return _alone(described) | {"threepids": addresses, "external_ids": identities}

    async def existing(self, user_id: str) -> Described:
        """The account, which may be deactivated. Raises 400 M_INVALID_PARAM, 404 M_NOT_FOUND."""
        described = await self.described(user_id)
        if described is None:
            raise not_found("There is no such user on this server.")
        return described

    async def described(self, user_id: str) -> Described | None:
        """None where there is no account. Raises 400 M_INVALID_PARAM for what is no user id of this server."""
        parse_user_id(user_id)
        if domain_of(user_id) != self._server_name:
            raise invalid_param("The user does not belong to this server.")
        return await self._store.describe(user_id)

    # -- single things -------------------------------------------------------------------------------------------------

    async def set_admin(self, admin: Requester, user_id: str, value: bool) -> None:
        """Raises 400 M_INVALID_PARAM, 403 M_FORBIDDEN for giving up one's own rank, 404 M_NOT_FOUND."""
        if user_id == admin.user_id and not value:
            raise forbidden("Administrators cannot demote themselves.")
        await self.existing(user_id)
        await self.set_rank(user_id, admin=value, user_type=None)

    async def set_rank(self, user_id: str, *, admin: bool | None, user_type: str | None) -> None:
        """As `UserAdminStore.set_rank`, in every process."""
        await self._authenticator.forget(await self._store.set_rank(user_id, admin=admin, user_type=user_type))

    async def password_hash(self, password: str) -> str:
        """Raises 400 M_INVALID_PARAM, M_WEAK_PASSWORD."""
        return await self._passwords.hash(password)

    async def reset_password(self, user_id: str, password: str, logout_devices: bool) -> None:
        """Raises 400 M_INVALID_PARAM, M_WEAK_PASSWORD; 403 for deactivated accounts; 404 M_NOT_FOUND."""
        check_acceptable(password)  # before anything is asked of the database
        if (await self.existing(user_id)).deactivated:
            raise MatrixError(403, Codes.USER_DEACTIVATED, "This account has been deactivated.")
        await self.set_password(user_id, await self._passwords.hash(password), logout_devices)

    async def set_password(self, user_id: str, password_hash: str, logout_devices: bool) -> None:
        """Gives the account a password; with `logout_devices`, all its sessions end."""
        await self._password_change.set(user_id, password_hash, logout_devices)

    async def log_in_as(self, admin: Requester, user_id: str, valid_until_ms: int | None) -> LoggedIn:
        """A session as that user, without a device. Raises 400 M_INVALID_PARAM, 403, 404 M_NOT_FOUND."""
        if user_id == admin.user_id:
            raise invalid_param("This is for logging in as somebody else.")
        await self.existing(user_id)
        if valid_until_ms is not None and valid_until_ms <= self._clock.seconds() * 1000:
            raise invalid_param("'valid_until_ms' must be a time in the future, in milliseconds.")
        return await self._sessions.begin_without_device(user_id, valid_until_ms)


def _in_list(user: Described) -> dict[str, Any]:
    return {
        "name": user.user_id,
        "displayname": user.display_name,
        "avatar_url": user.avatar_url,
        "is_guest": user.is_guest,
        "admin": user.admin,
        "deactivated": user.deactivated,
        "erased": user.erased,
        "locked": user.locked,
        "suspended": user.suspended,
        "shadow_banned": False,
        "user_type": user.user_type,
        "creation_ts": user.created_ts,
        "last_seen_ts": user.last_seen_ts,
    }


def _alone(user: Described) -> dict[str, Any]:
    return _in_list(user) | {
        "creation_ts": user.created_ts // 1000,  # in seconds: so the programs have it that ask for it
        "appservice_id": user.app_service_id,
        "consent_version": user.consent_version,
        "consent_ts": user.consent_ts,
        "consent_server_notice_sent": user.consent_notice_sent,
    }
