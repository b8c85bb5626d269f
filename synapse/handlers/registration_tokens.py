"""Registration tokens: whether one is good, and what administrators do with them.

Client-server API, "Token-authenticated registration".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from synapse.api.errors import invalid_param, not_found
from synapse.api.identifiers import random_letters
from synapse.handlers.ui_auth import SESSION_LIFETIME_MS
from synapse.storage.registration_tokens import RegistrationToken

if TYPE_CHECKING:
    from synapse.storage.registration_tokens import RegistrationTokenStore
    from synapse.util.clock import Clock

MAX_TOKEN: Final = 64
DEFAULT_LENGTH: Final = 16
MAX_NUMBER: Final = 2**53 - 1
_TOKEN: Final = re.compile(r"[0-9A-Za-z._~-]{1,64}", re.ASCII)
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~-"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long a token is good; what is not given stays as it is, null is no limit."""

    uses_allowed: int | msgspec.UnsetType | None = msgspec.UNSET
    expiry_time: int | msgspec.UnsetType | None = msgspec.UNSET  # milliseconds since the epoch


class NewToken(Limits, frozen=True, kw_only=True):
    """A token to be made; without a text of its own, one of `length` characters is made up."""

    token: str | None = None
    length: int = DEFAULT_LENGTH


class RegistrationTokens:
    """Checks and keeps tokens, in any process."""

    def __init__(self, store: RegistrationTokenStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def is_valid(self, token: str) -> bool:
        """Whether somebody may begin to register with it."""
        found = await self._find(token)
        return found is not None and found.is_valid(self._now())

    # -- for administrators ------------------------------------------------------------------------------------------

    async def all(self, valid: bool | None) -> list[dict[str, Any]]:
        """Every token, or only those that are (not) valid; those that are used up by pending ones are not."""
        now = self._now()
        return [
            _shown(token)
            for token in await self._store.all(now - SESSION_LIFETIME_MS)
            if valid is None or token.is_valid(now) is valid
        ]

    async def get(self, token: str) -> dict[str, Any]:
        """Raises 404 M_NOT_FOUND."""
        return _shown(await self._known(token))

    async def new(self, wish: NewToken) -> dict[str, Any]:
        """Makes a token. Raises 400 M_INVALID_PARAM, also where it exists."""
        if wish.token is not None and not _TOKEN.fullmatch(wish.token):
            raise invalid_param("A token has 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -")
        if not 1 <= wish.length <= MAX_TOKEN:
            raise invalid_param(f"The 'length' must be from 1 to {MAX_TOKEN}.")
        limits = self._limited(RegistrationToken("", None, None), wish)
        for _ in range(10):
            text = wish.token or random_letters(wish.length, _ALPHABET)
            token = RegistrationToken(text, limits.uses_allowed, limits.expiry_ts)
            if await self._store.create(token):
                return _shown(token)
            if wish.token is not None:
                raise invalid_param("There is such a token already.")
        raise invalid_param(f"All tokens of {wish.length} characters seem to be in use; ask for a longer one.")

    async def change(self, token: str, limits: Limits) -> dict[str, Any]:
        """Gives a token other limits. Raises 400 M_INVALID_PARAM, 404 M_NOT_FOUND."""
        changed = self._limited(await self._known(token), limits)
        await self._store.update(changed)
        return _shown(changed)

    async def delete(self, token: str) -> None:
        """Who is registering with it just now cannot finish. Raises 404 M_NOT_FOUND."""
        if not _TOKEN.fullmatch(token) or not await self._store.delete(token):
            raise _no_token()

    async def _known(self, token: str) -> RegistrationToken:
        found = await self._find(token)
        if found is None:
            raise _no_token()
        return found

    async def _find(self, token: str) -> RegistrationToken | None:
        if not _TOKEN.fullmatch(token):
            return None
        return await self._store.get(token, self._now() - SESSION_LIFETIME_MS)

    def _limited(self, token: RegistrationToken, limits: Limits) -> RegistrationToken:
        uses, expiry = limits.uses_allowed, limits.expiry_time
        uses = token.uses_allowed if uses is msgspec.UNSET else uses
        if uses is not None and not 0 <= uses <= MAX_NUMBER:
            raise invalid_param("'uses_allowed' must be null or a number from 0 up.")
        if expiry is msgspec.UNSET:
            expiry = token.expiry_ts
        elif expiry is not None and not self._now() <= expiry <= MAX_NUMBER:
            raise invalid_param("'expiry_time' must be null or a time to come, in milliseconds since 1970.")
        return RegistrationToken(token.token, uses, expiry, token.completed, token.pending)

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def _shown(token: RegistrationToken) -> dict[str, Any]:
    return {
        "token": token.token,
        "uses_allowed": token.uses_allowed,
        "pending": token.pending,
        "completed": token.completed,
        "expiry_time": token.expiry_ts,
    }


def _no_token() -> Exception:
    return not_found("There is no such registration token.")
