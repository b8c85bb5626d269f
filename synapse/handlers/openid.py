"""OpenID tokens: a user gets one here and hands it to another service, which asks us whose it is.

Such a token proves who the user is, and opens nothing of the account. Client-server API, "OpenID"; server-server API,
"OpenID".
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import unknown_token

if TYPE_CHECKING:
    from synapse.storage.openid import OpenIdStore
    from synapse.util.clock import Clock

LIFETIME_SECONDS: Final = 3600
MAX_TOKENS: Final = 100  # of one user; the oldest make room for new ones


class OpenId:
    """Issues tokens and says whose they are."""

    def __init__(self, store: OpenIdStore, clock: Clock, server_name: str) -> None:
        self._store = store
        self._clock = clock
        self._server_name = server_name

    async def issue(self, user_id: str) -> dict[str, Any]:
        """A new token, as `POST /user/{userId}/openid/request_token` answers."""
        token, now = secrets.token_urlsafe(32), self._now()
        await self._store.add(user_id, _hash(token), now + LIFETIME_SECONDS * 1000, now, MAX_TOKENS)
        return {
            "access_token": token,
            "token_type": "Bearer",
            "matrix_server_name": self._server_name,
            "expires_in": LIFETIME_SECONDS,
        }

    async def owner(self, token: str) -> str:
        """Whose token it is. Raises 401 M_UNKNOWN_TOKEN."""
        user_id = await self._store.owner(_hash(token), self._now())
        if user_id is None:
            raise unknown_token(message="This OpenID token is not known, or has expired.")
        return user_id

    async def forget_old(self) -> None:
        """Drops what has expired; the main process does it once in a while."""
        await self._store.forget(self._now())

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
