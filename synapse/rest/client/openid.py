"""The endpoint where users get OpenID tokens. Client-server API, "OpenID"."""

from __future__ import annotations

from typing import Any

from synapse.handlers.openid import OpenId
from synapse.handlers.profile import check_owner
from synapse.http.server import Request, serves


class OpenIdTokens:
    """`/user/{userId}/openid/request_token`."""

    def __init__(self, openid: OpenId) -> None:
        self._openid = openid

    @serves("openid_request_token")
    async def request_token(self, request: Request, user_id: str) -> dict[str, Any]:
        check_owner(request.user.user_id, user_id)
        request.json_object(allow_empty=True)  # reserved for future expansion
        return await self._openid.issue(user_id)
