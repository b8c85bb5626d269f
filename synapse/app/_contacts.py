"""The services for e-mail addresses and phone numbers: whose they are, how that is proved, mails and text messages.

A part of the composition root (`hs.accounts.contacts`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from synapse.app._foundation import Base
    from synapse.handlers.validations import Validations
    from synapse.storage.threepids import ThreepidStore

TOKEN_LIFETIME_MS: Final = 3600 * 1000


class Contacts:
    """One lazily built attribute per service."""

    def __init__(self, hs: Base) -> None:
        self._hs = hs
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

        return Validations(ThreepidSessionStore(self._hs.database), self._clock, TOKEN_LIFETIME_MS)
