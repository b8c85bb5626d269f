"""Whom an application service acts as: itself, or one of the users of its namespaces, on a device of theirs.

A service comes with its `as_token` and names the user with each request. What follows from that is what follows from a
user's own access token: rights, standing, a cached look-up. So the identity is kept as one, by a hash of service, user
and device that is no token's; it goes with the user's or the device's tokens, and is made again at the next request if
it still may. The user that a service has of its own gets an account the first time that it is needed.

Application-service API, "Identity assertion".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.api.errors import Codes, MatrixError, forbidden
from synapse.handlers.tokens import hash_token

if TYPE_CHECKING:
    from synapse.api.app_services import AppService, AppServices
    from synapse.http.server import Request
    from synapse.replication.calls import MainProcess
    from synapse.storage.access_tokens import AccessTokenStore
    from synapse.storage.users import UserStore
    from synapse.util.clock import Clock

_DEVICE: Final = ("device_id", "org.matrix.msc3202.device_id")


class Identity(NamedTuple):
    """Whom a service acts as."""

    service: AppService
    user_id: str
    device_id: str | None

    @property
    def token_hash(self) -> bytes:
        """What stands for it in place of a token's hash. Nobody can send a token that has it."""
        return hash_token(f"application service\0{self.service.id}\0{self.user_id}\0{self.device_id or ''}")


class AppServiceIdentities:
    """Finds out whom services act as."""

    def __init__(
        self,
        services: AppServices,
        tokens: AccessTokenStore,
        users: UserStore,
        main: MainProcess,
        clock: Clock,
    ) -> None:
        self.services = services
        self._tokens = tokens
        self._users = users
        self._main = main
        self._clock = clock

    def of(self, token: str, request: Request) -> Identity | None:
        """None where the token is not a service's. Raises 403 M_FORBIDDEN for users that are not the service's."""
        if not self.services:
            return None
        service = self.services.of_token(hash_token(token))
        if service is None:
            return None
        user_id = request.arg("user_id") or service.sender
        if not service.has_user(user_id):
            raise forbidden("The application service may not act as the user in 'user_id'.")
        device_id = next((value for name in _DEVICE if (value := request.arg(name))), None)
        return Identity(service, user_id, device_id)

    async def establish(self, identity: Identity) -> None:
        """Makes the identity known, so that its hash is found like a token's.

        Raises 403 M_FORBIDDEN or M_USER_DEACTIVATED where there is no such account, 400 M_UNKNOWN_DEVICE.
        """
        from synapse.handlers.registration import CREATE_ACCOUNT, NewAccount  # which most processes do without

        user = await self._users.get(identity.user_id)
        if user is None and identity.user_id == identity.service.sender:
            account = NewAccount(user_id=identity.user_id, password_hash=None, app_service_id=identity.service.id)
            await self._main(CREATE_ACCOUNT, account)
        elif user is None:
            raise forbidden("The application service has to register the user in 'user_id' first.")
        elif user.deactivated:
            raise MatrixError(403, Codes.USER_DEACTIVATED, "This account has been deactivated.")
        now = int(self._clock.seconds() * 1000)
        service_id, user_id, device_id = identity.service.id, identity.user_id, identity.device_id
        if not await self._tokens.assert_identity(identity.token_hash, user_id, device_id, service_id, now):
            raise MatrixError(400, Codes.UNKNOWN_DEVICE, "The user has no device of the ID in 'device_id'.")
