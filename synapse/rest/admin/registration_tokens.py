"""Administrators' endpoints for registration tokens: `/_synapse/admin/v1/registration_tokens`."""

from __future__ import annotations

from typing import Any

from synapse.handlers.registration_tokens import Limits, NewToken, RegistrationTokens
from synapse.http.server import Request, serves


class AdminRegistrationTokens:
    """Lists, makes, changes and deletes tokens."""

    def __init__(self, tokens: RegistrationTokens) -> None:
        self._tokens = tokens

    @serves("admin_registration_tokens")
    async def all(self, request: Request) -> dict[str, Any]:
        valid = None if request.arg("valid") is None else request.bool_arg("valid")
        return {"registration_tokens": await self._tokens.all(valid)}

    @serves("admin_registration_token_new")
    async def new(self, request: Request) -> dict[str, Any]:
        return await self._tokens.new(request.body_as(NewToken, allow_empty=True))

    @serves("admin_registration_token_get")
    async def get(self, request: Request, token: str) -> dict[str, Any]:
        return await self._tokens.get(token)

    @serves("admin_registration_token_set")
    async def change(self, request: Request, token: str) -> dict[str, Any]:
        return await self._tokens.change(token, request.body_as(Limits))

    @serves("admin_registration_token_delete")
    async def delete(self, request: Request, token: str) -> dict[str, Any]:
        await self._tokens.delete(token)
        return {}
