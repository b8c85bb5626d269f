"""A sync handler on a real database, and a world of rooms to sync."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.api.filters import Filter
from synapse.replication.contacts import RoomsOfUsers
from synapse.storage.account_data import AccountDataStore
from synapse.storage.aggregations import AggregationStore
from synapse.storage.database import Database
from synapse.storage.one_time_keys import OneTimeKeyStore
from synapse.storage.past_state import Delta, PastStateStore
from synapse.storage.presence import PresenceStore
from synapse.storage.receipts import ReceiptStore
from synapse.storage.shared_rooms import SharedRoomStore
from synapse.storage.timeline import TimelineRow, TimelineStore
from synapse.storage.to_device import ToDeviceStore
from synapse.storage.unread import UnreadStore
from synapse.storage.user_rooms import UserRoomStore
from synapse.storage.users import UserStore
from synapse.storage.visibility_facts import VisibilityFactStore
from synapse.sync.bundles import Bundler
from synapse.sync.changes import Changes
from synapse.sync.erased import ErasedUsers
from synapse.sync.forms import Annotator
from synapse.sync.handler import Sources, SyncHandler, SyncRequest
from synapse.sync.ignored import IgnoredUsers
from synapse.sync.keys_left import KeysLeftCache
from synapse.sync.lazy_members import LazyMembers
from synapse.sync.memberships import Memberships
from synapse.sync.plan import Planner
from synapse.sync.recent import RecentEvents
from synapse.sync.room_states import RoomStates
from synapse.sync.sections import build_sections
from synapse.sync.tokens import StreamToken
from synapse.sync.typing import TypingRooms
from synapse.sync.unread import UnreadCounts
from synapse.sync.visibility import VisibilityFilter
from synapse.util.caches import Cache, LruCache
from tests.support.world import World

NOW = 1_700_000_000.0


@dataclass
class FakePresent:
    """The streams as a test says they are; waiting ends when the test wakes it."""

    positions: StreamToken = field(default_factory=StreamToken)
    waiting: list[Deferred[bool]] = field(default_factory=list)
    caught_up: list[StreamToken] = field(default_factory=list)

    def token(self) -> StreamToken:
        return self.positions

    async def catch_up(self, token: StreamToken, seconds: float) -> None:
        self.caught_up.append(token)

    async def recognise(self, since: StreamToken, seconds: float) -> None:
        await self.catch_up(since, seconds)

    async def wait(self, user_id: str, room_ids: frozenset[str], seconds: float) -> bool:
        deferred: Deferred[bool] = Deferred()
        self.waiting.append(deferred)
        return await deferred

    def wake(self, because: bool = True) -> None:
        waiting, self.waiting = self.waiting, []
        for deferred in waiting:
            deferred.callback(because)


class Harness:
    """`world` is what there is; `memory` says whether its events also come in over the stream."""

    def __init__(self, db: Database, *, memory: bool = False) -> None:
        self.db = db
        self.clock = Clock()
        self.clock.advance(NOW)
        self.world = World(db)
        self.present = FakePresent()
        self.recent = RecentEvents()
        self.changes = Changes()
        self.typing = TypingRooms()
        self.user_rooms: Cache[str, Any] = Cache("user_rooms", 100)
        self.histories: Cache[str, Any] = Cache("histories", 100)
        self.ignored_lists: Cache[str, Any] = Cache("ignored", 100)
        self.keys_left: Cache[Any, Any] = Cache("keys_left", 100)
        self.erased: Cache[str, bool] = Cache("erased", 100)
        self.room_states: Cache[str, Any] = Cache("room_states", 100)
        self.filters: dict[str, Filter] = {}
        self.rules: dict[str, Any] = {}
        if memory:
            self.recent.start(0)
        self.memory = memory
        self.world.on_event.append(self._told)
        self.handler = self._build()

    def _build(self) -> SyncHandler:
        timeline, states = TimelineStore(self.db), PastStateStore(self.db)
        groups: LruCache[Any, Any] = LruCache("groups", 100)
        user_rooms = UserRoomStore(self.db)
        lazy_members = LazyMembers()
        erased = ErasedUsers(UserStore(self.db), self.erased)
        self.visibility = VisibilityFilter(VisibilityFactStore(self.db), user_rooms, self.histories, groups, erased)
        accounts = AccountDataStore(self.db)
        ignored = IgnoredUsers(accounts, self.ignored_lists)
        annotator = Annotator(timeline, Bundler(AggregationStore(self.db), self.visibility, ignored))
        sections = build_sections(
            timeline=timeline,
            states=states,
            recent=self.recent,
            visibility=self.visibility,
            annotator=annotator,
            room_states=RoomStates(states, annotator, self.room_states),
            lazy_members=lazy_members,
            receipts=ReceiptStore(self.db),
            unread=UnreadCounts(UnreadStore(self.db), LruCache("unread_counts", 0)),
            account_data=accounts,
            push_rules=self._rules_of,
            to_device=ToDeviceStore(self.db),
            shared=SharedRoomStore(self.db),
            rooms_of=RoomsOfUsers(self.db, Cache("rooms_of_users", 0)).each,
            keys_left=KeysLeftCache(OneTimeKeyStore(self.db), self.keys_left),
            presence=PresenceStore(self.db),
            typing=self.typing,
            changes=self.changes,
            clock=self.clock,
        )
        sources = Sources(
            present=self.present,
            memberships=Memberships(user_rooms, self.user_rooms),
            ignored=ignored,
            planner=Planner(user_rooms, self.recent),
            lazy_members=lazy_members,
            sections=sections,
        )
        return SyncHandler(sources, self.clock)

    async def _rules_of(self, user_id: str) -> Any:
        return self.rules.get(user_id, {"global": {}})

    def _told(self, row: TimelineRow, delta: Delta | None) -> None:
        if self.memory:
            self.recent.add_event(row._replace(is_parent=True))
            if delta is not None:
                self.recent.add_delta(delta)
        if delta is not None or row.type == "m.room.redaction":
            self.room_states.invalidate(row.room_id)
        if row.type == "m.room.member" and row.state_key is not None:
            self.user_rooms.invalidate(row.state_key)
        if row.type == "m.room.history_visibility":
            self.histories.invalidate(row.room_id)
        self.present.positions = self.present.positions._replace(events=max(row.stream, self.present.positions.events))

    async def sync(
        self,
        user_id: str = "@alice:test",
        since: str | None = None,
        *,
        device_id: str | None = "DEV",
        timeout: int = 0,  # noqa: ASYNC109  # what the client asks for
        full_state: bool = False,
        state_after: bool = False,
        **sync_filter: Any,
    ) -> dict[str, Any]:
        request = SyncRequest(
            user_id,
            device_id,
            self.filters.setdefault(repr(sync_filter), Filter.parse(sync_filter)),
            None if since is None else StreamToken.parse(since),
            timeout,
            full_state,
            state_after,
        )
        answer = orjson.loads(await self.handler.sync(request))
        assert isinstance(answer, dict)
        return answer


def bodies(room: dict[str, Any]) -> list[str]:
    """The messages of a room's timeline."""
    return [e["content"]["body"] for e in room["timeline"]["events"] if e["type"] == "m.room.message"]


def state_of(room: dict[str, Any], part: str = "state") -> dict[tuple[str, str], dict[str, Any]]:
    """The state events of a room's answer by type and key."""
    return {(event["type"], event["state_key"]): event["content"] for event in room[part]["events"]}
