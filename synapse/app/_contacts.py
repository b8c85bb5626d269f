"""The services for e-mail addresses and phone numbers: whose they are, how that is proved, mails and text messages.

A part of the account services (`hs.accounts.contacts`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from synapse.api.threepids import EMAIL, MSISDN
from synapse.app._foundation import in_thread

if TYPE_CHECKING:
    from signedjson.types import SigningKey

    from synapse.app._accounts import Accounts, Foundation
    from synapse.handlers.identity_bindings import IdentityBindings
    from synapse.handlers.mail import Mailer
    from synapse.handlers.threepid_delegate import ThreepidDelegate
    from synapse.handlers.threepid_rules import ThreepidRules
    from synapse.handlers.threepid_tokens import Messenger, ThreepidTokens
    from synapse.handlers.threepids import Threepids
    from synapse.handlers.validations import Validations
    from synapse.http.outside import OutsideClient
    from synapse.storage.threepids import ThreepidStore


class Contacts:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation, accounts: Accounts) -> None:
        self._hs = hs
        self._accounts = accounts
        self._config = hs.config
        self._server_name = hs.config.server.server_name
        self._clock = hs.reactor

    # -- what users have -----------------------------------------------------------------------------------------------

    @cached_property
    def store(self) -> ThreepidStore:
        from synapse.storage.threepids import ThreepidStore

        return ThreepidStore(self._hs.database)

    @cached_property
    def rules(self) -> ThreepidRules:
        from synapse.handlers.threepid_rules import ThreepidRules

        return ThreepidRules(self._config.threepids)

    @cached_property
    def threepids(self) -> Threepids:
        from synapse.handlers.threepids import Threepids

        return Threepids(self.store, self.validations, self.rules, self.bindings, self._clock)

    @cached_property
    def bindings(self) -> IdentityBindings:
        from synapse.handlers.identity_bindings import IdentityBindings

        return IdentityBindings(
            lambda: self.identity_client, self.store, self.rules, self._server_name, self._signing_key
        )

    @cached_property
    def identity_client(self) -> OutsideClient:
        """Requests to identity servers that users name."""
        from synapse.app._outside import to_identity_servers

        return to_identity_servers(self._config, self._hs.reactor)

    def _signing_key(self) -> SigningKey:
        from synapse.app._outside import signing_key

        return signing_key(self._config)

    # -- proving -------------------------------------------------------------------------------------------------------

    @cached_property
    def validations(self) -> Validations:
        from synapse.handlers.validations import Validations
        from synapse.storage.threepid_sessions import ThreepidSessionStore

        lifetime = self._config.email.validation_token_lifetime
        return Validations(ThreepidSessionStore(self._hs.database), self._clock, lifetime, self._delegate)

    @cached_property
    def tokens(self) -> ThreepidTokens:
        from synapse.handlers.threepid_tokens import ThreepidTokens
        from synapse.handlers.validations import ADD_THREEPID, PASSWORD_RESET, REGISTRATION

        checks = {
            REGISTRATION: self._accounts.registration.check_enabled,
            PASSWORD_RESET: self._accounts.password_change.check_enabled,
            ADD_THREEPID: self.rules.check_changes,
        }
        return ThreepidTokens(
            *(self.store, self.validations, self.mailer, self._messenger, self.rules, self._hs.ratelimits),
            *(self._config.email.subjects, checks, self._config.client_baseurl),
        )

    @property
    def media(self) -> tuple[str, ...]:
        """The media of addresses that can be proved here, because there is a way to write to them."""
        config = self._config
        by_phone = config.sms.url is not None or config.threepids.account_threepid_delegates.msisdn is not None
        return (*((EMAIL,) if config.email.is_enabled else ()), *((MSISDN,) if by_phone else ()))

    @property
    def can_change(self) -> bool:
        """Whether users can add addresses to their accounts (capability `m.3pid_changes`)."""
        return self.rules.can_change and bool(self.media)

    # -- messages ------------------------------------------------------------------------------------------------------

    @cached_property
    def mailer(self) -> Mailer:
        """Sends mails, where `is_enabled` says so."""
        from synapse.handlers.mail import Mailer
        from synapse.handlers.smtp import MailServer

        options = self._config.email
        post = MailServer.of(options, self._server_name.partition(":")[0])
        return Mailer(options, self._accounts.templates, post, self._clock, in_thread, self._server_name)

    @cached_property
    def _messenger(self) -> Messenger | None:
        from synapse.handlers.messengers import DelegateMessenger, SmsMessenger
        from synapse.handlers.sms import SmsService

        options = self._config.sms
        if options.url is not None:
            service = SmsService(lambda: self.service_client, options.url, options.secret or "")
            values = {"server_name": self._server_name, "app_name": self._config.email.app_name}
            return SmsMessenger(service, self._accounts.templates, values)
        return None if self._delegate is None else DelegateMessenger(self._delegate)

    @cached_property
    def _delegate(self) -> ThreepidDelegate | None:
        options = self._config.threepids.account_threepid_delegates
        if options.msisdn is None:
            return None
        from synapse.handlers.threepid_delegate import ThreepidDelegate

        return ThreepidDelegate(lambda: self.service_client, options.msisdn, options.msisdn_access_token)

    @cached_property
    def service_client(self) -> OutsideClient:
        """Requests to services that the administrator names."""
        from synapse.app._outside import to_administrators_hosts

        return to_administrators_hosts(self._config, self._hs.reactor)
