"""The services by which people log in without a password of this server: login tokens, single sign-on.

A part of the composition root (`hs.sso`). What it stands on, it names in `Foundation`. The one place that lists
identity providers is `providers`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from synapse.app._foundation import Base, in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse.app._accounts import Accounts
    from synapse.app._conduct import Conduct
    from synapse.app._sessions import Sessions
    from synapse.handlers.get_token import GetToken
    from synapse.handlers.login_kinds import LoginKind
    from synapse.handlers.login_tokens import LoginTokens
    from synapse.handlers.oauth.tokens import OAuthTokens
    from synapse.handlers.oauth_metadata import OAuthMetadata
    from synapse.handlers.sso.cas import CasProvider
    from synapse.handlers.sso.details import Details
    from synapse.handlers.sso.oidc.logout import BackChannelLogout
    from synapse.handlers.sso.oidc.provider import OidcProvider
    from synapse.handlers.sso.proof import Proof, SsoStage
    from synapse.handlers.sso.saml import SamlProvider
    from synapse.handlers.sso.saml_service import SamlService
    from synapse.handlers.sso.sessions import SsoSessions
    from synapse.handlers.sso.sign_on import SignOn
    from synapse.handlers.sso.types import IdentityProvider
    from synapse.handlers.sso.users import SsoUsers
    from synapse.http.outside import OutsideClient
    from synapse.http.ratelimit import RateLimits
    from synapse.storage.sso_devices import SsoDeviceStore


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def conduct(self) -> Conduct: ...

    @property
    def sessions(self) -> Sessions: ...

    @property
    def ratelimits(self) -> RateLimits: ...

    async def update_profile_in_rooms(self, user_id: str) -> None:
        """Writes a user's name and picture into their memberships."""


class SignOnServices:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._config = hs.config
        self._clock = hs.reactor

    # -- login tokens ------------------------------------------------------------------------------------------------

    @cached_property
    def login_tokens(self) -> LoginTokens:
        from synapse.handlers.login_tokens import LoginTokens
        from synapse.storage.login_tokens import LoginTokenStore

        return LoginTokens(LoginTokenStore(self._hs.database), self._clock)

    @cached_property
    def get_token(self) -> GetToken:
        from synapse.handlers.get_token import GetToken, Options

        given = self._config.login_via_existing_session
        options = Options(given.enabled, given.require_ui_auth, given.token_timeout)
        return GetToken(self.login_tokens, options, self._hs.ratelimits)

    def login_kinds(self) -> Iterator[LoginKind]:
        """The kinds of login that there is a way for."""
        from synapse.handlers.login_kinds.token import TokenLogin

        get_token = self._config.login_via_existing_session.enabled
        if self.providers:
            from synapse.handlers.login_kinds.sso import CasLogin, SsoLogin

            yield SsoLogin(self.providers, oauth_aware=self._config.oauth.issuer is not None)
            if self.cas is not None:
                yield CasLogin()
        if self.providers or get_token:
            yield TokenLogin(self.login_tokens, get_token=get_token)

    # -- single sign-on ----------------------------------------------------------------------------------------------

    @cached_property
    def providers(self) -> tuple[IdentityProvider, ...]:
        """Every identity provider, in the order in which people are shown them."""
        return (*self.oidc, *(provider for provider in (self.cas, self.saml) if provider is not None))

    @cached_property
    def oidc(self) -> tuple[OidcProvider, ...]:
        if not any(True for _ in self._config.oidc.providers()):
            return ()
        from synapse.handlers.sso.oidc.provider import OidcProvider

        base_url = self._config.client_baseurl
        return tuple(
            OidcProvider(name, options, self.provider_client, self._clock, in_thread, base_url)
            for _, name, options in self._config.oidc.providers()
        )

    @cached_property
    def cas(self) -> CasProvider | None:
        options = self._config.cas_config
        if not options.enabled or options.server_url is None:
            return None
        from synapse.handlers.sso.cas import CasProvider

        return CasProvider(options, self.provider_client, self._config.client_baseurl)

    @cached_property
    def saml(self) -> SamlProvider | None:
        options, base_url = self._config.saml2_config, self._config.client_baseurl
        if not options.is_on:
            return None
        from synapse.handlers.sso.saml import SamlProvider
        from synapse.storage.saml_assertions import SamlAssertionStore

        return SamlProvider(
            options,
            lambda: self._saml_service,
            SamlAssertionStore(self._hs.database),
            self._clock,
            in_thread,
            allow_unsolicited=options.pysaml2_settings(base_url)["service"]["sp"].get("allow_unsolicited") is True,
        )

    @cached_property
    def _saml_service(self) -> SamlService:
        from synapse.handlers.sso.saml_service import SamlService

        options = self._config.saml2_config
        return SamlService(options.pysaml2_settings(self._config.client_baseurl), options.idp_entityid)

    @cached_property
    def _devices(self) -> SsoDeviceStore:
        from synapse.storage.sso_devices import SsoDeviceStore

        return SsoDeviceStore(self._hs.database)

    @cached_property
    def back_channel_logout(self) -> BackChannelLogout:
        """In the main process."""
        from synapse.handlers.sso.oidc.logout import BackChannelLogout
        from synapse.storage.external_ids import ExternalIdStore

        identities = ExternalIdStore(self._hs.database)
        return BackChannelLogout(self.oidc, self._devices, identities, self._hs.accounts.devices)

    @cached_property
    def sign_on(self) -> SignOn:
        from synapse.handlers.sso.sign_on import SignOn

        consent = self._hs.conduct.consent
        return SignOn(
            self.providers,
            self.sessions,
            self.users,
            self._details,
            self.proof,
            self.login_tokens,
            # Our own page for logging in gives the token to nobody but the client that has opened it.
            trusted=(*self._config.sso.client_whitelist, f"{self._config.client_baseurl}/_matrix/static/client/login/"),
            terms=consent if consent is not None and consent.is_asked_at_registration else None,
            update_profiles=self._config.sso.update_profile_information,
        )

    @cached_property
    def sessions(self) -> SsoSessions:
        from synapse.handlers.sso.sessions import SsoSessions
        from synapse.storage.sso_sessions import SsoSessionStore

        return SsoSessions(SsoSessionStore(self._hs.database), self._clock)

    @cached_property
    def users(self) -> SsoUsers:
        from synapse.handlers.sso.users import SsoUsers
        from synapse.storage.external_ids import ExternalIdStore

        accounts, server_name = self._hs.accounts, self._config.server.server_name
        return SsoUsers(ExternalIdStore(self._hs.database), accounts.users, accounts.registration, server_name)

    @cached_property
    def stage(self) -> SsoStage:
        """The stage of interactive authentication."""
        from synapse.handlers.sso.proof import SsoStage

        return SsoStage(self.users, frozenset(provider.id for provider in self.providers))

    @cached_property
    def proof(self) -> Proof:
        from synapse.handlers.sso.proof import Proof

        return Proof(self._hs.accounts.ui_auth)

    @cached_property
    def _details(self) -> Details:
        from synapse.handlers.profile import Profiles
        from synapse.handlers.sso.details import Details

        accounts, hs = self._hs.accounts, self._hs
        server_name, config = self._config.server.server_name, self._config.profiles
        profiles = Profiles(accounts.profile_store, server_name, hs.update_profile_in_rooms, config)
        return Details(
            profiles,
            accounts.contacts.store,
            accounts.media,
            accounts.media_store,
            lambda: self._outside_client,
            self._clock,
        )

    @cached_property
    def oauth_metadata(self) -> OAuthMetadata:
        from synapse.handlers.oauth_metadata import OAuthMetadata

        return OAuthMetadata(self._config.oauth.issuer, self.provider_client, self._clock)

    @cached_property
    def oauth_tokens(self) -> OAuthTokens:
        """Access tokens of the authorization server, where they are taken."""
        from synapse.handlers.oauth.introspection import Introspection
        from synapse.handlers.oauth.tokens import CACHE, CACHE_SIZE, REFUSED_CACHE, OAuthTokens

        accounts, caches, options = self._hs.accounts, self._hs.caches, self._config.oauth
        return OAuthTokens(
            options,
            Introspection(options, self.oauth_metadata, self.provider_client),
            self.users,
            accounts.users,
            accounts.tokens,
            self._hs.sessions.new_sessions,
            caches.cache(CACHE, CACHE_SIZE, shared=False),
            caches.lru(REFUSED_CACHE, CACHE_SIZE),
            self._hs.ratelimits,
            self._clock,
        )

    # -- requests ----------------------------------------------------------------------------------------------------

    def provider_client(self) -> OutsideClient:
        """A client for hosts that the administrator has named. Makes the process load OpenSSL."""
        return self._provider_client

    @cached_property
    def _provider_client(self) -> OutsideClient:
        return self._client(())

    @cached_property
    def _outside_client(self) -> OutsideClient:
        """A client for what users name: their pictures."""
        return self._client(self._config.outgoing.ip_range_blacklist)

    def _client(self, blocked: tuple[str, ...]) -> OutsideClient:
        from synapse.http.addresses import AddressFilter
        from synapse.http.outside import OutsideClient, Trust

        options = self._config.outgoing
        trust = Trust(not options.use_insecure_ssl_client_just_for_testing_do_not_use)
        return OutsideClient(self._hs.reactor, AddressFilter(blocked, options.ip_range_whitelist), trust)
