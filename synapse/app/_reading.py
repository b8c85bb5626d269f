"""The services of a process that read rooms and follow them: sync, pages of history, state, typing, receipts,
presence.

A part of the composition root (`hs.reading`). What it stands on, it names in `Foundation`. In the main process it
also holds what is written of these: who types, who is online.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from synapse.app._accounts import Accounts
    from synapse.app._queries import Queries
    from synapse.app._remote import Remote
    from synapse.app._replication import Replication
    from synapse.app._rooms import Rooms
    from synapse.handlers.context import EventContext
    from synapse.handlers.event_stream import EventStream
    from synapse.handlers.initial_sync import InitialSync
    from synapse.handlers.nearest_event import NearestEvent
    from synapse.handlers.pagination import Pagination
    from synapse.handlers.positions import StreamWriter
    from synapse.handlers.presence import PresenceReading
    from synapse.handlers.presence_keeper import PresenceKeeper
    from synapse.handlers.receipts import Receipts
    from synapse.handlers.relations import Relations
    from synapse.handlers.room_reading import RoomReading
    from synapse.handlers.syncing_users import SyncingDevice, SyncingUsers
    from synapse.handlers.threads import Threads
    from synapse.handlers.typing import Typing
    from synapse.handlers.visibility import RoomDoor
    from synapse.replication.protocol import Command
    from synapse.replication.writing import MainStreams, NoStreams
    from synapse.storage.past_state import PastStateStore
    from synapse.storage.presence import PresenceStore
    from synapse.storage.receipts import ReceiptStore
    from synapse.storage.timeline import TimelineStore
    from synapse.storage.user_rooms import UserRoomStore
    from synapse.sync.changes import Changes
    from synapse.sync.context import Section
    from synapse.sync.forms import Annotator
    from synapse.sync.handler import SyncHandler
    from synapse.sync.ignored import IgnoredUsers
    from synapse.sync.lazy_members import LazyMembers
    from synapse.sync.memberships import Memberships
    from synapse.sync.present import StreamPresent
    from synapse.sync.recent import RecentEvents
    from synapse.sync.room_states import RoomState
    from synapse.sync.typing import TypingRooms
    from synapse.sync.visibility import VisibilityFilter
    from synapse.util.caches import Cache, LruCache


class Foundation(Base, Protocol):
    """What the reading services stand on: the rest of the composition root."""

    @property
    def streams(self) -> MainStreams | NoStreams: ...

    @property
    def replication(self) -> Replication: ...

    @property
    def accounts(self) -> Accounts: ...

    @property
    def rooms(self) -> Rooms: ...

    @property
    def remote(self) -> Remote: ...

    @property
    def queries(self) -> Queries: ...

    def stream_writer(self, name: str) -> StreamWriter:
        """The writing end of a stream; in a worker, one that refuses."""


class SyncMemory:
    """What a process that syncs remembers, kept true by the streams from the moment it is made."""

    def __init__(self, hs: Foundation, user_rooms: UserRoomStore) -> None:
        from synapse.storage.unread import UnreadStore
        from synapse.storage.visibility_facts import VisibilityFactStore
        from synapse.sync import ignored, memberships, room_states, unread, visibility
        from synapse.sync.changes import Changes
        from synapse.sync.feed import SyncFeed
        from synapse.sync.recent import RecentEvents
        from synapse.sync.typing import TypingRooms

        caches = hs.caches
        self.recent: RecentEvents = RecentEvents(hs.config.caches.size("recent_events", 5_000))
        self.changes: Changes = Changes(hs.config.caches.size("stream_changes", 10_000))
        self.typing: TypingRooms = TypingRooms()
        self.memberships: Memberships = memberships.Memberships(user_rooms, caches.cache(memberships.CACHE, 10_000))
        lists = caches.cache(ignored.CACHE, 10_000, shared=False)
        self.ignored: IgnoredUsers = ignored.IgnoredUsers(hs.accounts.account_data_store, lists)
        self.visibility: VisibilityFilter = visibility.VisibilityFilter(
            VisibilityFactStore(hs.database),
            user_rooms,
            caches.cache(visibility.HISTORIES, 10_000, shared=False),
            caches.lru(visibility.GROUPS, 10_000),
            hs.accounts.erased_users,
        )
        self.room_states: Cache[str, RoomState] = caches.cache(room_states.CACHE, room_states.ROOMS, shared=False)
        feed = SyncFeed(
            self.recent, self.changes, self.typing, self.memberships, self.ignored, self.visibility, self.room_states
        )
        feed.follow(hs.notifier)
        self.unread = unread.UnreadCounts(UnreadStore(hs.database), caches.lru(unread.CACHE, 20_000))
        self.unread.follow(hs.notifier)


class Reading:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._clock = hs.reactor

    async def begin(self) -> None:
        """In the main process, once the streams are started: take up what the last one left."""
        if self._hs.is_main and self._hs.config.use_presence:
            await self.presence_keeper.start()

    # -- stores ----------------------------------------------------------------------------------------------------

    @cached_property
    def timeline_store(self) -> TimelineStore:
        from synapse.storage.timeline import TimelineStore

        return TimelineStore(self._hs.database)

    @cached_property
    def state_store(self) -> PastStateStore:
        from synapse.storage.past_state import PastStateStore

        return PastStateStore(self._hs.database)

    @cached_property
    def user_room_store(self) -> UserRoomStore:
        from synapse.storage.user_rooms import UserRoomStore

        return UserRoomStore(self._hs.database)

    @cached_property
    def receipt_store(self) -> ReceiptStore:
        from synapse.storage.receipts import ReceiptStore

        return ReceiptStore(self._hs.database)

    @cached_property
    def presence_store(self) -> PresenceStore:
        from synapse.storage.presence import PresenceStore

        return PresenceStore(self._hs.database)

    # -- what is remembered ----------------------------------------------------------------------------------------

    @cached_property
    def memory(self) -> SyncMemory:
        """Recent events, who changed when, where users stand."""
        return SyncMemory(self._hs, self.user_room_store)

    @cached_property
    def annotator(self) -> Annotator:
        from synapse.storage.aggregations import AggregationStore
        from synapse.sync.bundles import Bundler
        from synapse.sync.forms import Annotator

        bundler = Bundler(AggregationStore(self._hs.database), self.memory.visibility, self.memory.ignored)
        return Annotator(self.timeline_store, bundler)

    @cached_property
    def present(self) -> StreamPresent:
        """How far this process has seen the streams."""
        from synapse.sync.present import StreamPresent

        return StreamPresent(self._hs.notifier, self._hs.is_main)

    def position(self) -> int:
        """The present position of the events stream."""
        return self._hs.notifier.position("events")

    # -- reading rooms ---------------------------------------------------------------------------------------------

    @cached_property
    def door(self) -> RoomDoor:
        """Who may look into which room."""
        from synapse.handlers.visibility import RoomDoor

        return RoomDoor(self.memory.memberships, self.user_room_store, self.memory.visibility)

    @cached_property
    def room_reading(self) -> RoomReading:
        from synapse.handlers.room_reading import RoomReading

        return RoomReading(
            self.door,
            self.memory.memberships,
            self.user_room_store,
            self.state_store,
            self.timeline_store,
            self.annotator,
            self.memory.visibility,
            self.memory.ignored,
            self._clock,
        )

    @cached_property
    def pagination(self) -> Pagination:
        from synapse.handlers.pagination import Pagination

        return Pagination(
            self.door,
            self.timeline_store,
            self.state_store,
            self.memory.visibility,
            self.annotator,
            self.memory.ignored,
            self.position,
            self._clock,
            self._hs.remote,
        )

    @cached_property
    def context(self) -> EventContext:
        from synapse.handlers.context import EventContext

        state = self._hs.rooms.state
        return EventContext(
            self.door, self.room_reading, self.pagination, self.state_store, state, self.annotator, self._clock
        )

    @cached_property
    def relations(self) -> Relations:
        from synapse.handlers.relations import Relations
        from synapse.storage.relations import RelationsStore

        return Relations(
            self.door, self.room_reading, self.pagination, RelationsStore(self._hs.database), self.annotator
        )

    @cached_property
    def threads(self) -> Threads:
        from synapse.handlers.threads import Threads
        from synapse.storage.threads import ThreadStore

        memory, store = self.memory, ThreadStore(self._hs.database)
        return Threads(self.door, store, memory.visibility, self.annotator, memory.ignored, self._clock)

    @cached_property
    def nearest_event(self) -> NearestEvent:
        from synapse.handlers.nearest_event import NearestEvent

        memory, elsewhere = self.memory, self._hs.queries.federated_nearest
        return NearestEvent(self.door, self.timeline_store, memory.visibility, memory.ignored, elsewhere)

    # -- following rooms -------------------------------------------------------------------------------------------

    @cached_property
    def syncs(self) -> SyncHandler:
        from synapse.sync.handler import Sources, SyncHandler
        from synapse.sync.lazy_members import LazyMembers
        from synapse.sync.plan import Planner

        memory = self.memory
        lazy_members = LazyMembers()
        sources = Sources(
            present=self.present,
            memberships=memory.memberships,
            ignored=memory.ignored,
            planner=Planner(self.user_room_store, memory.recent),
            lazy_members=lazy_members,
            sections=self._sections(lazy_members),
        )
        return SyncHandler(sources, self._clock, self._hs.config.caches.sync_response_cache_duration / 1000)

    def _sections(self, lazy_members: LazyMembers) -> Sequence[Section]:
        from synapse.storage.shared_rooms import SharedRoomStore
        from synapse.sync.room_states import RoomStates
        from synapse.sync.sections import build_sections

        hs, memory = self._hs, self.memory
        return build_sections(
            timeline=self.timeline_store,
            states=self.state_store,
            recent=memory.recent,
            visibility=memory.visibility,
            annotator=self.annotator,
            room_states=RoomStates(self.state_store, self.annotator, memory.room_states),
            lazy_members=lazy_members,
            receipts=self.receipt_store,
            unread=memory.unread,
            account_data=hs.accounts.account_data_store,
            push_rules=hs.accounts.push_rules.ruleset,
            to_device=hs.accounts.to_device_store,
            shared=SharedRoomStore(hs.database),
            rooms_of=hs.rooms_of_users.each,
            keys_left=hs.accounts.keys_left,
            presence=self.presence_store if hs.config.use_presence else None,
            typing=memory.typing,
            changes=memory.changes,
            clock=self._clock,
        )

    @cached_property
    def filters(self) -> LruCache[Any, Any]:
        """Parsed filters, which never change."""
        return self._hs.caches.lru("filters", 2_000)

    @cached_property
    def event_stream(self) -> EventStream:
        from synapse.handlers.event_stream import EventStream
        from synapse.sync.sections.account_data import AccountDataSection
        from synapse.sync.sections.presence import PresenceSection
        from synapse.sync.sections.receipts import ReceiptSection
        from synapse.sync.sections.typing import TypingSection

        memory, accounts = self.memory, self._hs.accounts
        sections: list[Section] = [
            ReceiptSection(self.receipt_store, memory.changes),
            TypingSection(memory.typing),
            AccountDataSection(accounts.account_data_store, accounts.push_rules.ruleset, memory.changes),
        ]
        presence = PresenceSection(self.presence_store, memory.changes, self._clock)
        return EventStream(
            self.present,
            memory.memberships,
            self.user_room_store,
            self.door,
            self.timeline_store,
            self.state_store,
            memory.recent,
            memory.visibility,
            self.annotator,
            memory.ignored,
            sections,
            presence if self._hs.config.use_presence else None,
            self.presence,
            self._clock,
        )

    @cached_property
    def initial_sync(self) -> InitialSync:
        from synapse.handlers.initial_sync import InitialSync

        return InitialSync(
            self.syncs,
            self.present,
            self.memory.memberships,
            self.door,
            self.pagination,
            self.timeline_store,
            self.state_store,
            self.receipt_store,
            self._hs.accounts.account_data_store,
            self.presence,
            self.annotator,
            self._clock,
        )

    # -- typing, receipts, presence ----------------------------------------------------------------------------------

    @cached_property
    def typing(self) -> Typing:
        """In the main process also the writing end, which hears of messages and of who leaves."""
        from synapse.handlers.typing import Typing

        typing = Typing(self.door, self._hs.main, self._tell_typing, self._clock)
        if self._hs.is_main:
            self._hs.notifier.subscribe("events", lambda _, rows: typing.learn(row for _, row in rows))
        return typing

    def _tell_typing(self, room_id: str, user_ids: Sequence[str]) -> None:
        from synapse.replication.writing import MainStreams

        streams = self._hs.streams
        if not isinstance(streams, MainStreams):
            raise RuntimeError("only the main process tells who types")
        streams.memory("typing").tell((room_id, list(user_ids)))

    @cached_property
    def receipts(self) -> Receipts:
        from synapse.handlers.receipts import Receipts

        hs = self._hs
        stream = hs.stream_writer("receipts")
        return Receipts(self.receipt_store, stream, self.door, hs.accounts.account_data, hs.main, self._clock)

    @cached_property
    def presence_keeper(self) -> PresenceKeeper:
        """In the main process, where presence is not switched off."""
        from synapse.app._replication import MainReplication
        from synapse.handlers.presence_keeper import PresenceKeeper
        from synapse.handlers.syncing_users import SyncingDevice

        hs = self._hs
        if not isinstance(hs.replication, MainReplication):
            raise RuntimeError("only the main process keeps presence")
        server_name = hs.config.server.server_name
        keeper = PresenceKeeper(self.presence_store, hs.stream_writer("presence"), hs.main, self._clock, server_name)

        def user_sync(process: str, user_id: str, device_id: str | None, presence: str, there: bool) -> None:
            keeper.device_syncs(process, SyncingDevice(user_id, device_id), presence, there)

        hs.replication.commands.on_user_sync = user_sync
        hs.replication.commands.on_clear_user_syncs = keeper.process_gone
        hs.notifier.subscribe("events", lambda _, rows: keeper.learn(row for _, row in rows))
        return keeper

    @cached_property
    def presence(self) -> PresenceReading:
        from synapse.handlers.presence import PresenceReading

        hs = self._hs
        enabled = hs.config.use_presence
        users = hs.accounts.users

        async def created(user_id: str) -> int | None:
            user = await users.get(user_id)
            return None if user is None else user.created_ts

        last_active = self.presence_keeper.last_active_ts if enabled and hs.is_main else lambda user_id: None
        return PresenceReading(self.presence_store, hs.main, created, self._clock, enabled, last_active)

    async def show_presence(self, user_id: str) -> None:
        """The user has another name or picture, which is shown with their presence."""
        from synapse.handlers.presence_calls import SHOW

        if self._hs.config.use_presence:
            await self._hs.main(SHOW, user_id)

    async def forget_presence(self, user_id: str) -> None:
        """The account is gone: nobody is there, and has nothing to say."""
        from synapse.api.constants import Presence
        from synapse.handlers.presence_calls import SET, SetPresence

        if self._hs.config.use_presence:
            await self._hs.main(SET, SetPresence(user_id, Presence.OFFLINE, None))

    @cached_property
    def syncing_users(self) -> SyncingUsers:
        """Tells presence who syncs on this process."""
        from synapse.app._replication import WorkerReplication, user_sync
        from synapse.handlers.syncing_users import SyncingUsers

        hs = self._hs
        if not hs.config.use_presence:
            return SyncingUsers(None, self._clock)
        if hs.is_main:
            self.presence_keeper  # noqa: B018  # it has to be there to hear of them

        def announce(device: SyncingDevice, presence: str, there: bool) -> None:
            hs.replication.report_syncing(device.user_id, device.device_id, presence, there)

        users = SyncingUsers(announce, self._clock)

        def present() -> Iterable[Command]:
            return [user_sync(*device, presence, True) for device, presence in users.present().items()]

        if isinstance(hs.replication, WorkerReplication):
            hs.replication.present = present
        return users
