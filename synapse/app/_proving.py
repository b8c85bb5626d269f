"""The services by which people prove who they are, or that they may register: interactive authentication, its stages.

A part of the account services (`hs.accounts.proving`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.app._accounts import Accounts, Foundation
    from synapse.handlers.ui_auth import UiAuth
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
            DummyStage(),
        )
