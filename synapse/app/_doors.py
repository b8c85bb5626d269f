"""The services by which other servers come in: memberships that they ask for, and the policy server that this server
may be.

A part of the composition root (`hs.doors`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.app._queries import Queries
    from synapse.app._rooms import Rooms
    from synapse.handlers.doors.policy import PolicyService
    from synapse.handlers.doors.residence import Residence


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def rooms(self) -> Rooms: ...

    @property
    def queries(self) -> Queries: ...


class Doors:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._server_name = hs.config.server.server_name

    @cached_property
    def residence(self) -> Residence:
        """The rooms that this server is in."""
        from synapse.handlers.doors.residence import Residence

        memory = self._hs.rooms.memory
        return Residence(self._hs.queries.door, memory.heads, memory.members)

    @cached_property
    def policy(self) -> PolicyService | None:
        """The policy server that this server is, if it is one."""
        from synapse.app._outside import policy_key
        from synapse.handlers.doors.policy import PolicyJudge, PolicyRules, PolicyService

        options = self._hs.config.policy_server
        if not options.enabled:
            return None
        rules = PolicyRules(
            options.blocked_words, options.blocked_servers, options.max_body_bytes, options.max_mentions
        )
        key, state = policy_key(self._hs.config), self._hs.rooms.memory.state
        return PolicyService(PolicyJudge(rules), key, self.residence, state, self._server_name)
