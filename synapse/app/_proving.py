"""The services by which people prove who they are, or that they may register: interactive authentication, its stages.

A part of the account services (`hs.accounts.proving`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from synapse.api.constants import THREEPID_STAGES
from synapse.api.threepids import MSISDN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse.app._accounts import Accounts, Foundation
    from synapse.handlers.password_policy import PasswordPolicy
    from synapse.handlers.registration_tokens import RegistrationTokens
    from synapse.handlers.ui_auth import Flows, UiAuth
    from synapse.handlers.ui_fallback import Fallbacks
    from synapse.handlers.ui_stages.oauth import OAuthStage
    from synapse.handlers.ui_stages.types import Stage


class Proving:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation, accounts: Accounts) -> None:
        self._hs = hs
        self._accounts = accounts
        self._config = hs.config

    @cached_property
    def ui_auth(self) -> UiAuth:
        from synapse.handlers.ui_auth import UiAuth
        from synapse.storage.ui_auth import UiAuthStore

        return UiAuth(
            UiAuthStore(self._hs.database),
            self.stages,
            self._accounts.passwords,
            self._hs.reactor,
            timeout_ms=self._config.ui_auth.session_timeout,
        )

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """Every stage that there is. Those by which users prove who they are stand in the order of preference."""
        from synapse.handlers.ui_stages.dummy import DummyStage
        from synapse.handlers.ui_stages.password import PasswordStage

        accounts, registration = self._accounts, self._config.registration
        return (
            PasswordStage(
                self._hs.sessions.password_login, accounts.users, enabled=registration.password_config.for_proof
            ),
            self._hs.sso.stage,
            *(() if self.oauth_stage is None else (self.oauth_stage,)),
            DummyStage(),
            *(self._threepid_stage(medium) for medium in self._accounts.contacts.media),
            *self._registration_stages(),
        )

    @cached_property
    def oauth_stage(self) -> OAuthStage | None:
        """Of those who come from the authorization server."""
        if not self._config.oauth.takes_tokens:
            return None
        from synapse.handlers.ui_stages.oauth import OAuthStage
        from synapse.storage.cross_signing import CrossSigningStore

        return OAuthStage(self._hs.sso.oauth_metadata, CrossSigningStore(self._hs.database), self._hs.reactor)

    @cached_property
    def fallbacks(self) -> Fallbacks:
        """The stages' pages, for clients that cannot show them themselves."""
        from synapse.handlers.ui_fallback import Fallbacks

        contacts, api = self._accounts.contacts, self._config.signing_up.recaptcha_siteverify_api
        return Fallbacks(self.ui_auth, lambda: contacts.tokens, contacts.validations, api)

    # -- addresses ---------------------------------------------------------------------------------------------------

    def _threepid_stage(self, medium: str) -> Stage:
        from synapse.handlers.ui_stages.threepids import ThreepidStage
        from synapse.handlers.validations import PASSWORD_RESET, REGISTRATION

        contacts = self._accounts.contacts
        purposes = {"register": REGISTRATION, "account_password": PASSWORD_RESET}
        return ThreepidStage(medium, contacts.validations, contacts.store, purposes)

    @property
    def reset_flows(self) -> Flows:
        """By what those prove who they are who have forgotten their password."""
        return [[THREEPID_STAGES[medium]] for medium in self._accounts.contacts.media]

    @cached_property
    def password_policy(self) -> PasswordPolicy:
        from synapse.handlers.password_policy import PasswordPolicy

        return PasswordPolicy(self._config.registration.password_config.policy)

    # -- registering -------------------------------------------------------------------------------------------------

    def _registration_stages(self) -> Iterator[Stage]:
        options = self._config.signing_up
        if options.registration_requires_token:
            from synapse.handlers.ui_stages.registration_token import RegistrationTokenStage

            yield RegistrationTokenStage(self.registration_tokens, self._hs.ratelimits)
        if options.recaptcha_public_key and options.recaptcha_private_key:
            from synapse.handlers.ui_stages.recaptcha import RecaptchaStage

            public, private, api = (
                *(options.recaptcha_public_key, options.recaptcha_private_key),
                options.recaptcha_siteverify_api,
            )
            client, limits = (lambda: self._accounts.contacts.service_client), self._hs.ratelimits
            yield RecaptchaStage(client, limits, public, private, api)
        if (consent := self._hs.conduct.consent) is not None:
            from synapse.handlers.ui_stages.terms import TermsStage

            yield TermsStage(consent)

    @cached_property
    def registration_flows(self) -> Flows:
        """What those who register have to prove."""
        from synapse.handlers.registration_flows import Asked, registration_flows

        options, consent = self._config.signing_up, self._hs.conduct.consent
        unwanted = frozenset({MSISDN} if options.disable_msisdn_registration else ())
        return registration_flows(
            Asked(
                token=options.registration_requires_token,
                captcha=options.enable_registration_captcha,
                terms=consent is not None and consent.is_asked_at_registration,
                offered=frozenset(self._accounts.contacts.media) - unwanted,
                required=frozenset(options.registrations_require_3pid),
            )
        )

    @cached_property
    def registration_tokens(self) -> RegistrationTokens:
        from synapse.handlers.registration_tokens import RegistrationTokens
        from synapse.storage.registration_tokens import RegistrationTokenStore

        return RegistrationTokens(RegistrationTokenStore(self._hs.database), self._hs.reactor)
