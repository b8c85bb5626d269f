"""Changing one's password, and what becomes of the sessions that were made with the old one.

That the user may do so has been proven before, by interactive authentication. Client-server API, "Account management".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.api.errors import forbidden

if TYPE_CHECKING:
    from synapse.handlers.devices import Devices
    from synapse.http.server import Requester
    from synapse.storage.users import UserStore


class PasswordChange:
    """Gives users another password.

    :param enabled: whether there are passwords on this server at all.
    """

    def __init__(self, users: UserStore, devices: Devices, *, enabled: bool) -> None:
        self._users = users
        self._devices = devices
        self.enabled = enabled

    def check_enabled(self) -> None:
        """Raises 403 where nobody logs in with a password."""
        if not self.enabled:
            raise forbidden("Passwords are not used on this server.")

    async def change(self, user: Requester, password_hash: str, logout_devices: bool) -> None:
        """Sets the password; with `logout_devices`, the session that asks is the only one left."""
        await self._users.set_password_hash(user.user_id, password_hash)
        if logout_devices:
            await self._devices.delete_others(user.user_id, user.device_id, user.token_id)
