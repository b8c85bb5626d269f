"""A world of rooms made by hand, and another server that asks about it: `far.example`, unless it is said otherwise."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from synapse.federation.hosts import RoomHosts
from synapse.federation.serving.history import HistoryWalk
from synapse.federation.serving.visibility import ServerVisibility
from synapse.handlers.federation_door import FederationDoor
from synapse.handlers.served_events import ServedEvents
from synapse.handlers.served_lookups import ServedLookups
from synapse.rest.federation.events import FederationEvents
from synapse.rest.federation.lookups import FederationFinding
from synapse.state.store import StateReader
from synapse.storage.current_state import CurrentStateStore
from synapse.storage.database import Database
from synapse.storage.events import EventsStore
from synapse.storage.room_hosts import RoomHostsStore
from synapse.storage.served_events import ServedEventsStore
from synapse.storage.served_visibility import ServedVisibilityStore
from synapse.storage.state import StateStore
from synapse.storage.timeline import TimelineRow, TimelineStore
from synapse.storage.users import UserStore
from synapse.sync.erased import ErasedUsers
from synapse.sync.shared import SharedWork
from synapse.util.caches import Cache, LruCache
from tests.rest.driver import Driver, Reply
from tests.support.world import World

FAR = "far.example"
V1 = "/_matrix/federation/v1"


class Asked:
    """The services that answer other servers, over a `World`."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.world = World(db)
        events = EventsStore(db, LruCache("events", 100))
        state = StateReader(CurrentStateStore(db), StateStore(db), events, LruCache("state", 10))
        self.hosts = RoomHosts(RoomHostsStore(db), Cache("rooms", 10))
        self.door = FederationDoor(state, self.hosts, LruCache("lists", 10))
        store = ServedEventsStore(db)
        self.walk = HistoryWalk(store)
        erased = ErasedUsers(UserStore(db), Cache("erased", 100))
        visibility = ServerVisibility(ServedVisibilityStore(db), LruCache("visibilities", 1000), erased, "test")
        shared: SharedWork[bytes] = SharedWork(Clock(), lambda _: False, 0.0)
        served = ServedEvents(self.door, store, StateStore(db), self.walk, visibility, shared, "test", Clock())
        nothing: Any = None
        lookups = ServedLookups(
            self.door, nothing, nothing, nothing, TimelineStore(db), "test", profiles_shown=True, rooms_listed=True
        )
        self.driver = Driver(FederationEvents(served), FederationFinding(nothing, lookups))

    async def room(self, *members: str, **wish: Any) -> str:
        """A room of alice's that these have joined."""
        room_id = await self.world.room(**wish)
        for user_id in members:
            await self.world.member(room_id, user_id)
        await self.settled(room_id)
        return room_id

    async def settled(self, room_id: str) -> None:
        """Writes the room's head, as the writer would, and has what is remembered of the room forgotten."""
        await self.world.sql(
            "INSERT INTO room_heads VALUES (%s, '{}', 1, %s, %s) ON CONFLICT (room_id) DO UPDATE "
            "SET state_ordering = EXCLUDED.state_ordering",
            *(room_id, self.world.stream, self.world.stream),
        )
        self.hosts.forget_all()

    async def first(self, room_id: str) -> TimelineRow:
        """The room's first event."""
        return (await TimelineStore(self.db).by_time(room_id, (0, 0), 2**62, 1, backwards=False))[0]

    async def cites(self, row: TimelineRow, *cited: TimelineRow) -> None:
        """A state event cites these as its auth events."""
        for each in cited:
            await self.world.sql("INSERT INTO event_auth VALUES (%s, %s)", row.event_id, each.event_id)

    async def get(self, path: str, *, origin: str | None = FAR, **query: Any) -> Reply:
        return await self.driver.call("GET", V1 + path, origin=origin, query=query)

    async def post(self, path: str, body: Any, *, origin: str | None = FAR) -> Reply:
        return await self.driver.call("POST", V1 + path, body, origin=origin)
