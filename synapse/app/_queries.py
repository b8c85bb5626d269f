"""The services by which servers ask one another about rooms and users, and what is known of the servers in rooms.

A part of the composition root (`hs.queries`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.app._accounts import Accounts
    from synapse.app._federation import Federation
    from synapse.app._receiving import Receiving
    from synapse.app._rooms import Rooms
    from synapse.federation.hosts import RoomHosts
    from synapse.handlers.federated_aliases import FederatedAliases
    from synapse.handlers.federated_nearest import FederatedNearest
    from synapse.handlers.federated_profiles import FederatedProfiles
    from synapse.handlers.federated_rooms import FederatedRooms
    from synapse.handlers.federated_spaces import FederatedSpaces
    from synapse.handlers.federation_door import FederationDoor
    from synapse.handlers.served_events import ServedEvents
    from synapse.handlers.served_lookups import ServedLookups
    from synapse.storage.room_hosts import RoomHostsStore
    from synapse.sync.shared import SharedWork


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def federation(self) -> Federation: ...

    @property
    def receiving(self) -> Receiving: ...

    @property
    def rooms(self) -> Rooms: ...


class Queries:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs

    @cached_property
    def host_store(self) -> RoomHostsStore:
        from synapse.storage.room_hosts import RoomHostsStore

        return RoomHostsStore(self._hs.database)

    @cached_property
    def hosts(self) -> RoomHosts:
        """Which servers are in which rooms, kept true by the events stream."""
        from synapse.federation.hosts import ROOMS, RoomHosts

        hosts = RoomHosts(self.host_store, self._hs.caches.cache("room_hosts", ROOMS, shared=False))
        self._hs.notifier.subscribe("events", lambda _, rows: hosts.learn(rows), lambda _: hosts.forget_all())
        return hosts

    @cached_property
    def door(self) -> FederationDoor:
        """Which server may ask about which room."""
        from synapse.handlers.federation_door import FederationDoor

        return FederationDoor(self._hs.rooms.memory.state, self.hosts, self._hs.caches.lru("server_acls", 1_000))

    @cached_property
    def served_events(self) -> ServedEvents:
        from synapse.federation.serving.history import HistoryWalk
        from synapse.federation.serving.visibility import ServerVisibility
        from synapse.handlers.served_events import ServedEvents
        from synapse.storage.served_events import ServedEventsStore
        from synapse.storage.served_visibility import ServedVisibilityStore
        from synapse.sync.shared import SharedWork

        hs = self._hs
        server_name = hs.config.server.server_name
        store = ServedEventsStore(hs.database)
        visibilities = hs.caches.lru("served_visibilities", 20_000)
        visible = ServerVisibility(
            ServedVisibilityStore(hs.database), visibilities, hs.accounts.erased_users, server_name
        )
        shared: SharedWork[bytes] = SharedWork(hs.reactor, lambda _: False, 0.0)
        groups = hs.rooms.state_store
        return ServedEvents(self.door, store, groups, HistoryWalk(store), visible, shared, server_name, hs.reactor)

    @cached_property
    def served_lookups(self) -> ServedLookups:
        from synapse.handlers.served_lookups import ServedLookups
        from synapse.storage.timeline import TimelineStore

        hs = self._hs
        return ServedLookups(
            self.door,
            hs.accounts.profiles,
            hs.rooms.aliases,
            hs.rooms.public_rooms,
            TimelineStore(hs.database),
            hs.config.server.server_name,
            profiles_shown=hs.config.federating.allow_profile_lookup_over_federation,
            rooms_listed=hs.config.federating.allow_public_rooms_over_federation,
        )

    # -- asking others -------------------------------------------------------------------------------------------------

    @cached_property
    def federated_aliases(self) -> FederatedAliases:
        from synapse.handlers.federated_aliases import FederatedAliases

        hs = self._hs
        return FederatedAliases(self.hosts, hs.federation.api, self._shared(0.0), hs.config.server.server_name)

    @cached_property
    def federated_profiles(self) -> FederatedProfiles:
        from synapse.handlers.federated_profiles import KEEP_SECONDS, FederatedProfiles

        profiles = FederatedProfiles(self._hs.federation.api, self._shared(KEEP_SECONDS))
        self._hs.notifier.subscribe(
            "events", lambda _, rows: profiles.learn(row for _, row in rows), lambda _: profiles.forget_all()
        )
        return profiles

    @cached_property
    def federated_rooms(self) -> FederatedRooms:
        from synapse.handlers.federated_rooms import KEEP_SECONDS, KEPT, FederatedRooms

        return FederatedRooms(self._hs.federation.api, self._shared(KEEP_SECONDS, KEPT))

    @cached_property
    def federated_spaces(self) -> FederatedSpaces:
        from synapse.handlers.federated_spaces import KEEP_SECONDS, KEPT, MAX_KEPT, FederatedSpaces, ToldRoom
        from synapse.sync.shared import SharedWork

        hs = self._hs
        shared: SharedWork[ToldRoom] = SharedWork(hs.reactor, lambda told: told.size <= MAX_KEPT, KEEP_SECONDS, KEPT)
        return FederatedSpaces(hs.federation.api, shared, hs.config.server.server_name, hs.reactor)

    @cached_property
    def federated_nearest(self) -> FederatedNearest:
        from synapse.handlers.federated_nearest import FederatedNearest

        hs = self._hs
        return FederatedNearest(
            hs.federation.api.for_users,
            self.hosts,
            hs.rooms.memory.heads,
            lambda: hs.receiving.checks,
            lambda: hs.receiving.pipeline,
            hs.config.server.server_name,
            hs.reactor,
        )

    def _shared(self, seconds: float, size: int = 500) -> SharedWork[Any]:
        """Answers that are kept for so long, and are asked for once in any case by all who want them at one time."""
        from synapse.sync.shared import SharedWork

        return SharedWork(self._hs.reactor, lambda _: True, seconds, size)
