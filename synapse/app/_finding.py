"""The services that find things (messages by their words, rooms in spaces, rooms that two users share), and those that
take reports of what was found.

A part of the composition root (`hs.finding`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.app._accounts import Accounts
    from synapse.app._queries import Queries
    from synapse.app._reading import Reading
    from synapse.app._rooms import Rooms
    from synapse.handlers.mutual_rooms import MutualRooms
    from synapse.handlers.reports import Reports, ReportsAdmin
    from synapse.handlers.room_summaries import RoomSummaries
    from synapse.handlers.search import SearchHandler
    from synapse.handlers.search_answer import SearchAnswer
    from synapse.handlers.search_index import SearchIndex
    from synapse.handlers.spaces import Spaces
    from synapse.storage.event_search import EventSearchStore
    from synapse.storage.reports import ReportsStore
    from synapse.util.repeating import Repeating

INDEX_SECONDS: Final = 10.0
"""How often what nobody has searched yet is taken into the index."""


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def reading(self) -> Reading: ...

    @property
    def rooms(self) -> Rooms: ...

    @property
    def queries(self) -> Queries: ...


class Finding:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._clock = hs.reactor

    # -- messages ----------------------------------------------------------------------------------------------------

    @cached_property
    def search_store(self) -> EventSearchStore:
        from synapse.storage.event_search import EventSearchStore

        return EventSearchStore(self._hs.database)

    @cached_property
    def search_index(self) -> SearchIndex:
        """In the main process, which serves searches."""
        from synapse.handlers.search_index import SearchIndex

        async def past() -> int:
            return await self._hs.rooms.persister.past()

        return SearchIndex(self.search_store, self._hs.reading.position, past)

    @cached_property
    def search(self) -> SearchHandler:
        from synapse.handlers.search import SearchHandler
        from synapse.handlers.search_rooms import SearchRooms

        reading = self._hs.reading
        memory = reading.memory
        return SearchHandler(
            self.search_store,
            self.search_index,
            SearchRooms(memory.memberships, reading.user_room_store, memory.visibility, reading.state_store),
            reading.timeline_store,
            memory.ignored,
            self.search_answer,
            enabled=self._hs.config.server.enable_search,
        )

    @cached_property
    def search_answer(self) -> SearchAnswer:
        from synapse.handlers.search_answer import SearchAnswer
        from synapse.storage.surroundings import SurroundingsStore

        reading = self._hs.reading
        return SearchAnswer(
            self.search_store,
            SurroundingsStore(self._hs.database),
            reading.memory.visibility,
            reading.annotator,
            reading.state_store,
            self._hs.rooms.state_store,
            self._clock,
        )

    # -- rooms -------------------------------------------------------------------------------------------------------

    @cached_property
    def room_summaries(self) -> RoomSummaries:
        from synapse.handlers.room_summaries import RoomSummaries

        rooms = self._hs.rooms
        memberships = self._hs.reading.memory.memberships
        queries = self._hs.queries
        return RoomSummaries(rooms.room_store, memberships, rooms.aliases, queries.host_store, queries.federated_spaces)

    @cached_property
    def spaces(self) -> Spaces:
        from synapse.handlers.spaces import Spaces
        from synapse.storage.spaces import SpacesStore

        annotator, queries = self._hs.reading.annotator, self._hs.queries
        store = SpacesStore(self._hs.database)
        return Spaces(self.room_summaries, store, annotator, queries.door, queries.federated_spaces)

    @cached_property
    def mutual_rooms(self) -> MutualRooms:
        from synapse.handlers.mutual_rooms import MutualRooms
        from synapse.storage.shared_rooms import SharedRoomStore

        return MutualRooms(SharedRoomStore(self._hs.database))

    # -- reports -----------------------------------------------------------------------------------------------------

    @cached_property
    def report_store(self) -> ReportsStore:
        from synapse.storage.reports import ReportsStore

        return ReportsStore(self._hs.database)

    @cached_property
    def reports(self) -> Reports:
        from synapse.handlers.reports import Reports

        reading, rooms = self._hs.reading, self._hs.rooms
        return Reports(
            self.report_store,
            reading.door,
            reading.room_reading,
            rooms.room_store,
            self._hs.accounts.users,
            rooms.membership_store,
            self._hs.config.server.server_name,
            self._clock,
        )

    @cached_property
    def reports_admin(self) -> ReportsAdmin:
        from synapse.handlers.reports import ReportsAdmin

        return ReportsAdmin(self.report_store, self._hs.rooms.events)

    # -- in the background -------------------------------------------------------------------------------------------

    @cached_property
    def background(self) -> list[Repeating]:
        """What the main process does once in a while, to be started with it."""
        from synapse.util.repeating import Repeating

        if not self._hs.is_main or not self._hs.config.server.enable_search:
            return []
        return [Repeating(self._clock, INDEX_SECONDS, "Indexing messages", self.search_index.keep_up)]
