"""Endpoints about accounts that expire: the page behind the link of a mail, that mail, and what administrators set."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from synapse.api.errors import MatrixError, invalid_param, unrecognized
from synapse.api.identifiers import parse_user_id
from synapse.handlers.account_validity import AccountValidity, day_of
from synapse.http.pages import new_nonce, page
from synapse.http.server import Answer, Request, serves
from synapse.util.templates import Templates

_MAX_TIME = 2**53 - 1


class SetValidity(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `POST /_synapse/admin/v1/account_validity/validity`. Without a time, the period begins anew."""

    user_id: str
    expiration_ts: Annotated[int, msgspec.Meta(ge=0, le=_MAX_TIME)] | None = None
    enable_renewal_emails: bool = True


class ValidityEndpoints:
    """:param validity: None where accounts do not expire."""

    def __init__(self, validity: AccountValidity | None, templates: Templates, server_name: str) -> None:
        self._maybe = validity
        self._templates = templates
        self._server_name = server_name

    @property
    def _validity(self) -> AccountValidity:
        if self._maybe is None:
            raise unrecognized("Accounts do not expire on this server.")
        return self._maybe

    @serves("account_validity_renew")
    async def renew(self, request: Request) -> Answer:
        validity, nonce = self._validity, new_nonce()
        try:
            end = await validity.renew(request.required_arg("token"))
        except MatrixError as error:
            return page(self._templates.render("invalid_token.html", nonce=nonce), nonce, code=error.code)
        return page(self._templates.render("account_renewed.html", nonce=nonce, expires=day_of(end)), nonce)

    @serves("account_validity_send_mail")
    async def send_mail(self, request: Request) -> dict[str, Any]:
        await self._validity.send_mail(request.user.user_id)
        return {}

    @serves("admin_account_validity")
    async def set_validity(self, request: Request) -> dict[str, Any]:
        wish = request.body_as(SetValidity)
        if parse_user_id(wish.user_id).domain != self._server_name:
            raise invalid_param("The user does not belong to this server.")
        end = await self._validity.set(wish.user_id, wish.expiration_ts, tell=wish.enable_renewal_emails)
        return {"expiration_ts": end}
