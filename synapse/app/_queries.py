"""The services by which servers ask one another about rooms and users, and what is known of the servers in rooms.

A part of the composition root (`hs.queries`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.app._accounts import Accounts
    from synapse.app._rooms import Rooms
    from synapse.federation.hosts import RoomHosts
    from synapse.handlers.federation_door import FederationDoor
    from synapse.handlers.served_events import ServedEvents


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def rooms(self) -> Rooms: ...


class Queries:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs

    @cached_property
    def hosts(self) -> RoomHosts:
        """Which servers are in which rooms, kept true by the events stream."""
        from synapse.federation.hosts import ROOMS, SERVERS, RoomHosts
        from synapse.storage.room_hosts import RoomHostsStore

        caches = self._hs.caches
        hosts = RoomHosts(
            RoomHostsStore(self._hs.database),
            caches.cache("room_hosts", ROOMS, shared=False),
            caches.cache("rooms_of_servers", SERVERS, shared=False),
        )
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
