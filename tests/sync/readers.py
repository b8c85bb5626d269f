"""The handlers that read rooms, put together over a sync harness."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from synapse.handlers.context import EventContext
from synapse.handlers.event_stream import EventStream
from synapse.handlers.initial_sync import InitialSync
from synapse.handlers.nearest_event import NearestEvent
from synapse.handlers.pagination import Pagination
from synapse.handlers.presence import PresenceReading
from synapse.handlers.relations import Relations
from synapse.handlers.remote.gaps import Told
from synapse.handlers.room_reading import RoomReading
from synapse.handlers.threads import Threads
from synapse.handlers.visibility import RoomDoor
from synapse.replication.calls import LocalMain
from synapse.state.store import StateReader
from synapse.storage.account_data import AccountDataStore
from synapse.storage.aggregations import AggregationStore
from synapse.storage.awaited import Stretch
from synapse.storage.current_state import CurrentStateStore
from synapse.storage.events import EventsStore
from synapse.storage.past_state import PastStateStore
from synapse.storage.presence import PresenceStore
from synapse.storage.receipts import ReceiptStore
from synapse.storage.relations import RelationsStore
from synapse.storage.state import StateStore
from synapse.storage.threads import ThreadStore
from synapse.storage.timeline import TimelineStore
from synapse.storage.user_rooms import UserRoomStore
from synapse.sync.bundles import Bundler
from synapse.sync.forms import Annotator
from synapse.sync.ignored import IgnoredUsers
from synapse.sync.memberships import Memberships
from synapse.sync.sections.presence import PresenceSection
from synapse.sync.sections.receipts import ReceiptSection
from synapse.sync.sections.typing import TypingSection
from synapse.util.caches import LruCache
from tests.sync.harness import Harness


async def nothing() -> Told:
    """Other servers have no more."""
    return Told.WHOLE


async def never(user_id: str) -> int | None:
    """Nobody has an account here."""


class Alone:
    """There is no other server to ask for events."""

    async def fetch(self, room_id: str, timestamp: int, limit: int | None, *, backwards: bool) -> str | None:
        return None


class Readers:
    """Each handler by name; they share the harness's caches."""

    def __init__(self, h: Harness) -> None:
        user_rooms, timeline, states = UserRoomStore(h.db), TimelineStore(h.db), PastStateStore(h.db)
        memberships = Memberships(user_rooms, h.user_rooms)
        ignored = IgnoredUsers(AccountDataStore(h.db), h.ignored_lists)
        annotator = Annotator(timeline, Bundler(AggregationStore(h.db), h.visibility, ignored))
        cache: LruCache[Any, Any] = LruCache("events", 100)
        events = EventsStore(h.db, cache)
        entries: LruCache[Any, Any] = LruCache("state", 100)
        state = StateReader(CurrentStateStore(h.db), StateStore(h.db), events, entries)
        self.door = RoomDoor(memberships, user_rooms, h.visibility)
        self.backfilled: list[tuple[str, int, int | None]] = []
        self.stretches: list[Stretch] = []
        self.untold_at: int | None = None
        self.gaps_filled = 0  # by others who page
        self.tell: Callable[[], Awaitable[Told]] = nothing  # what others do when they are asked
        self.pagination = Pagination(
            self.door,
            timeline,
            states,
            h.visibility,
            annotator,
            ignored,
            lambda: h.present.token().events,
            h.clock,
            self,
        )
        self.reading = RoomReading(
            self.door, memberships, user_rooms, states, timeline, annotator, h.visibility, ignored, h.clock
        )
        self.context = EventContext(self.door, self.reading, self.pagination, states, state, annotator, h.clock)
        self.relations = Relations(self.door, self.reading, self.pagination, RelationsStore(h.db), annotator)
        self.threads = Threads(self.door, ThreadStore(h.db), h.visibility, annotator, ignored, h.clock)
        self.nearest = NearestEvent(self.door, timeline, h.visibility, ignored, Alone())
        receipts = ReceiptStore(h.db)
        presence = PresenceReading(PresenceStore(h.db), LocalMain(), never, h.clock, enabled=True)
        self.initial = InitialSync(
            h.handler,
            h.present,
            memberships,
            self.door,
            self.pagination,
            timeline,
            states,
            receipts,
            AccountDataStore(h.db),
            presence,
            annotator,
            h.clock,
        )
        self.events = EventStream(
            h.present,
            memberships,
            user_rooms,
            self.door,
            timeline,
            states,
            h.recent,
            h.visibility,
            annotator,
            ignored,
            (ReceiptSection(receipts, h.changes), TypingSection(h.typing)),
            PresenceSection(PresenceStore(h.db), h.changes, h.clock),
            presence,
            h.clock,
        )

    async def backfill(self, room_id: str, stretch: Stretch) -> Told:
        """Other servers are asked for what is missing."""
        self.backfilled.append((room_id, stretch.lowest, stretch.highest))
        self.stretches.append(stretch)
        return await self.tell()

    async def untold(self, room_id: str, stretch: Stretch) -> int | None:
        """Where more is to be told than was asked for."""
        return self.untold_at

    def filled(self) -> int:
        return self.gaps_filled

    def may_lack(self, room_id: str, filled: int) -> bool:
        return self.gaps_filled != filled
