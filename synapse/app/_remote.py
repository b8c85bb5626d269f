"""What other servers help with: memberships of rooms that this one is not in, invites of their users, history.

A part of the composition root (`hs.remote`). What it stands on, it names in `Foundation`. Whatever speaks to other
servers is made when it is first needed.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse.app._federation import Federation
    from synapse.app._queries import Queries
    from synapse.app._receiving import Receiving
    from synapse.app._rooms import Rooms
    from synapse.handlers.remote.aside import Aside
    from synapse.handlers.remote.backfill import Backfiller
    from synapse.handlers.remote.gaps import Gaps, Told
    from synapse.handlers.remote.inviting import Inviting
    from synapse.handlers.remote.joining import Joining
    from synapse.handlers.remote.memberships import RemoteMemberships
    from synapse.handlers.remote.signatures import Countersigning
    from synapse.storage.awaited import AwaitedStore, Stretch


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


class Remote:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs

    @cached_property
    def memberships(self) -> RemoteMemberships:
        """What users want of rooms elsewhere. In the main process, it also answers those workers that join."""
        from synapse.handlers.remote.joining import answer_calls
        from synapse.handlers.remote.memberships import RemoteMemberships

        rooms = self._hs.rooms
        if self._hs.is_main:
            answer_calls(self._hs.main, lambda: self.joining)
        return RemoteMemberships(
            self._hs.main,
            lambda: self.aside,
            lambda: self.inviting,
            rooms.creation,
            rooms.memory.heads,
            rooms.memory.members,
            rooms.memory.state,
            rooms.memory.events,
            rooms.membership_store,
            self._hs.queries.hosts,
            self._hs.config.server.server_name,
            rooms.caught_up,
        )

    @cached_property
    def joining(self) -> Joining:
        """In the main process: enters rooms."""
        from synapse.handlers.remote.joining import Joining
        from synapse.handlers.remote.room_seen import RoomCheck

        rooms, receiving = self._hs.rooms, self._hs.receiving
        return Joining(
            self._hs.federation.api.for_users,
            RoomCheck(receiving.checks, receiving.pipeline),
            rooms.memory.members,
            rooms.receive,
            receiving.pipeline,
            self.countersigning,
            rooms.signer,
            self._hs.reactor,
        )

    @cached_property
    def aside(self) -> Aside:
        """Knocks, and leaves what was never joined."""
        from synapse.handlers.remote.aside import Aside

        rooms, checks = self._hs.rooms, self._hs.receiving.checks
        return Aside(self._hs.federation.api.for_users, checks, rooms.receive, rooms.signer, self._hs.reactor)

    @cached_property
    def inviting(self) -> Inviting:
        """Invites other servers' users."""
        from synapse.handlers.remote.inviting import Inviting

        rooms = self._hs.rooms
        api = self._hs.federation.api.for_users
        return Inviting(api, rooms.creation, rooms.memory.state, self.countersigning)

    @cached_property
    def ends(self) -> AwaitedStore:
        from synapse.storage.awaited import AwaitedStore

        return AwaitedStore(self._hs.database)

    @cached_property
    def gaps(self) -> Gaps:
        """Which rooms lack something, kept true by the events stream."""
        from synapse.handlers.remote.gaps import Gaps

        gaps = Gaps(self.ends, self._hs.caches.cache("rooms_with_gaps", 5_000, shared=False))
        self._hs.notifier.subscribe("events", lambda _, rows: gaps.learn(rows), lambda _: gaps.forget_all())
        return gaps

    @cached_property
    def backfiller(self) -> Backfiller:
        """Fetches history."""
        from synapse.handlers.remote.backfill import Backfiller

        rooms, receiving, standing = self._hs.rooms, self._hs.receiving, self._hs.federation.destinations
        backfiller = Backfiller(
            self._hs.federation.api.for_users,
            receiving.checks,
            receiving.pipeline,
            self.ends,
            self.gaps,
            self._hs.queries.hosts,
            rooms.memory.heads,
            standing,
            self._hs.config.server.server_name,
            self._hs.caches.lru("silent_rooms", 1_000),
            self._hs.caches.lru("changed_servers", 1_000),
            self._hs.reactor,
        )
        standing.on_change(backfiller.heard)
        return backfiller

    async def backfill(self, room_id: str, stretch: Stretch) -> Told:
        """Has others tell what is missing in this part of a room. Nothing that speaks to other servers is loaded for
        rooms that are whole."""
        from synapse.handlers.remote.gaps import Told

        if not await self.gaps.any_in(room_id):
            return Told.WHOLE
        return await self.backfiller.fetch(room_id, stretch)

    async def untold(self, room_id: str, stretch: Stretch) -> int | None:
        """How deep the nearest event is there before which others may still tell something."""
        return await self.backfiller.untold(room_id, stretch)

    def filled(self) -> int:
        """How much of what was missing has come by way of this process, in whichever measure."""
        return self.gaps.filled

    def may_lack(self, room_id: str, filled: int) -> bool:
        """Whether what was read of a room when `filled` was that may lack what others have told."""
        return self.gaps.may_lack(room_id, filled)

    async def settled(self, room_ids: Sequence[str]) -> bool:
        """Returns once nobody of this server is on the way into the rooms, or after a while; whether somebody was."""
        from synapse.handlers.remote.joining import SETTLED, Rooms

        return await self._hs.main(SETTLED, Rooms(list(room_ids)))

    @cached_property
    def countersigning(self) -> Countersigning:
        """What other servers have signed of ours."""
        from synapse.handlers.remote.signatures import Countersigning

        return Countersigning(self._hs.federation.keyring)
