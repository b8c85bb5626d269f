"""`POST /_synapse/admin/v1/deactivate/{user_id}`: an administrator ends somebody's account."""

from __future__ import annotations

from typing import Any

import msgspec

from synapse.api.errors import forbidden
from synapse.api.identifiers import parse_user_id
from synapse.handlers.deactivation import Deactivation
from synapse.http.server import Request, serves
from synapse.rest.client.threepids import unbind_result


class DeactivateOptions(msgspec.Struct, frozen=True):
    """The body; `erase` also takes what tells who it was, and shows newcomers nothing of what the user has written."""

    erase: bool = False


class AdminDeactivate:
    """Does for a user what they could do for themselves; who is deactivated already may still be erased."""

    def __init__(self, deactivation: Deactivation) -> None:
        self._deactivation = deactivation

    @serves("admin_deactivate")
    async def deactivate(self, request: Request, user_id: str) -> dict[str, Any]:
        parse_user_id(user_id)
        if user_id == request.user.user_id:
            raise forbidden("Administrators cannot deactivate themselves here; there is /account/deactivate for that.")
        options = request.body_as(DeactivateOptions, allow_empty=True)
        return unbind_result(await self._deactivation.deactivate(user_id, options.erase))
