"""The endpoint for giving up one's account. Client-server API, `POST /account/deactivate`."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from synapse.api.constants import LoginTypes
from synapse.handlers.deactivation import Deactivation
from synapse.handlers.ui_auth import Operation, UiAuth
from synapse.http.body import convert
from synapse.http.server import Request, serves

_FLOWS: Final = [[LoginTypes.PASSWORD]]


class Wish(msgspec.Struct, frozen=True):
    """The body, without `auth`. There is nothing to be unbound from the identity server that it may name."""

    erase: bool = False
    id_server: str | None = None


class DeactivateAccount:
    """`/account/deactivate`."""

    def __init__(self, deactivation: Deactivation, ui_auth: UiAuth) -> None:
        self._deactivation = deactivation
        self._ui_auth = ui_auth

    @serves("account_deactivate")
    async def deactivate(self, request: Request) -> dict[str, Any]:
        body = request.json_object(allow_empty=True)
        convert(body, Wish)  # what is wrong is said before the client is sent through the stages
        operation = Operation("POST", "account_deactivate", "deactivate the account", request.user.user_id)
        wish = convert(await self._ui_auth.check(operation, body, _FLOWS), Wish)
        await self._deactivation.deactivate(request.user.user_id, wish.erase)
        return {"id_server_unbind_result": "success"}
