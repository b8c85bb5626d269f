"""Logging in as a user of an application service, by the service's own token.

Application-service API, "Server admin style permissions".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from synapse.api.app_services import check_own_user
from synapse.api.constants import LoginTypes
from synapse.api.errors import missing_token, unknown_token
from synapse.handlers.login_kinds import LoginProof
from synapse.http.router import access_token

if TYPE_CHECKING:
    from synapse.api.app_services import AppService, AppServices
    from synapse.handlers.login_names import LoginNames
    from synapse.http.request import Request


class AppServiceLogin:
    """The user in `identifier` must be of the service whose token comes with the request."""

    kind: Final = LoginTypes.APPLICATION_SERVICE

    def __init__(self, services: AppServices, names: LoginNames) -> None:
        self._services = services
        self._names = names

    def flow(self) -> dict[str, Any] | None:
        return {"type": self.kind} if self._services else None

    async def user_of(self, body: dict[str, Any], request: Request) -> LoginProof:
        """Raises 401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN, 400 M_EXCLUSIVE and what is wrong with the identifier."""
        service = service_of(self._services, request)
        user_id = await self._names.named(body)
        check_own_user(service, user_id)
        return LoginProof(user_id)


def service_of(services: AppServices, request: Request) -> AppService:
    """The service that sends a request which only services may. Raises 401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN."""
    service = services.get(request.requester.app_service if request.requester is not None else None)
    if service is None:
        raise missing_token() if access_token(request) is None else unknown_token()
    return service
