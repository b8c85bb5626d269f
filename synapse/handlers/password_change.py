"""Changing one's password, and what becomes of the sessions that were made with the old one.

That the user may do so has been proven before, by interactive authentication. Client-server API, "Account management".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse.api.errors import Codes, MatrixError, forbidden
from synapse.handlers.account_rules import locked
from synapse.storage.users import Kept

if TYPE_CHECKING:
    from synapse.handlers.devices import Devices
    from synapse.handlers.validations import Validations
    from synapse.http.server import Requester
    from synapse.storage.threepids import ThreepidStore
    from synapse.storage.users import UserStore


class PasswordChange:
    """Gives users another password.

    :param enabled: whether there are passwords on this server at all.
    """

    def __init__(
        self,
        users: UserStore,
        devices: Devices,
        threepids: ThreepidStore,
        validations: Validations,
        *,
        enabled: bool,
    ) -> None:
        self._users = users
        self._threepids = threepids
        self._validations = validations
        self._devices = devices
        self.enabled = enabled

    def check_enabled(self) -> None:
        """Raises 403 where nobody logs in with a password."""
        if not self.enabled:
            raise forbidden("Passwords are not used on this server.")

    async def change(self, user: Requester, password_hash: str, logout_devices: bool) -> None:
        """Sets the password; with `logout_devices`, the session that asks is the only one left."""
        await self.set(user.user_id, password_hash, logout_devices, Kept(user.device_id, user.token_id))

    async def set(self, user_id: str, password_hash: str, logout_devices: bool, keep: Kept | None = None) -> None:
        """Sets the password; with `logout_devices`, no session is left but `keep`, nor comes by the old one."""
        if not logout_devices:
            await self._users.set_password_hash(user_id, password_hash)
            return
        await self._devices.delete_by(
            user_id, lambda position: self._users.set_password_and_log_out(user_id, password_hash, keep, position)
        )

    async def reset(self, proof: dict[str, Any], password_hash: str, logout_devices: bool) -> None:
        """Sets the password of the user who has the address that was proven; with `logout_devices`, no session is left.

        :param proof: what `ThreepidStage` gives; it is good once. Raises 400 M_THREEPID_NOT_FOUND, M_SESSION_EXPIRED,
            401 M_USER_LOCKED.
        """
        user_id = await self._threepids.owner(proof["medium"], proof["address"])
        if user_id is None:
            raise MatrixError(400, Codes.THREEPID_NOT_FOUND, "Nobody has this address here (any more).")
        user = await self._users.get(user_id)
        if user is not None and user.locked:
            raise locked()
        if not await self._validations.use(proof["sid"]):
            raise MatrixError(400, Codes.SESSION_EXPIRED, "This validation was used already; ask for another message.")
        await self.set(user_id, password_hash, logout_devices)
