"""Who comes with an access token of the authorization server: asked there, remembered for a minute.

A token is known by its hash, and never written down. For the session that it belongs to, a row like that of a token of
our own is kept, by a hash of user and device that is no token's: rights, standing and the end of the device follow from
it as they do for everybody else, in every process at once. That the token itself was revoked is the authorization
server's to know, and heard when it is asked again. Each process asks for itself.

Client-server API, "OAuth 2.0 API".
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.api.errors import Codes, MatrixError, forbidden, unknown_token
from synapse.handlers.oauth.grants import grant_of
from synapse.handlers.sso.types import RemoteIdentity, SsoRefused
from synapse.handlers.sso.users import localpart_from
from synapse.handlers.tokens import hash_token

if TYPE_CHECKING:
    from synapse.config.oauth import OAuthConfig
    from synapse.handlers.new_sessions import NewSessions
    from synapse.handlers.oauth.grants import Grant
    from synapse.handlers.oauth.introspection import Introspection
    from synapse.handlers.sso.users import SsoUsers
    from synapse.http.ratelimit import RateLimits
    from synapse.storage.access_tokens import AccessTokenStore
    from synapse.storage.users import UserStore
    from synapse.util.caches import Cache, LruCache
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

LIMIT: Final = "rc_unknown_token"
CACHE: Final = "oauth_tokens"
REFUSED_CACHE: Final = "oauth_refused_tokens"
CACHE_SIZE: Final = 10_000
KEPT: Final = 60.0
"""Seconds that the authorization server's word counts: so long does a token go on that was revoked there."""
REFUSED: Final = 10.0  # seconds that a refusal is repeated without a question


class Session(NamedTuple):
    """What a token is good for. `key` is that of the row that stands for the session; times are in seconds."""

    user_id: str
    key: str
    is_admin: bool
    until: float  # when the authorization server has to be asked again
    expires: float | None

    @property
    def until_ts(self) -> int:
        """The same in milliseconds."""
        return int(self.until * 1000)


class Refusal(NamedTuple):
    """Why a token is not taken, and until when that is not asked again."""

    error: MatrixError
    until: float


class OAuthTokens:
    """Finds out.

    :param cache: of sessions by token hash in hexadecimal; another of refusals, so that tokens that somebody has made
        up do not drive out those that are good.
    """

    def __init__(
        self,
        options: OAuthConfig,
        introspection: Introspection,
        identities: SsoUsers,
        users: UserStore,
        tokens: AccessTokenStore,
        sessions: NewSessions,
        cache: Cache[str, Session],
        refused: LruCache[str, Refusal],
        limits: RateLimits,
        clock: Clock,
    ) -> None:
        self._options = options
        self._issuer = options.issuer or ""
        self._introspection = introspection
        self._identities = identities
        self._users = users
        self._tokens = tokens
        self._sessions = sessions
        self._cache = cache
        self._refused = refused
        self._limits = limits
        self._clock = clock

    async def session(self, token: str, client_ip: str) -> Session:
        """Raises 401 M_UNKNOWN_TOKEN; 403 M_FORBIDDEN for a token that is good, but not here; 429; 503 M_UNKNOWN."""
        key, now = _key(token), self._clock.seconds()
        known = self._cache.peek(key)
        if known is not None and known.until > now:
            return known
        if known is not None:
            self._cache.invalidate(key)
            if known.expires is not None and known.expires <= now:
                raise self._refuse(key, unknown_token(soft_logout=True))
            return await self._fetch(key, token)
        refusal = self._refused.get(key)
        if refusal is not None and refusal.until > now:
            raise refusal.error.with_traceback(None)
        return await self._fetch_limited(key, token, client_ip)

    def forget(self, token: str) -> None:
        """What is known of the token may be out of date: the device has gone, say."""
        self._cache.invalidate(_key(token))

    async def _fetch_limited(self, key: str, token: str, client_ip: str) -> Session:
        """Counts tokens that come to nothing. They are counted before, as many may come at once."""
        self._limits.check(LIMIT, client_ip)
        try:
            found = await self._fetch(key, token)
        except Exception as error:
            if not isinstance(error, MatrixError) or error.code >= 500:
                self._limits.forgive(LIMIT, client_ip)  # it is not the client's fault
            raise
        self._limits.forgive(LIMIT, client_ip)
        return found

    async def _fetch(self, key: str, token: str) -> Session:
        async def load(_: str) -> Session:
            try:
                return await self._load(token)
            except MatrixError as error:
                raise (self._refuse(key, error) if error.code < 500 else error) from None

        return await self._cache.fetch(key, load)

    def _refuse(self, key: str, error: MatrixError) -> MatrixError:
        self._refused.set(key, Refusal(error, self._clock.seconds() + REFUSED))
        return error

    # -- what a token is ---------------------------------------------------------------------------------------------

    async def _load(self, token: str) -> Session:
        asked_at = self._clock.seconds()
        said = await self._introspection.ask(token)
        grant = grant_of(said, self._issuer, self._options.localpart_claim, self._clock.seconds())
        user_id = await self._user_of(grant)
        row = _session_hash(user_id, grant.device_id)
        if await self._tokens.lookup(row) is None:
            await self._sessions.begin_elsewhere(user_id, grant.device_id, row)
        until = asked_at + KEPT if grant.expires is None else min(asked_at + KEPT, grant.expires)
        return Session(user_id, row.hex(), grant.is_admin, until, grant.expires)

    async def _user_of(self, grant: Grant) -> str:
        """Raises 403 M_FORBIDDEN where somebody has no account and gets none, 401 where it is deactivated."""
        identity = RemoteIdentity(provider=self._issuer, subject=grant.subject)
        user_id = await self._identities.owner(identity) or await self._new_user(identity, grant.name)
        user = await self._users.get(user_id)
        if user is None or user.deactivated:
            raise unknown_token()
        return user_id

    async def _new_user(self, identity: RemoteIdentity, name: str | None) -> str:
        if not self._options.enable_registration:
            raise forbidden("You have no account on this server, and it makes none by itself; ask its administrator.")
        localpart = localpart_from(name or "")
        if not localpart:
            raise forbidden("The authorization server does not say what you are to be called on this server.")
        try:
            made = await self._identities.create(identity, localpart, None)
        except SsoRefused as refused:
            raise forbidden(f"You would be called '{localpart}' on this server, which cannot be: {refused}") from None
        # Another process may have made the very account meanwhile.
        made = made or await self._identities.owner(identity)
        if made is None:
            sentence = f"You would be called '{localpart}' on this server, but somebody else is; ask its administrator."
            raise MatrixError(403, Codes.FORBIDDEN, sentence)
        return made


def _key(token: str) -> str:
    return hash_token(token).hex()


def _session_hash(user_id: str, device_id: str) -> bytes:
    """What stands for the session in place of a token's hash. Nobody can send a token that has it."""
    return hash_token(f"OAuth 2.0\0{user_id}\0{device_id}")
