"""Tokens that are good for one log-in, and for a short time: what single sign-on sends a client away with, and what a
logged-in client may get for another device.

    token = await login_tokens.issue(user_id)          # in any process
    found = await login_tokens.redeem(token)           # in any other; a second time it raises 403

Client-server API, "Token-based login"; `POST /login/get_token`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from synapse.api.errors import forbidden
from synapse.api.identifiers import random_letters
from synapse.handlers.tokens import hash_token
from synapse.storage.login_tokens import LoginToken

if TYPE_CHECKING:
    from synapse.storage.login_tokens import LoginTokenStore
    from synapse.util.clock import Clock

# The specification's "around five seconds" leave nobody the time to read on which page the token is sent where.
DEFAULT_LIFETIME_MS: Final = 2 * 60 * 1000
_PREFIX: Final = "syl_"
_SECRET_LETTERS: Final = 40
_MAX_TOKEN: Final = 512


class LoginTokens:
    """Issues and redeems them."""

    def __init__(self, store: LoginTokenStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def issue(
        self,
        user_id: str,
        *,
        lifetime_ms: int = DEFAULT_LIFETIME_MS,
        auth_provider: str | None = None,
        provider_session: str | None = None,
    ) -> str:
        """A new token by which somebody may log in once as `user_id`, within so many milliseconds.

        :param auth_provider: the identity provider that vouched for the user, if one did.
        :param provider_session: the session there.
        """
        token = _PREFIX + random_letters(_SECRET_LETTERS)
        now = self._now()
        kept = LoginToken(hash_token(token), user_id, now + lifetime_ms, auth_provider, provider_session)
        await self._store.add(kept, now)
        return token

    async def redeem(self, token: str) -> LoginToken:
        """Whom it is for; it is used up by that. Raises 403 M_FORBIDDEN for one that is unknown, old or used."""
        found = None
        if token.startswith(_PREFIX) and len(token) <= _MAX_TOKEN:
            found = await self._store.take(hash_token(token), self._now())
        if found is None:
            raise forbidden("The login token is not known, or has expired, or was used already.")
        return found

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
