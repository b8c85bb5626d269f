"""The services that people log in by: the kinds of login, and the sessions that they make.

A part of the composition root (`hs.sessions`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from synapse.api.app_services import AppServices
    from synapse.app._accounts import Accounts
    from synapse.app._conduct import Conduct
    from synapse.app._sso import SignOnServices
    from synapse.config import Config
    from synapse.handlers.app_service_identity import AppServiceIdentities
    from synapse.handlers.lifetimes import Lifetimes
    from synapse.handlers.login import Login
    from synapse.handlers.login_kinds import LoginKind
    from synapse.handlers.login_kinds.jwt import JwtLogin
    from synapse.handlers.login_kinds.password import PasswordLogin
    from synapse.handlers.login_names import LoginNames
    from synapse.handlers.new_sessions import NewSessions
    from synapse.handlers.password_hashes import Algorithm
    from synapse.handlers.refresh import Refresh
    from synapse.handlers.user_admin import UserAdmin
    from synapse.handlers.user_admin_changes import AccountChanges
    from synapse.http.ratelimit import RateLimits
    from synapse.storage.external_ids import ExternalIdStore
    from synapse.storage.refresh_tokens import RefreshTokenStore
    from synapse.storage.user_admin import UserAdminStore


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def conduct(self) -> Conduct: ...

    @property
    def ratelimits(self) -> RateLimits: ...

    async def invalidate(self, cache: str, keys: Iterable[str]) -> None:
        """Has every process forget keys of a cache, this one before it returns."""

    @property
    def sso(self) -> SignOnServices: ...


class Sessions:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._config = hs.config
        self._server_name = hs.config.server.server_name

    @cached_property
    def refresh_tokens(self) -> RefreshTokenStore:
        from synapse.storage.refresh_tokens import RefreshTokenStore

        return RefreshTokenStore(self._hs.database)

    @cached_property
    def lifetimes(self) -> Lifetimes:
        from synapse.handlers.lifetimes import Lifetimes

        config = self._config.sessions
        return Lifetimes(
            session=config.session_lifetime,
            refreshable_access=config.refreshable_access_token_lifetime,
            nonrefreshable_access=config.nonrefreshable_access_token_lifetime,
            refresh=config.refresh_token_lifetime,
        )

    @cached_property
    def refresh(self) -> Refresh:
        from synapse.handlers.refresh import Refresh

        return Refresh(self.refresh_tokens, self.lifetimes, self._hs.accounts.authenticator, self._hs.reactor)

    @cached_property
    def new_sessions(self) -> NewSessions:
        from synapse.handlers.new_sessions import NewSessions

        accounts, rules = self._hs.accounts, self._hs.conduct.rules
        return NewSessions(
            accounts.users,
            accounts.tokens,
            self.lifetimes,
            accounts.authenticator,
            rules,
            accounts.device_changes,
            self._hs.reactor,
        )

    @cached_property
    def login(self) -> Login:
        from synapse.handlers.login import Login

        url = self._config.server.public_baseurl
        well_known = None if url is None else self._config.discovery.for_clients(self._config.client_baseurl)
        return Login(self._login_kinds(), self.new_sessions, well_known)

    def _login_kinds(self) -> Iterator[LoginKind]:
        """Every kind of login that this server takes, in the order in which clients are told of them."""
        from synapse.handlers.login_kinds.app_service import AppServiceLogin

        if self._config.registration.password_config.for_login:
            yield self.password_login
        yield from self._hs.sso.login_kinds()
        if self._config.jwt_config.enabled:
            yield self._jwt_login()
        yield AppServiceLogin(self.app_services, self._login_names)

    def _jwt_login(self) -> JwtLogin:
        from synapse.handlers.login_kinds.jwt import JwtLogin

        accounts = self._hs.accounts
        return JwtLogin(
            self._config.jwt_config,
            accounts.users,
            accounts.registration,
            self._hs.ratelimits,
            self._hs.reactor,
            self._server_name,
        )

    @cached_property
    def password_login(self) -> PasswordLogin:
        from synapse.handlers.login_kinds.password import PasswordLogin

        accounts = self._hs.accounts
        return PasswordLogin(accounts.users, self._login_names, accounts.passwords, self._hs.ratelimits)

    @cached_property
    def _login_names(self) -> LoginNames:
        from synapse.handlers.login_names import LoginNames

        return LoginNames(self._hs.accounts.contacts.store, self._server_name)

    # -- administration ----------------------------------------------------------------------------------------------

    @cached_property
    def user_admin_store(self) -> UserAdminStore:
        from synapse.storage.user_admin import UserAdminStore

        return UserAdminStore(self._hs.database)

    @cached_property
    def _external_ids(self) -> ExternalIdStore:
        from synapse.storage.external_ids import ExternalIdStore

        return ExternalIdStore(self._hs.database)

    @cached_property
    def user_admin(self) -> UserAdmin:
        from synapse.handlers.user_admin import UserAdmin

        accounts = self._hs.accounts
        return UserAdmin(
            self.user_admin_store,
            accounts.contacts.store,
            self._external_ids,
            accounts.passwords,
            accounts.password_change,
            self.new_sessions,
            accounts.authenticator,
            self._hs.reactor,
            self._server_name,
        )

    @cached_property
    def account_changes(self) -> AccountChanges:
        from synapse.handlers.user_admin_changes import AccountChanges

        accounts = self._hs.accounts
        return AccountChanges(
            self.user_admin,
            self.user_admin_store,
            accounts.contacts.store,
            self._external_ids,
            accounts.registration,
            accounts.profiles,
            accounts.deactivation,
            self._hs.conduct.moderation,
            self._hs.invalidate,
            self._hs.reactor,
        )

    # -- application services ----------------------------------------------------------------------------------------

    @cached_property
    def app_services(self) -> AppServices:
        from synapse.config.app_services import read_app_services

        return read_app_services(self._config)

    @cached_property
    def app_service_identities(self) -> AppServiceIdentities:
        from synapse.handlers.app_service_identity import AppServiceIdentities

        accounts = self._hs.accounts
        return AppServiceIdentities(self.app_services, accounts.tokens, accounts.users, self._hs.main, self._hs.reactor)


def password_algorithm(config: Config) -> Algorithm:
    """How new hashes of passwords are made."""
    from synapse.handlers.password_hashes import Argon2, Bcrypt

    options = config.registration.password_config
    if options.algorithm == "bcrypt":
        return Bcrypt(config.registration.bcrypt_rounds)
    return Argon2(options.argon2.time_cost, options.argon2.memory_cost, options.argon2.parallelism)
