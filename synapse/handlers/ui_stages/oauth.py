"""`m.oauth`: those who have logged in at the OAuth 2.0 authorization server confirm something on its pages.

That they did is told by the authorization server (or an administrator), which lets their keys be replaced without any
other proof for a while (`CrossSigning.allow_replacement`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from synapse.api.constants import LoginTypes
from synapse.api.errors import Codes, MatrixError, forbidden
from synapse.storage.cross_signing import MASTER

if TYPE_CHECKING:
    from synapse.handlers.oauth_metadata import OAuthMetadata
    from synapse.handlers.ui_auth import Flows
    from synapse.handlers.ui_stages.types import Attempt
    from synapse.storage.cross_signing import CrossSigningStore
    from synapse.util.clock import Clock

_ACTION: Final = "org.matrix.cross_signing_reset"


class OAuthStage:
    """Client-server API, "OAuth authentication"; for `POST /keys/device_signing/upload` alone."""

    kind: str = LoginTypes.OAUTH

    def __init__(self, metadata: OAuthMetadata, keys: CrossSigningStore, clock: Clock) -> None:
        self._metadata = metadata
        self._keys = keys
        self._clock = clock

    async def flows(self) -> Flows:
        """For who comes with a token of the authorization server. Raises 403 M_FORBIDDEN where that has no such page,
        502 M_UNKNOWN where it was never reached."""
        await self._metadata.get()
        if self._metadata.account_management_uri is None:
            raise forbidden("The authorization server has no page to confirm this on; please ask an administrator.")
        return [[self.kind]]

    def params(self) -> dict[str, Any] | None:
        url = self._metadata.account_management_uri
        return None if url is None else {"url": f"{url}{'&' if '?' in url else '?'}{urlencode({'action': _ACTION})}"}

    async def check(self, auth: dict[str, Any], attempt: Attempt) -> Any:
        user_id = attempt.operation.user_id
        master = None if user_id is None else (await self._keys.keys_of(user_id)).get(MASTER)
        if master is None or (master.replaceable_until or 0) <= self._clock.seconds() * 1000:
            raise MatrixError(401, Codes.FORBIDDEN, "It has not been confirmed at the authorization server yet.")
        return True


def named(body: dict[str, Any]) -> dict[str, Any]:
    """The request of a client that goes on with its session, which is all that it says, as one for this stage."""
    auth = body.get("auth")
    if isinstance(auth, dict) and "session" in auth:
        return {**body, "auth": {"type": LoginTypes.OAUTH, **auth}}
    return body
