"""Other servers: their keys, where they are, what is asked of them, and whether a request is theirs.

A part of the composition root (`hs.federation`). What it stands on, it names in `Foundation`. Nothing here connects to
anybody, or loads what that takes, before there is something to ask.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from synapse.app._foundation import Base, in_thread

if TYPE_CHECKING:
    from collections.abc import Iterable

    from signedjson.types import SigningKey

    from synapse.federation.api import FederationApi
    from synapse.federation.authentication import RequestSignatures
    from synapse.federation.client import FederationClient, Settings
    from synapse.federation.destinations import Destinations
    from synapse.federation.discovery import Discovery
    from synapse.federation.key_fetching import KeyFetcher
    from synapse.federation.keyring import KeyRing, Keys
    from synapse.federation.notary import Notary
    from synapse.federation.origin_limits import OriginLimits
    from synapse.federation.transport import HttpsTransport
    from synapse.handlers.server_keys import ServerKeys
    from synapse.http.outside import OutsideClient
    from synapse.http.peers import PeerClient
    from synapse.storage.server_keys import ServerKeysStore
    from synapse.util.caches import LruCache
    from synapse.util.repeating import Repeating

DAY_SECONDS = 86_400.0
HOUR_SECONDS = 3_600.0
KEEP_KEYS_MS = 365 * 86_400_000


class Lookups(NamedTuple):
    """What other servers may look up."""

    public_rooms: bool
    profiles: bool
    device_names: bool


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    async def invalidate(self, cache: str, keys: Iterable[str]) -> None:
        """Has every process forget keys of a cache."""


class Federation:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._config = hs.config
        self._server_name = hs.config.server.server_name

    @property
    def lookups(self) -> Lookups:
        """What other servers may look up."""
        options = self._config.federating
        return Lookups(
            options.allow_public_rooms_over_federation,
            options.allow_profile_lookup_over_federation,
            options.allow_device_name_lookup_over_federation,
        )

    # -- this server's own keys ----------------------------------------------------------------------------------------

    @cached_property
    def signing_key(self) -> SigningKey:
        """What this server signs with: the first key of the file."""
        from synapse.app._outside import signing_key

        return signing_key(self._config)

    @cached_property
    def server_keys(self) -> ServerKeys:
        """What this server publishes of its keys."""
        from synapse.handlers.server_keys import ServerKeys

        options = self._config.federating
        old = {key_id: (key.key, key.expired_ts) for key_id, key in options.old_signing_keys.items()}
        seeds = self._config.keys.read_signing_keys()
        return ServerKeys(self._server_name, seeds, self._hs.reactor, old, options.key_refresh_interval)

    # -- the keys of others --------------------------------------------------------------------------------------------

    @cached_property
    def key_store(self) -> ServerKeysStore:
        from synapse.storage.server_keys import ServerKeysStore

        return ServerKeysStore(self._hs.database)

    @cached_property
    def key_fetcher(self) -> KeyFetcher:
        """For keys that events need, which known servers have sent."""
        return self._fetcher()

    @cached_property
    def strangers_keys(self) -> KeyFetcher:
        """For keys that anybody can have this server ask for. They have a place of their own, to fill by themselves."""
        return self._fetcher(at_once=20, for_us=20)

    def _fetcher(self, **options: int) -> KeyFetcher:
        from synapse.federation.key_fetching import KeyFetcher, Notary

        notaries = [
            Notary(notary.server_name, notary.verify_keys or {}, notary.accept_keys_insecurely)
            for notary in self._config.federating.trusted_key_servers
            if notary.server_name != self._server_name
        ]
        api, clock = self.api.for_users, self._hs.reactor
        return KeyFetcher(self._server_name, api, self.key_store, notaries, clock, **options)

    @cached_property
    def _keys(self) -> LruCache[str, Keys]:
        return self._hs.caches.lru("server_keys", 10_000)

    @cached_property
    def keyring(self) -> KeyRing:
        """Whose signature it is, of events and what else is signed."""
        return self._ring(self.key_fetcher)

    def _ring(self, fetcher: KeyFetcher) -> KeyRing:
        from synapse.federation.keyring import KeyRing, own_keys

        own = own_keys(self.server_keys.all_keys())
        return KeyRing(self._server_name, own, self.key_store, fetcher, self._keys, in_thread, self._hs.reactor)

    @cached_property
    def authenticator(self) -> RequestSignatures:
        """Which server has signed a request."""
        from synapse.federation.authentication import RequestSignatures

        allowed, clock = self.client.is_allowed, self._hs.reactor
        ring = self._ring(self.strangers_keys)
        return RequestSignatures(self._server_name, ring, allowed, self.destinations, in_thread, clock)

    @cached_property
    def origin_limits(self) -> OriginLimits:
        """How many requests of each other server are answered."""
        from synapse.federation.origin_limits import LimitSettings, OriginLimits

        rate = self._config.federating.rc_federation
        settings = LimitSettings(
            rate.window_size / 1000, rate.sleep_limit, rate.sleep_delay / 1000, rate.reject_limit, rate.concurrent
        )
        return OriginLimits(settings, self._hs.reactor)

    @cached_property
    def notary(self) -> Notary:
        """The keys of others, under this server's signature."""
        from synapse.federation.notary import Notary

        own, clock = self.server_keys.published, self._hs.reactor
        return Notary(self._server_name, self.signing_key, own, self.key_store, self.strangers_keys, in_thread, clock)

    # -- asking --------------------------------------------------------------------------------------------------------

    @cached_property
    def destinations(self) -> Destinations:
        """Which other servers are left alone because they did not answer."""
        from synapse.federation.backoff import Schedule
        from synapse.federation.destinations import CACHE, Destinations
        from synapse.storage.destinations import DestinationsStore

        options, hs = self._config.federation, self._hs
        schedule = Schedule(
            options.destination_min_retry_interval,
            options.destination_retry_multiplier,
            options.destination_max_retry_interval,
        )
        cache = hs.caches.cache(CACHE, 10_000)
        return Destinations(DestinationsStore(hs.database), cache, hs.invalidate, schedule, hs.reactor)

    @cached_property
    def settings(self) -> Settings:
        """What the configuration says of requests to other servers."""
        from synapse.federation.client import Retries, Settings

        options, allowed = self._config.federation, self._config.federating.federation_domain_whitelist
        return Settings(
            options.client_timeout / 1000,
            Retries(options.max_short_retries, options.max_short_retry_delay / 1000),
            Retries(options.max_long_retries, options.max_long_retry_delay / 1000),
            None if allowed is None else frozenset(allowed),
        )

    @cached_property
    def outside(self) -> OutsideClient:
        """The way to the files that say where servers are."""
        from synapse.app._outside import to_servers_files

        return to_servers_files(self._config, self._hs.reactor)

    @cached_property
    def peers(self) -> PeerClient:
        """The connections to other servers."""
        from synapse.app._outside import to_servers

        return to_servers(self._config, self._hs.reactor)

    @cached_property
    def discovery(self) -> Discovery:
        """Where other servers are."""
        from synapse.federation.discovery import Discovery, lookup_srv

        return Discovery(lambda: self.outside, lookup_srv, self._hs.reactor)

    @cached_property
    def transport(self) -> HttpsTransport:
        """The way to other servers."""
        from synapse.federation.transport import HttpsTransport

        return HttpsTransport(self.discovery, lambda: self.peers, self._hs.reactor)

    @cached_property
    def client(self) -> FederationClient:
        """Signed requests to other servers."""
        from synapse.federation.client import FederationClient

        clock = self._hs.reactor
        return FederationClient(
            self._server_name, self.signing_key, self.transport, clock, self.destinations, self.settings
        )

    @cached_property
    def api(self) -> FederationApi:
        """What one can ask of other servers."""
        from synapse.federation.api import FederationApi

        return FederationApi(self.client, in_thread)

    @cached_property
    def background(self) -> list[Repeating]:
        """What the main process does once in a while, to be started with it."""
        from synapse.util.repeating import Repeating

        if not self._hs.is_main:
            return []
        return [
            Repeating(self._hs.reactor, DAY_SECONDS, "Forgetting other servers", self.destinations.forget_old),
            Repeating(self._hs.reactor, HOUR_SECONDS, "Forgetting servers that share no room", self._forget_strangers),
        ]

    async def _forget_strangers(self) -> None:
        await self.destinations.forget_strangers()
        now: Any = self._hs.reactor.seconds() * 1000
        await self.key_store.forget_unused(int(now) - KEEP_KEYS_MS)
