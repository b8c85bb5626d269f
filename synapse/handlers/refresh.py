"""Refreshing access tokens: a refresh token is exchanged for a new one and a new access token.

The tokens of before are good until one of the new ones is used, so that a client which did not get them can ask again.
Who comes with a token that is used up already, or has expired, is told that the device itself is still logged in (a
"soft logout"): the client keeps its keys, and its user logs in again.

Client-server API, "Refreshing access tokens".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from synapse.api.errors import MatrixError, unknown_token
from synapse.handlers.account_rules import locked
from synapse.handlers.tokens import REFRESH, hash_token, is_plausible, make_token
from synapse.storage.refresh_tokens import Exchange, NewRefreshToken

if TYPE_CHECKING:
    from synapse.handlers.auth import Authenticator
    from synapse.handlers.lifetimes import Lifetimes
    from synapse.storage.refresh_tokens import RefreshToken, RefreshTokenStore
    from synapse.util.clock import Clock


class Refreshed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer."""

    access_token: str
    refresh_token: str
    expires_in_ms: int | None = None


class Refresh:
    """Exchanges refresh tokens, in any process."""

    def __init__(
        self, store: RefreshTokenStore, lifetimes: Lifetimes, authenticator: Authenticator, clock: Clock
    ) -> None:
        self._store = store
        self._lifetimes = lifetimes
        self._authenticator = authenticator
        self._clock = clock

    async def refresh(self, text: str) -> Refreshed:
        """Client-server API, `POST /refresh`. Raises 401 M_UNKNOWN_TOKEN or M_USER_LOCKED."""
        token = await self._store.get(hash_token(text)) if is_plausible(text, REFRESH) else None
        if token is None:
            raise unknown_token(message="The refresh token is not known.")
        now = int(self._clock.seconds() * 1000)
        if token.used_up:
            raise _used_up()
        if any(end is not None and end <= now for end in (token.expires_ts, token.session_expires_ts)):
            raise unknown_token(soft_logout=True, message="The refresh token has expired; please log in again.")
        if token.locked:
            raise locked()
        return await self._exchange(token, now)

    async def _exchange(self, token: RefreshToken, now: int) -> Refreshed:
        access, refresh = make_token(token.user_id), make_token(token.user_id, REFRESH)
        session_end = token.session_expires_ts
        access_end = self._lifetimes.access_end(now, session_end, refreshable=True)
        successor = NewRefreshToken(hash_token(refresh), self._lifetimes.refresh_end(now, session_end), session_end)
        gone = await self._store.exchange(Exchange(token.id, successor, hash_token(access), access_end, now))
        if gone is None:
            raise _used_up()
        await self._authenticator.forget(gone)
        expires_in_ms = None if access_end is None else access_end - now
        return Refreshed(access_token=access, refresh_token=refresh, expires_in_ms=expires_in_ms)


def _used_up() -> MatrixError:
    return unknown_token(soft_logout=True, message="The refresh token has been used already.")
