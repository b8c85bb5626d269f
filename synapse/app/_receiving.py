"""The services that take in what other servers send: transactions, the events and the ephemeral data in them.

A part of the composition root (`hs.receiving`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from synapse.app._foundation import Base, in_thread

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from synapse.api.room_versions import RoomVersion
    from synapse.app._edus import Edus
    from synapse.app._federation import Federation
    from synapse.app._queries import Queries
    from synapse.app._remote import Remote
    from synapse.app._rooms import Rooms
    from synapse.federation.receiving.checks import EventChecks
    from synapse.federation.receiving.edus import EduRegistry
    from synapse.federation.receiving.pipeline import Pipeline
    from synapse.federation.receiving.room_events import Entrance
    from synapse.federation.receiving.transactions import Transactions
    from synapse.federation.receiving.unfinished import TakingUp, Unfinished
    from synapse.storage.received_transactions import ReceivedTransactionsStore
    from synapse.storage.unfinished_pdus import UnfinishedPdusStore
    from synapse.util.repeating import Repeating

KEEP_ANSWERS_MS: Final = 24 * 3600 * 1000
"""How long an answer is kept for an origin that asks again."""

CLEANING_SECONDS: Final = 600.0
TAKING_UP_SECONDS: Final = 60.0


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def rooms(self) -> Rooms: ...

    @property
    def edus(self) -> Edus: ...

    @property
    def queries(self) -> Queries: ...

    @property
    def federation(self) -> Federation: ...

    @property
    def remote(self) -> Remote: ...


class Receiving:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._clock = hs.reactor
        self._server_name = hs.config.server.server_name
        self._cleaned_ts = 0  # up to when (milliseconds) no server has more answers than it may

    @cached_property
    def edus(self) -> EduRegistry:
        """Who takes which type of ephemeral data."""
        from synapse.federation.receiving.edus import EduRegistry

        registry = EduRegistry()
        self._hs.edus.register(registry)
        return registry

    @cached_property
    def checks(self) -> EventChecks:
        """Checks 1 to 3 of events."""
        from synapse.federation.receiving.checks import EventChecks

        return EventChecks(self._hs.federation.keyring, in_thread)

    @cached_property
    def pipeline(self) -> Pipeline:
        """The way of events into rooms."""
        from synapse.federation.receiving.ancestors import Ancestors
        from synapse.federation.receiving.gates import Gates
        from synapse.federation.receiving.meeting import Meeting
        from synapse.federation.receiving.pipeline import Pipeline
        from synapse.storage.event_places import EventPlacesStore

        rooms = self._hs.rooms
        memory = rooms.memory
        pipeline = Pipeline(
            memory.heads,
            memory.state,
            memory.events,
            rooms.push,
            rooms.policy_servers,
            rooms.receive,
            rooms.caught_up,
            self._clock,
        )
        meeting = Meeting(self._server_name, memory.state, memory.events)
        places = EventPlacesStore(self._hs.database)
        pipeline.ancestors = Ancestors(
            self._hs.federation.api,
            self.checks,
            places,
            meeting,
            Gates(self._clock),
            pipeline.keep,
            self._hs.queries.hosts.joined,
            self._hs.federation.destinations.ready,
            self._clock,
        )
        return pipeline

    @cached_property
    def store(self) -> ReceivedTransactionsStore:
        from synapse.storage.received_transactions import ReceivedTransactionsStore

        return ReceivedTransactionsStore(self._hs.database)

    @cached_property
    def entrance(self) -> Entrance:
        """The way of what a server has sent for one room."""
        from synapse.federation.receiving.room_events import Entrance

        return Entrance(self.pipeline, self.checks, self._hs.queries.door)

    @cached_property
    def unfinished_store(self) -> UnfinishedPdusStore:
        from synapse.storage.unfinished_pdus import UnfinishedPdusStore

        return UnfinishedPdusStore(self._hs.database)

    @cached_property
    def unfinished(self) -> Unfinished:
        """Events of which it is not known yet what becomes of them, though they were answered."""
        from synapse.federation.receiving.unfinished import Unfinished

        return Unfinished(self.unfinished_store, self._clock, self._hs.rooms.now)

    @cached_property
    def taking_up(self) -> TakingUp:
        """In the main process: takes them up."""
        from synapse.federation.receiving.unfinished import TakingUp

        now = self._hs.rooms.now
        return TakingUp(self.unfinished_store, self, lambda: self.entrance, self.unfinished, self._clock, now)

    @cached_property
    def transactions(self) -> Transactions:
        from synapse.federation.receiving.outside import Outsider
        from synapse.federation.receiving.transactions import Transactions

        rooms = self._hs.rooms
        return Transactions(
            self.entrance,
            self.unfinished,
            self.edus,
            self,
            Outsider(self.checks, rooms.membership_store, rooms.events, rooms.receive),
            self.store,
            self._clock,
            rooms.now,
        )

    async def versions(self, room_ids: Collection[str]) -> Mapping[str, RoomVersion]:
        """The versions of those of the rooms that a user of this server is joined to, or is about to be: what others
        say while this server comes in is heard when it is there. No statement for rooms that are known well, two for
        all others together."""
        found = await self._versions(room_ids)
        others = [room_id for room_id in room_ids if room_id not in found]
        if others and await self._hs.remote.settled(others):
            return {**found, **await self._versions(others)}
        return found

    async def _versions(self, room_ids: Collection[str]) -> Mapping[str, RoomVersion]:
        from synapse.api.room_versions import room_version

        heads = self._hs.rooms.memory.heads
        known = {i: version for i in room_ids if (version := heads.version(i)) is not None}
        hosts = await self._hs.queries.hosts.joined_many(known.keys()) if known else {}
        found = {i: version for i, version in known.items() if self._server_name in hosts.get(i, ())}
        others = [room_id for room_id in room_ids if room_id not in found]
        entered = await self._hs.rooms.membership_store.entered(others) if others else {}
        return {**found, **{room_id: room_version(version) for room_id, version in entered.items()}}

    @cached_property
    def background(self) -> list[Repeating]:
        """What the main process does once in a while, to be started with it."""
        from synapse.util.repeating import Repeating

        if not self._hs.is_main:
            return []
        return [
            Repeating(self._clock, CLEANING_SECONDS, "Forgetting old answers to other servers", self._forget_old),
            Repeating(
                self._clock, TAKING_UP_SECONDS, "Taking up events of other servers", lambda: self.taking_up.round()
            ),
        ]

    async def _forget_old(self) -> None:
        now = self._hs.rooms.now()
        while await self.store.delete_before(now - KEEP_ANSWERS_MS):
            pass
        await self.store.delete_surplus(self._cleaned_ts)
        self._cleaned_ts = now
