"""Processes that create and write events, with neither HTTP nor replication between them: what the writer announces
reaches every process at once, or when the test lets it (`RoomProcess.lag`, `catch_up`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, Protocol

from msgspec.structs import replace
from signedjson.key import decode_signing_key_base64
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from synapse.api.errors import MatrixError, not_found
from synapse.config.contacts import ThreepidsConfig
from synapse.events.event import Event
from synapse.handlers.account_data import AccountData
from synapse.handlers.aliases import Aliases, Located
from synapse.handlers.entry import Entry
from synapse.handlers.event_creation import Draft, EventCreation, Signer
from synapse.handlers.event_rules import EventRules
from synapse.handlers.identity_server import IdentityServers
from synapse.handlers.membership import Memberships
from synapse.handlers.new_rooms import NewRooms
from synapse.handlers.policy_server import PolicyServers
from synapse.handlers.public_rooms import PublicRooms
from synapse.handlers.push_rules import PushRules
from synapse.handlers.redaction import Redactions
from synapse.handlers.room_creation import RoomCreation
from synapse.handlers.room_locks import RoomLocks
from synapse.handlers.room_plan import CreateRoom
from synapse.handlers.room_profiles import RoomProfiles
from synapse.handlers.room_succession import RoomSuccession, Ways
from synapse.handlers.room_upgrade import RoomUpgrade
from synapse.handlers.room_upgrade import Stores as UpgradeStores
from synapse.handlers.third_party_invites import ThirdPartyInvites
from synapse.handlers.threepid_rules import ThreepidRules
from synapse.http.ratelimit import RateLimits
from synapse.http.request import Requester
from synapse.push.bulk import BulkPush, RoomMembers
from synapse.replication.calls import LocalMain
from synapse.replication.event_rows import EventRow, Row, rows_of
from synapse.state.feed import RoomFeed
from synapse.state.filters import StateFilter, StateKey
from synapse.state.heads import RoomHeads
from synapse.state.store import StateReader
from synapse.storage.account_data import AccountDataStore
from synapse.storage.aliases import AliasesStore
from synapse.storage.awaited import AwaitedStore
from synapse.storage.current_state import CurrentStateStore
from synapse.storage.database import Database, Transaction
from synapse.storage.event_txns import EventTxnsStore
from synapse.storage.events import EventsStore
from synapse.storage.extremities import ExtremitiesStore
from synapse.storage.invitees import InviteesStore
from synapse.storage.memberships import MembershipsStore
from synapse.storage.persist import Persister, Stores
from synapse.storage.persist_events import Outcome, Persisted, Receipt, Received, Request
from synapse.storage.persist_outliers import OutlierWriter
from synapse.storage.persist_plan import Planned
from synapse.storage.persist_room import RoomEnds
from synapse.storage.persist_state import GroupIds
from synapse.storage.push_rules import PushRuleStore
from synapse.storage.relations import RelationsStore
from synapse.storage.rooms import RoomsStore
from synapse.storage.state import StateStore
from synapse.sync.breath import Breath
from synapse.sync.shared import SharedWork
from synapse.util.caches import Cache, LruCache
from tests.support.alone import alone
from tests.support.reactor import real_reactor

SERVER = "test"
SIGNER = Signer(SERVER, decode_signing_key_base64("ed25519", "1", "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"))
ALICE, BOB, CAROL, DAVE = (Requester(f"@{name}:{SERVER}", "DEVICE") for name in ("alice", "bob", "carol", "dave"))


class Rate(NamedTuple):
    """A rate limit."""

    per_second: float
    burst_count: int


class Numbers:
    """The writing end of a stream that nobody follows."""

    def __init__(self) -> None:
        self._positions = count(1)

    async def append(self, write: Any, rows: Any) -> Any:
        return await write(next(self._positions))


class Alone:
    """The world beyond the server, where there is nothing."""

    async def servers_of(self, room_id: str) -> list[str]:
        return [SERVER]

    async def locate(self, alias: str) -> Located:
        raise not_found("There is no other server.")


async def _nowhere(alias: str) -> str:
    """In the place of other servers that are asked for aliases."""
    raise not_found(f"There is no room alias {alias}.")


class Nobody:
    """Other servers, of which none can be reached."""

    def __init__(self, members: RoomMembers) -> None:
        self._members = members

    async def is_in(self, room_id: str) -> bool:
        return bool((await self._members.get(room_id)).local)

    async def ask(self, server: str, room_id: str, event: dict[str, Any]) -> None:
        raise MatrixError(502, "M_CONNECTION_FAILED", f"{server} cannot be reached.")

    async def invite(self, draft: Draft) -> Persisted:
        raise MatrixError(502, "M_CONNECTION_FAILED", f"The server of {draft.state_key} cannot be reached.")

    async def bring_in(self, event: Event) -> Persisted:
        raise MatrixError(403, "M_FORBIDDEN", "This process takes in no events of others.")


class RoomProcess:
    """What a process that creates events is made of. `write` hands requests to the writer."""

    def __init__(self, db: Database, write: Any, now: Any, *, is_main: bool) -> None:
        self.db = db
        self.lagging = False
        self.outside_client: Any = None
        self.federation_api: Any = None
        self.position = 0
        self._late: list[tuple[int, Sequence[tuple[int, Row]]]] = []
        self._waiting: list[tuple[int, Deferred[None]]] = []
        self.events = EventsStore(db, LruCache("events", 1000))
        self.state = StateReader(CurrentStateStore(db), StateStore(db), self.events, LruCache("state", 100))
        self.heads = RoomHeads(ExtremitiesStore(db), LruCache("heads", 100))
        self.members = RoomMembers(MembershipsStore(db), SERVER, Cache("members", 100))
        self.feed = RoomFeed(self.heads, self.state, self.events, self.members)
        self.programs: Cache[str, Any] = Cache("push_rules", 1000)
        self.push_rules = PushRules(PushRuleStore(db), self.programs, Numbers(), LocalMain())
        self.push = BulkPush(self.members, self.push_rules.programs, self.events, SERVER)
        self.creation = EventCreation(
            SIGNER,
            self.heads,
            self.state,
            self.events,
            EventTxnsStore(db),
            write,
            self.push,
            EventRules(AliasesStore(db), RelationsStore(db), self.events, SERVER, _nowhere),
            PolicyServers(self.federation, self.state, MembershipsStore(db), LruCache("witnesses", 10)),
            RoomLocks(),
            LruCache("sent", 100),
            self.caught_up,
            now,
            is_main,
        )
        limits = {"rc_invites.per_issuer": Rate(0.001, 50), "rc_joins.local": Rate(0.001, 50)}
        self.limits = RateLimits(limits.get, Clock())
        identity = IdentityServers(self.outside, ThreepidRules(ThreepidsConfig()))
        self.third_party = ThirdPartyInvites(
            self.creation, self.state, identity, InviteesStore(db), self.limits, SERVER, lambda: Nobody(self.members)
        )
        self.new_rooms = NewRooms(SIGNER, self.push, write, self.caught_up, now)
        self.remote = alone(db, self, SIGNER)
        self.rooms = RoomCreation(
            self.new_rooms, InviteesStore(db), self.third_party, self.remote, self.limits, SERVER, "12"
        )
        self.aliases = Aliases(AliasesStore(db), RoomsStore(db), self.state, self.creation, SERVER, Alone())
        nobody: Any = None
        self.directory = PublicRooms(RoomsStore(db), SERVER, nobody)
        self.redactions = Redactions(self.creation)
        self.account_data = AccountData(
            AccountDataStore(db), Numbers(), LocalMain(), self.forget, self.push_rules.ruleset
        )
        ways = Ways(AliasesStore(db), RoomsStore(db), SERVER)
        self.succession = RoomSuccession(self.state, self.account_data, self.push_rules, ways)
        self.memberships = Memberships(
            self.creation,
            self.remote,
            self.state,
            Entry(self.state, self.members, MembershipsStore(db)),
            self.third_party,
            MembershipsStore(db),
            InviteesStore(db),
            self.aliases,
            self.limits,
            SERVER,
            self.succession.joined,
        )
        stores = UpgradeStores(RoomsStore(db), AliasesStore(db), MembershipsStore(db), InviteesStore(db), self.events)
        self.upgrades = RoomUpgrade(
            self.creation,
            self.new_rooms,
            self.state,
            stores,
            self.succession,
            Breath(real_reactor()),
            SharedWork(Clock(), lambda _: True, 600.0),
        )
        self.profiles = RoomProfiles(self.creation, self.state, MembershipsStore(db), InviteesStore(db))

    def federation(self) -> Any:
        """What other servers are asked by; tests that need it set one."""
        return self.federation_api

    def outside(self) -> Any:
        """The client for identity servers; tests that need it set one."""
        return self.outside_client

    async def forget(self, cache: str, keys: Iterable[str]) -> None:
        """What every process is told to forget."""
        assert cache == self.programs.name
        for key in keys:
            self.programs.invalidate(key)

    def hear(self, position: int, rows: Sequence[tuple[int, Row]]) -> None:
        """Rows of the events stream arrive, unless this process lags."""
        self._late.append((position, rows))
        if not self.lagging:
            self.catch_up()

    def catch_up(self) -> None:
        late, self._late = self._late, []
        for position, rows in late:
            self.feed.learn(rows)
            self.position = position
        waiting, self._waiting = self._waiting, []
        for position, waiter in waiting:
            if position <= self.position:
                waiter.callback(None)
            else:
                self._waiting.append((position, waiter))

    async def caught_up(self, position: int) -> None:
        if self.position < position:
            waiter: Deferred[None] = Deferred()
            self._waiting.append((position, waiter))
            await waiter

    # -- short hand ------------------------------------------------------------------------------------------------

    async def room(self, creator: Requester = ALICE, *, joined: Sequence[Requester] = (), **wish: Any) -> str:
        """A new room, public unless it is said otherwise, that these have joined."""
        room_id = (await self.rooms.create(creator, CreateRoom(**{"preset": "public_chat", **wish}))).room_id
        for requester in joined:
            await self.memberships.join(requester, room_id)
        return room_id

    async def say(self, requester: Requester, room_id: str, body: str = "hi", txn_id: str | None = None) -> str:
        content = {"msgtype": "m.text", "body": body}
        return (await self.creation.create(requester, room_id, "m.room.message", content, txn_id=txn_id)).event_id

    async def set(
        self, requester: Requester, room_id: str, event_type: str, content: dict[str, Any], state_key: str = ""
    ) -> str:
        return (await self.creation.create(requester, room_id, event_type, content, state_key=state_key)).event_id


# Time goes on where a cluster is started anew: two of the same events at the same time would be one.
_clocks = (count(start) for start in count(1_700_000_000_000, 1_000_000))


class Cluster:
    """The writer, in its main process, and workers that hear from it."""

    def __init__(self, db: Database, workers: int) -> None:
        self.db = db
        clock = next(_clocks)
        self.now = lambda: next(clock)
        self.main = RoomProcess(db, self.write, self.now, is_main=True)
        self.workers = [RoomProcess(db, self.write, self.now, is_main=False) for _ in range(workers)]
        self.requests: list[Request] = []
        self.announced: list[Planned] = []
        self.persister: Persister | None = None

    async def write(self, request: Request) -> Outcome:
        assert self.persister is not None
        self.requests.append(request)
        return await self.persister.persist(request)

    def changed(self, event_ids: Collection[str], _redacted: Mapping[str, str]) -> None:
        for process in (self.main, *self.workers):
            process.events.forget(event_ids)

    async def receive(self, received: Received) -> Receipt:
        assert self.persister is not None
        return await self.persister.receive(received)

    def announce(self, position: int, planned: Sequence[Planned]) -> None:
        self.announced += planned
        rows = rows_of(planned)
        for process in (self.main, *self.workers):
            process.hear(position, rows)


async def start(db: Database, workers: int = 0) -> Cluster:
    """A cluster on a database, which may have been another one's before."""
    cluster = Cluster(db, workers)
    main = cluster.main
    position = await db.read("where we were", _where_we_were)
    for process in (main, *cluster.workers):
        process.position = position
    ends = RoomEnds(ExtremitiesStore(db), AwaitedStore(db), main.events, LruCache("ends", 100))
    stores = Stores(ends, main.state, StateStore(db), main.events, EventTxnsStore(db), MembershipsStore(db))
    recent: LruCache[Any, Any] = LruCache("recent", 1000)
    cluster.persister = Persister(
        db,
        stores,
        Counter(position),
        GroupIds(StateStore(db)),
        SERVER,
        cluster.announce,
        cluster.now,
        recent,
        OutlierWriter(db, cluster.now),
        cluster.changed,
    )
    return cluster


class Counter:
    """Hands out positions."""

    def __init__(self, last: int) -> None:
        self.last = last

    def next(self) -> int:
        self.last += 1
        return self.last


def _where_we_were(txn: Transaction) -> int:
    txn.execute("SELECT coalesce(max(stream_ordering), 0) FROM events")
    position: int = txn.one()[0]
    return position


async def check_invariants(cluster: Cluster, db: Database) -> None:
    """What must be true of the database whatever happened, and of each process's memory once it has caught up."""
    for room_id in await db.read("rooms", _room_ids):
        for process in (cluster.main, *cluster.workers):
            await check_memory(db, room_id, process)


class Memory(Protocol):
    """What a process remembers of rooms."""

    @property
    def heads(self) -> RoomHeads: ...
    @property
    def state(self) -> StateReader: ...
    @property
    def members(self) -> RoomMembers: ...


async def check_memory(db: Database, room_id: str, memory: Memory, server: str = SERVER) -> None:
    """What a process that has caught up knows of a room is what the tables say, and they do not contradict each
    other."""
    head = await ExtremitiesStore(db).head(room_id)
    assert head is not None, room_id
    current = await CurrentStateStore(db).ids(room_id)
    assert (await StateStore(db).ids([head.state_group]))[head.state_group] == current
    joined = await db.read("tables", _check_derived, room_id, current, server)
    known = await memory.heads.get(room_id)
    assert known is not None
    assert known.extremities == {e: extremity.depth for e, extremity in head.extremities.items()}
    assert known.state_ordering == head.state_ordering
    assert await memory.state.current_ids(room_id, StateFilter.keys(current)) == current
    members = await memory.members.get(room_id)
    assert (set(members.local), members.count) == (
        {user_id for user_id in joined if _is_of(user_id, server)},
        len(joined),
    )
    assert head.residents == len(members.local)


def _is_of(user_id: str, server: str) -> bool:
    return user_id.endswith(f":{server}")


def _room_ids(txn: Transaction) -> list[str]:
    txn.execute("SELECT room_id FROM rooms JOIN room_heads USING (room_id)")
    return [room_id for (room_id,) in txn.rows()]


def _check_derived(txn: Transaction, room_id: str, current: dict[StateKey, str], server: str) -> set[str]:
    """The tables that are made of the room's present state say the same; the users who are in the room."""

    def rows(sql: str) -> list[Any]:
        txn.execute(sql, [room_id] * sql.count("%s"))
        return txn.rows()

    members = rows(
        "SELECT state_key, membership, event_id FROM current_state WHERE room_id = %s AND type='m.room.member'"
    )
    memberships = [membership for _user, membership, _event in members]
    counted = (memberships.count("join"), memberships.count("invite"))
    assert rows("SELECT joined_members, invited_members FROM room_stats WHERE room_id = %s") == [counted], room_id
    local = rows("SELECT user_id, membership, event_id FROM local_memberships WHERE room_id = %s")
    ours = {member for member in members if _is_of(member[0], server)}
    assert ours <= set(local), room_id
    # Whose membership was overruled by others, so that the room has none of theirs, has left.
    assert {membership for user_id, membership, event_id in set(local) - ours} <= {"leave"}, room_id
    assert len({user_id for user_id, *_ in local}) == len(local)
    latest = rows(
        "SELECT DISTINCT ON (type, state_key) type, state_key, event_id FROM current_state_deltas WHERE room_id = %s "
        "ORDER BY type, state_key, stream_ordering DESC"
    )
    dated = {(t, k): event_id for t, k, event_id in latest if event_id is not None}
    # Where the server has entered a room, what it found there is as old as the entry.
    entered = "SELECT stream_ordering FROM current_state_deltas WHERE room_id = %s AND event_id = prev_event_id"
    found = rows(
        f"SELECT type, state_key, event_id FROM current_state WHERE room_id = %s AND stream_ordering IN ({entered})"
    )
    assert {(t, k): event_id for t, k, event_id in found} | dated == current
    return {user_id for user_id, membership, _event in members if membership == "join"}


def announced_rows(cluster: Cluster) -> list[tuple[int, Row]]:
    """The rows of all that was announced, without what only those who hear of it at once are told."""
    rows: list[tuple[int, Row]] = []
    for position, row in rows_of(cluster.announced):
        is_event = isinstance(row, EventRow)
        rows.append((position, replace(row, unread=None, thread_id="main", is_regular=False) if is_event else row))
    return rows
