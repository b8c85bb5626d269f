"""Endpoints that have messages sent to addresses, and that take codes back. Client-server API, "Account management"."""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.handlers.threepid_tokens import EmailWish, MsisdnWish, ThreepidTokens, TokenSession
from synapse.handlers.validations import ADD_THREEPID, PASSWORD_RESET, REGISTRATION, Validations
from synapse.http.server import Request, serves


class Code(msgspec.Struct, frozen=True):
    """What was sent to an address, and the session for which it was."""

    sid: str
    client_secret: str
    token: str


class ThreepidTokenEndpoints:
    """`…/email/requestToken`, `…/msisdn/requestToken`, and where codes are sent."""

    def __init__(self, tokens: ThreepidTokens, validations: Validations) -> None:
        self._tokens = tokens
        self._validations = validations

    @serves("register_email_token")
    async def register_email(self, request: Request) -> TokenSession:
        return await self._email(REGISTRATION, request)

    @serves("register_msisdn_token")
    async def register_msisdn(self, request: Request) -> TokenSession:
        return await self._msisdn(REGISTRATION, request)

    @serves("password_email_token")
    async def password_email(self, request: Request) -> TokenSession:
        return await self._email(PASSWORD_RESET, request)

    @serves("password_msisdn_token")
    async def password_msisdn(self, request: Request) -> TokenSession:
        return await self._msisdn(PASSWORD_RESET, request)

    @serves("threepids_email_token")
    async def threepid_email(self, request: Request) -> TokenSession:
        return await self._email(ADD_THREEPID, request)

    @serves("threepids_msisdn_token")
    async def threepid_msisdn(self, request: Request) -> TokenSession:
        return await self._msisdn(ADD_THREEPID, request)

    @serves("submit_msisdn_token")
    async def submit_msisdn(self, request: Request) -> dict[str, Any]:
        """Identity service API, `POST /validate/msisdn/submitToken`, for sessions of any purpose."""
        code = request.body_as(Code)
        await self._validations.submit(code.sid, code.client_secret, code.token)
        return {"success": True}

    async def _email(self, purpose: str, request: Request) -> TokenSession:
        return await self._tokens.email(purpose, request.body_as(EmailWish), request.client_ip)

    async def _msisdn(self, purpose: str, request: Request) -> TokenSession:
        return await self._tokens.msisdn(purpose, request.body_as(MsisdnWish), request.client_ip)
