"""Who asks: from the access token of a request to its requester, from a cache when warm.

Tokens are looked up by their hash. Whatever revokes one calls `forget`, which has every process drop what it knows of
it: this one before the revocation is acknowledged, the others as the stream `caches` reaches them. Requests that wait
are cut off then (`synapse.handlers.waiting`).

Client-server API, "Client Authentication".
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar, cast

from synapse.api.errors import Codes, MatrixError, unknown_token
from synapse.handlers.oauth.entry import check_operation, may_be_one
from synapse.handlers.tokens import hash_token, is_plausible
from synapse.handlers.waiting import WaitingRequests
from synapse.http.interruptible import Interruptible
from synapse.http.server import Requester, access_token
from synapse.storage.errors import OutcomeUnknown

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from synapse.handlers.account_rules import AccountRules
    from synapse.handlers.app_service_identity import AppServiceIdentities, Identity
    from synapse.handlers.oauth.tokens import OAuthTokens, Session
    from synapse.handlers.user_ips import UserIps
    from synapse.http.server import Request
    from synapse.storage.access_tokens import AccessTokenStore, TokenOwner
    from synapse.storage.refresh_tokens import RefreshTokenStore
    from synapse.util.caches import Cache
    from synapse.util.clock import Clock

T = TypeVar("T")


class Revoking(Protocol):
    """What a transaction returns that revokes tokens."""

    @property
    def tokens(self) -> list[bytes]:
        """Their hashes."""


R = TypeVar("R", bound=Revoking | None)

CACHE: Final = "access_token"
CACHE_SIZE: Final = 10_000


class Known(NamedTuple):
    """What is remembered of a good token."""

    requester: Requester
    expires_ts: int | None


class Authenticator:
    """Turns tokens into requesters.

    :param identities: of application services, which act for users.
    :param cache: by token hash in hexadecimal, as invalidations name it.
    :param invalidate: has every process forget keys of a cache, this one at once.
    :param sightings: is told who was seen from where.
    :param rules: say what an account may not do just now.
    :param oauth: knows tokens of the OAuth 2.0 authorization server, made when the first comes; None: there is none.
    """

    def __init__(
        self,
        tokens: AccessTokenStore,
        identities: AppServiceIdentities,
        refresh_tokens: RefreshTokenStore,
        cache: Cache[str, Known],
        invalidate: Callable[[str, Iterable[str | None]], Awaitable[None]],
        sightings: UserIps,
        rules: AccountRules,
        clock: Clock,
        oauth: Callable[[], OAuthTokens] | None = None,
    ) -> None:
        self._oauth = oauth
        self._tokens = tokens
        self._identities = identities
        self._refresh_tokens = refresh_tokens
        self._cache = cache
        self._invalidate = invalidate
        self._sightings = sightings
        self._rules = rules
        self._clock = clock
        self._waiting = WaitingRequests(self._check, clock)
        cache.on_forget = self._waiting.doubt

    async def authenticate(self, token: str, request: Request) -> Requester:
        """Raises 401 M_UNKNOWN_TOKEN, and what `AccountRules.check` and `OAuthTokens.session` raise."""
        identity = self._identities.of(token, request)
        if identity is not None:
            requester = await self._check_identity(identity, request)
        elif is_plausible(token):
            requester = await self._check(hash_token(token).hex(), request)
        elif self._oauth is not None and may_be_one(token):
            _, requester = await self._check_oauth(self._oauth(), token, request)
            check_operation(request.name)
        else:
            raise unknown_token()
        self._sightings.note(requester, request.client_ip, request.user_agent)
        return requester

    def app_service(self, token: str) -> Requester | None:
        """The own user of the application service whose token it is; whether there is such an account is not asked."""
        service = self._identities.services.of_token(hash_token(token))
        return None if service is None else Requester(service.sender, app_service=service.id, rate_limited=False)

    async def while_valid(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which may wait; raises what `authenticate` would raise, as soon as it would.

        For requests that have just been authenticated.
        """
        if self._oauth is not None and request.user.via_oauth:
            return await self._while_vouched_for(self._oauth(), request, work)
        key = request.token_key
        known = self._cache.peek(key)
        if known is None:  # revoked since the request was let in, or the cache is small
            try:
                await self._check(key, request)
            except BaseException:
                work.close()
                raise
            known = self._cache.peek(key)
        waiting = Interruptible(work)
        if waiting.begin():
            return cast(T, waiting.result)
        return await self._waiting.run(key, request, None if known is None else known.expires_ts, waiting)

    async def _while_vouched_for(self, oauth: OAuthTokens, request: Request, work: Coroutine[Any, Any, T]) -> T:
        """What `while_valid` does, of a token that the authorization server has to be asked about once more."""
        token = access_token(request) or ""
        try:
            session, _ = await self._check_oauth(oauth, token, request)
        except BaseException:
            work.close()
            raise

        async def renew() -> int:
            session, _ = await self._check_oauth(oauth, token, request)
            return session.until_ts

        waiting = Interruptible(work)
        if waiting.begin():
            return cast(T, waiting.result)
        return await self._waiting.run(session.key, request, session.until_ts, waiting, renew)

    async def _check_oauth(self, oauth: OAuthTokens, token: str, request: Request) -> tuple[Session, Requester]:
        session = await oauth.session(token, request.client_ip)
        try:
            requester = await self._check(session.key, request)
        except MatrixError as error:
            if error.errcode != Codes.UNKNOWN_TOKEN:
                raise
            # The device is gone, perhaps because the token is revoked as well; it only counts what is said now.
            oauth.forget(token)
            session = await oauth.session(token, request.client_ip)
            requester = await self._check(session.key, request)
        return session, replace(requester, is_admin=session.is_admin, via_oauth=True)

    async def _check_identity(self, identity: Identity, request: Request) -> Requester:
        key = identity.token_hash.hex()
        if self._cache.peek(key) is None and await self._tokens.lookup(identity.token_hash) is None:
            await self._identities.establish(identity)
        return await self._check(key, request)

    async def _check(self, key: str, request: Request) -> Requester:
        request.token_key = key
        requester, expires_ts = await self._cache.fetch(key, self._load)
        if expires_ts is not None and expires_ts <= self._clock.seconds() * 1000:
            raise unknown_token(soft_logout=True)
        await self._rules.check(requester, request.name, request.params)
        return requester

    async def forget(self, token_hashes: Iterable[bytes]) -> None:
        """These tokens were revoked, or something about their owner changed."""
        keys = [token_hash.hex() for token_hash in token_hashes]
        if keys:
            await self._invalidate(CACHE, keys)

    async def revoking(self, ending: Awaitable[R]) -> R:
        """What `ending` returns, a transaction that revokes tokens, once every process has been told of them.

        To be awaited before any other news of the transaction: whoever is logged out shall not hear even that. Where it
        does not become known whether it was committed, all tokens are looked up anew.
        """
        try:
            gone = await ending
        except OutcomeUnknown:
            await self._invalidate(CACHE, [None])
            raise
        if gone is not None:
            await self.forget(gone.tokens)
        return gone

    async def _load(self, key: str) -> Known:
        owner = await self._tokens.lookup(bytes.fromhex(key))
        if owner is None or owner.deactivated:
            raise unknown_token()
        if owner.unused_refresh_token is not None:
            await self._first_use(owner.unused_refresh_token)
        return Known(self._requester(owner), owner.expires_ts)

    async def _first_use(self, refresh_token_id: int) -> None:
        """The client has what it exchanged its refresh token for; the tokens of before are worth nothing any more."""
        now = int(self._clock.seconds() * 1000)
        await self.forget(await self._refresh_tokens.mark_used(refresh_token_id, now))

    def _requester(self, owner: TokenOwner) -> Requester:
        service = self._identities.services.get(owner.app_service_id)
        if owner.app_service_id is not None and service is None:
            raise unknown_token()  # it is registered no longer
        return Requester(
            owner.user_id,
            owner.device_id,
            owner.token_id,
            is_guest=owner.is_guest,
            is_admin=owner.admin,
            app_service=owner.app_service_id,
            rate_limited=service is None or service.limits(owner.user_id),
            standing=owner.standing,
        )
