"""The services that say what accounts may do just now, and that tell users what this server wants of them.

A part of the composition root (`hs.conduct`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.app._accounts import Accounts
    from synapse.handlers.account_rules import AccountRules, Rule
    from synapse.handlers.moderation import Moderation
    from synapse.handlers.whois import Whois
    from synapse.storage.standing import StandingStore


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def accounts(self) -> Accounts: ...


class Conduct:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._config = hs.config
        self._server_name = hs.config.server.server_name
        self._clock = hs.reactor

    # -- what accounts may do ----------------------------------------------------------------------------------------

    @cached_property
    def standing_store(self) -> StandingStore:
        from synapse.storage.standing import StandingStore

        return StandingStore(self._hs.database)

    @cached_property
    def rules(self) -> AccountRules:
        """Asked by the authenticator of every process."""
        from synapse.handlers.account_rules import AccountRules

        return AccountRules(self._configured_rules(), self._notices_room)

    def _configured_rules(self) -> list[Rule]:
        return []

    async def _notices_room(self, user_id: str) -> str | None:
        return None

    @cached_property
    def moderation(self) -> Moderation:
        from synapse.handlers.moderation import Moderation

        accounts = self._hs.accounts
        return Moderation(self.standing_store, accounts.users, accounts.authenticator, self._server_name)

    @cached_property
    def whois(self) -> Whois:
        """In the main process, which hears of all sightings."""
        from synapse.handlers.whois import Whois

        accounts = self._hs.accounts
        return Whois(accounts.user_ip_store, accounts.sightings, accounts.users, self._server_name)
