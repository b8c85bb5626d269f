"""The services by which people log in without a password of this server: login tokens.

A part of the composition root (`hs.accounts.sso`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.app._accounts import Foundation
    from synapse.handlers.get_token import GetToken
    from synapse.handlers.login_tokens import LoginTokens


class SignOn:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._config = hs.config
        self._clock = hs.reactor

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
