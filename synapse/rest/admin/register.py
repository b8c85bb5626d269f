"""`/_synapse/admin/v1/register`: registration with the shared secret.

GET answers a nonce; POST sends it back with username, password, admin and a MAC: HMAC-SHA1, in hexadecimal, with the
secret as key, of nonce, username, password, "admin" or "notadmin", and the user type if there is one, with NULs
between.
"""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.handlers.new_sessions import DeviceRequest, LoggedIn
from synapse.handlers.passwords import Passwords
from synapse.handlers.registration import Registration
from synapse.handlers.shared_secret import SharedSecret
from synapse.http.server import Request, serves


class SecretRegistration(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the POST."""

    nonce: str
    username: str
    password: str
    mac: str
    admin: bool = False
    user_type: str | None = None
    displayname: str | None = None
    inhibit_login: bool = False


class AdminRegister:
    """Registers for who knows the secret."""

    def __init__(self, registration: Registration, secret: SharedSecret, passwords: Passwords) -> None:
        self._registration = registration
        self._passwords = passwords
        self._secret = secret

    @serves("admin_register_nonce")
    async def nonce(self, request: Request) -> dict[str, Any]:
        return {"nonce": self._secret.new_nonce()}

    @serves("admin_register")
    async def register(self, request: Request) -> LoggedIn:
        body = request.body_as(SecretRegistration)
        self._secret.check(body.nonce, body.mac, body.username, body.password, body.admin, body.user_type)
        return await self._registration.register(
            body.username,
            await self._passwords.hash(body.password),
            None if body.inhibit_login else DeviceRequest(),
            admin=body.admin,
            user_type=body.user_type,
            display_name=body.displayname,
        )
