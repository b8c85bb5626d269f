"""Log-ins by single sign-on that are under way: each known by an id that travels in URLs, and bound to one browser.

The id is of no use without the browser's secret, which is in a cookie, nor the cookie without the id. Both are random;
so nobody can have another's browser complete what was begun elsewhere, and nobody completes anything twice.

Client-server API, "SSO client login/authentication", "Security considerations".
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any, Final, TypeGuard, TypeVar

import msgspec

from synapse.handlers.sso.types import Purpose, RemoteIdentity, session_gone

if TYPE_CHECKING:
    from synapse.storage.sso_sessions import SsoSessionStore
    from synapse.util.clock import Clock

LIFETIME_MS: Final = 15 * 60 * 1000
_MAX_ID: Final = 128
_BYTES: Final = 24


class Away(msgspec.Struct, frozen=True, tag="away"):
    """The browser is at the provider. `remembered` is what the provider's `begin` wants to know again."""

    provider: str
    purpose: Purpose
    remembered: dict[str, Any]


class Joining(msgspec.Struct, frozen=True, kw_only=True, tag="joining"):
    """Somebody is to get an account, and makes out how it will be.

    :param localpart: the name that was chosen; None until then.
    :param agreed: the version of the terms that the user has agreed to.
    :param emails: those of the identity's that the user wants to have with the account.
    """

    identity: RemoteIdentity
    redirect_url: str
    localpart: str | None = None
    display_name: str | None = None
    picture: str | None = None
    emails: tuple[str, ...] = ()
    agreed: str | None = None


class Asking(msgspec.Struct, frozen=True, tag="asking"):
    """A user reads what they are to prove to be themselves for."""

    ui_auth_session: str


Content = Away | Joining | Asking
C = TypeVar("C", Away, Joining, Asking)

_decode = msgspec.json.Decoder(Content).decode
_encode = msgspec.json.Encoder().encode


class SsoSessions:
    """Keeps them."""

    def __init__(self, store: SsoSessionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def put(
        self, content: Content, browser: str, session_id: str | None = None, lifetime_ms: int | None = None
    ) -> str:
        """Stores a session and returns its id: a new one, unless one is given."""
        session_id = new_secret() if session_id is None else session_id
        now = self._now()
        end = now + (LIFETIME_MS if lifetime_ms is None else lifetime_ms)
        await self._store.put(_hash(session_id), _hash(browser), _encode(content).decode(), end, now)
        return session_id

    async def look(self, kind: type[C], session_id: str | None, browser: str | None) -> C:
        """The session, which stays. Raises `SsoRefused` if it is not there for this browser."""
        if not _plausible(session_id) or not _plausible(browser):
            raise session_gone()
        return _as(kind, await self._store.get(_hash(session_id), _hash(browser), self._now()))

    async def take(self, kind: type[C], session_id: str | None, browser: str | None) -> C:
        """The session, which is over with that. Raises `SsoRefused` if it is not there for this browser."""
        if not _plausible(session_id) or not _plausible(browser):
            raise session_gone()
        return _as(kind, await self._store.take(_hash(session_id), _hash(browser), self._now()))

    async def take_away(self, provider: str, session_id: str | None, browser: str | None) -> Away:
        """The session of a browser that comes back from a provider. Raises `SsoRefused`."""
        found = await self.take(Away, session_id, browser)
        if found.provider != provider:
            raise session_gone()
        return found

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)


def new_secret() -> str:
    """An id, or a browser's secret: 192 bits as text."""
    return secrets.token_urlsafe(_BYTES)


def _as(kind: type[C], text: str | None) -> C:
    found = None if text is None else _decode(text)
    if not isinstance(found, kind):
        raise session_gone()
    return found


def _plausible(text: str | None) -> TypeGuard[str]:
    return text is not None and 0 < len(text) <= _MAX_ID


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
