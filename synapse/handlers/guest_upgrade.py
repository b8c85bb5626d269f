"""Guests who register: the account that they have becomes a full one, under the same id and in the same rooms.

They prove that it is theirs by the guest's access token, which is worth nothing afterwards. Client-server API, "Guest
Access", client behaviour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.api.errors import MatrixError, forbidden, missing_param
from synapse.handlers.new_sessions import DeviceRequest, LoggedIn
from synapse.handlers.registration import NewAccount, honoured, in_use
from synapse.replication.calls import Call
from synapse.storage.registration_proofs import NO_PROOFS, Proofs
from synapse.storage.users import GuestToUpgrade

if TYPE_CHECKING:
    from synapse.handlers.auth import Authenticator
    from synapse.handlers.device_changes import DeviceChanges
    from synapse.handlers.new_sessions import NewSessions
    from synapse.handlers.registration import Registration
    from synapse.http.request import Request
    from synapse.replication.calls import MainProcess
    from synapse.storage.users import UserStore
    from synapse.util.clock import Clock

UPGRADE = Call("accounts.upgrade_guest", NewAccount, bool)


class GuestUpgrade:
    """Makes full accounts of guests' ones, from any process."""

    def __init__(
        self,
        users: UserStore,
        sessions: NewSessions,
        authenticator: Authenticator,
        changes: DeviceChanges,
        registration: Registration,
        main: MainProcess,
        clock: Clock,
    ) -> None:
        self._clock = clock
        self._registration = registration
        self._users = users
        self._sessions = sessions
        self._authenticator = authenticator
        self._changes = changes
        self._main = main
        main.expose(UPGRADE, self._upgrade)

    async def check(self, username: str | None, guest_token: str, request: Request) -> str:
        """The id of the guest whose token it is. Raises 400 M_MISSING_PARAM, 403 unless it is the named user's."""
        if username is None:
            raise missing_param("username")
        try:
            guest = await self._authenticator.authenticate(guest_token, request)
        except MatrixError:
            raise forbidden("The 'guest_access_token' is not the token of a guest of this server.") from None
        if not guest.is_guest or guest.user_id[1:].partition(":")[0] != username.lower():
            raise forbidden("The 'guest_access_token' is not the token of the guest that 'username' names.")
        return guest.user_id

    async def upgrade(
        self,
        user_id: str,
        password_hash: str | None,
        device: DeviceRequest | None,
        *,
        refresh: bool = False,
        proofs: Proofs = NO_PROOFS,
    ) -> LoggedIn:
        """Gives the guest a password, ends its sessions, and logs in with `device` unless it is None."""
        answer, session = LoggedIn.without_session(user_id), None
        if device is not None:
            session, answer = self._sessions.draft(user_id, device, refresh=refresh)
        account = NewAccount(user_id=user_id, password_hash=password_hash, session=session, proofs=proofs)
        if not await self._main(UPGRADE, account):
            raise in_use()
        return answer

    async def _upgrade(self, account: NewAccount) -> bool:
        now = int(self._clock.seconds() * 1000)
        arrives = self._registration.welcomes
        guest = GuestToUpgrade(account.user_id, account.password_hash, account.session, account.proofs, now, arrives)
        gone = await self._authenticator.revoking(honoured(self._users.upgrade_guest(guest)))
        if gone is None:
            return False
        await self._changes.devices_gone(account.user_id, gone.device_ids)
        if arrives:
            await self._registration.welcome(account.user_id)
        return True
