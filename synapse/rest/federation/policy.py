"""The policy server that this server may be. Server-server API and client-server API, "Policy Servers"."""

from __future__ import annotations

from typing import Any

from synapse.api.errors import not_found
from synapse.handlers.doors.policy import PolicyService, no_service
from synapse.http.server import Request, serves


class PolicyServer:
    """`/_matrix/policy/v1/sign`, and the file by which its key is found.

    :param service: None where this server is no policy server.
    """

    def __init__(self, service: PolicyService | None) -> None:
        self._service = service

    @serves("policy_sign")
    async def sign(self, request: Request) -> dict[str, dict[str, str]]:
        if self._service is None:
            raise no_service()
        return await self._service.answer(request.origin, request.body)

    @serves("well_known_policy_server")
    async def key(self, request: Request) -> dict[str, Any]:
        if self._service is None:
            raise not_found("This server is not a policy server.")
        return {"public_keys": {"ed25519": self._service.public_key}}
