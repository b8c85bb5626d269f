"""The services by which people log in without a password of this server: login tokens.

A part of the composition root (`hs.sso`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse.app._accounts import Accounts
    from synapse.handlers.get_token import GetToken
    from synapse.handlers.login_kinds import LoginKind
    from synapse.handlers.login_tokens import LoginTokens
    from synapse.http.ratelimit import RateLimits


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def ratelimits(self) -> RateLimits: ...


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

    def login_kinds(self) -> Iterator[LoginKind]:
        """The kinds of login that there is a way for."""
        from synapse.handlers.login_kinds.token import TokenLogin

        get_token = self._config.login_via_existing_session.enabled
        if get_token:
            yield TokenLogin(self.login_tokens, get_token=get_token)
