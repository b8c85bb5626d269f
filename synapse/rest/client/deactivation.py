"""The endpoint for giving up one's account. Client-server API, `POST /account/deactivate`."""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.api.constants import LoginTypes
from synapse.api.errors import forbidden
from synapse.handlers.account_rules import locked
from synapse.handlers.deactivation import Deactivation
from synapse.handlers.login_kinds.password import PasswordLogin
from synapse.handlers.ui_auth import Operation, UiAuth
from synapse.http.body import convert
from synapse.http.server import Request, serves
from synapse.rest.client.threepids import unbind_result
from synapse.storage.users import UserStore


class Wish(msgspec.Struct, frozen=True):
    """The body, without `auth`. The identity server is the one to unbind the user's addresses from."""

    erase: bool = False
    id_server: str | None = None


class DeactivateAccount:
    """`/account/deactivate`."""

    def __init__(self, deactivation: Deactivation, passwords: PasswordLogin, ui_auth: UiAuth, users: UserStore) -> None:
        self._users = users
        self._deactivation = deactivation
        self._passwords = passwords
        self._ui_auth = ui_auth

    @serves("account_deactivate")
    async def deactivate(self, request: Request) -> dict[str, Any]:
        body = request.json_object(allow_empty=True)
        convert(body, Wish)  # what is wrong is said before the client is sent through the stages
        user_id = await self._whose(request, body)
        operation = Operation("POST", "account_deactivate", "deactivate the account", user_id)
        flows = await self._ui_auth.own_flows(user_id if request.requester is not None else None)
        wish = convert((await self._ui_auth.check(operation, body, flows, request)).body, Wish)
        if user_id is None:
            raise forbidden("It does not become clear whose account is to be deactivated.")
        user = None if request.requester is not None else await self._users.get(user_id)
        if user is not None and user.locked:  # who comes with a token was told so before
            raise locked()
        return unbind_result(await self._deactivation.deactivate(user_id, wish.erase, wish.id_server))

    async def _whose(self, request: Request, body: dict[str, Any]) -> str | None:
        """The account of the one who is logged in, else of the one whose password is given; None before it is."""
        if request.requester is not None:
            return request.requester.user_id
        auth = body.get("auth")
        if not isinstance(auth, dict) or auth.get("type") != LoginTypes.PASSWORD:
            return None
        return await self._passwords.named_user(auth)
