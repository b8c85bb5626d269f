"""The services by which other servers come in: memberships that they ask for, and the policy server that this server
may be.

A part of the composition root (`hs.doors`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.app._federation import Federation
    from synapse.app._queries import Queries
    from synapse.app._receiving import Receiving
    from synapse.app._remote import Remote
    from synapse.app._rooms import Rooms
    from synapse.handlers.doors.invites import Invites
    from synapse.handlers.doors.join_answer import JoinAnswers
    from synapse.handlers.doors.policy import PolicyService
    from synapse.handlers.doors.residence import Residence
    from synapse.handlers.doors.submissions import Submissions
    from synapse.handlers.doors.templates import Templates
    from synapse.handlers.doors.third_party import OtherServers
    from synapse.http.ratelimit import RateLimits


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def rooms(self) -> Rooms: ...

    @property
    def queries(self) -> Queries: ...

    @property
    def federation(self) -> Federation: ...

    @property
    def receiving(self) -> Receiving: ...

    @property
    def remote(self) -> Remote: ...

    @property
    def ratelimits(self) -> RateLimits: ...


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

    # -- memberships ---------------------------------------------------------------------------------------------------

    @cached_property
    def templates(self) -> Templates:
        """Of the membership events of other servers' users."""
        from synapse.handlers.doors.templates import Templates

        rooms = self._hs.rooms
        return Templates(self.residence, rooms.creation, rooms.entry, self._server_name)

    @cached_property
    def submissions(self) -> Submissions:
        """Membership events that other servers have signed."""
        from synapse.handlers.doors.submissions import Submissions

        rooms, receiving = self._hs.rooms, self._hs.receiving
        return Submissions(
            self.residence,
            rooms.entry,
            rooms.signer,
            receiving.checks,
            receiving.pipeline,
            rooms.policy_servers.check_received,
            rooms.events,
            rooms.state,
        )

    @cached_property
    def join_answers(self) -> JoinAnswers:
        """What joins are answered with."""
        from synapse.handlers.doors.join_answer import JoinAnswers
        from synapse.storage.past_state import PastStateStore
        from synapse.storage.served_events import ServedEventsStore

        database, hosts = self._hs.database, self._hs.queries.hosts
        store, summaries = ServedEventsStore(database), PastStateStore(database)
        return JoinAnswers(self._hs.rooms.state_store, store, hosts, summaries, self._server_name)

    @cached_property
    def invites(self) -> Invites:
        """Invitations of this server's users by others."""
        from synapse.handlers.doors.invites import Invites

        rooms = self._hs.rooms
        return Invites(
            self.residence,
            rooms.memory.heads,
            rooms.signer,
            self._hs.receiving.checks,
            rooms.receive,
            rooms.invitees_store,
            rooms.push,
            self._hs.ratelimits,
        )

    @cached_property
    def third_parties(self) -> OtherServers:
        """Others' part in invitations by address."""
        from synapse.handlers.doors.third_party import OtherServers

        receiving, recommend = self._hs.receiving, self._hs.rooms.policy_servers.check_received
        invite_other = self._hs.remote.inviting.invite
        api = self._hs.federation.api
        return OtherServers(self.residence, api, receiving.pipeline, recommend, invite_other, self._server_name)

    # -- the policy server -------------------------------------------------------------------------------------------

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
