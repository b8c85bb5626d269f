"""The endpoint where other services learn whose an OpenID token is: they sign nothing. Server-server API, "OpenID"."""

from __future__ import annotations

from typing import Any

from synapse.api.errors import missing_token
from synapse.handlers.openid import OpenId
from synapse.http.server import Request, serves


class OpenIdUserInfo:
    """`/_matrix/federation/v1/openid/userinfo`."""

    def __init__(self, openid: OpenId) -> None:
        self._openid = openid

    @serves("openid_userinfo")
    async def user_info(self, request: Request) -> dict[str, Any]:
        token = request.arg("access_token")
        if token is None:
            raise missing_token("This request needs an OpenID token, as `access_token` in its query.")
        return {"sub": await self._openid.owner(token)}
