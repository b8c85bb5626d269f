"""The services for e-mail addresses and phone numbers: whose they are, how that is proved, mails and text messages.

A part of the composition root (`hs.accounts.contacts`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.app._foundation import Base
    from synapse.handlers.mail import Mailer
    from synapse.handlers.validations import Validations
    from synapse.storage.threepids import ThreepidStore
    from synapse.util.templates import Templates


class Contacts:
    """One lazily built attribute per service."""

    def __init__(self, hs: Base, templates: Templates) -> None:
        self._hs = hs
        self._templates = templates
        self._config = hs.config
        self._clock = hs.reactor

    @cached_property
    def store(self) -> ThreepidStore:
        from synapse.storage.threepids import ThreepidStore

        return ThreepidStore(self._hs.database)

    @cached_property
    def validations(self) -> Validations:
        from synapse.handlers.validations import Validations
        from synapse.storage.threepid_sessions import ThreepidSessionStore

        lifetime = self._config.email.validation_token_lifetime
        return Validations(ThreepidSessionStore(self._hs.database), self._clock, lifetime)

    @cached_property
    def mailer(self) -> Mailer:
        """Sends mails, where `is_enabled` says so."""
        from synapse.app._accounts import in_thread
        from synapse.handlers.mail import Mailer
        from synapse.handlers.smtp import MailServer

        options, server_name = self._config.email, self._config.server.server_name
        own_name = server_name.partition(":")[0]
        post = MailServer.of(options, own_name)
        return Mailer(options, self._templates, post, self._clock, in_thread, server_name)
