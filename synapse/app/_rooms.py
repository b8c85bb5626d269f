"""The room services of a process that write: events, memberships, rooms, aliases, the room directory.

A part of the composition root (`hs.rooms`). What it stands on, it names in `Foundation`. In the main process it holds
the one writer of events; in workers, the way to it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from synapse.app._accounts import Accounts
    from synapse.app._conduct import Conduct
    from synapse.app._doors import Doors
    from synapse.app._federation import Federation
    from synapse.app._queries import Queries
    from synapse.app._remote import Remote
    from synapse.app._replication import MainReplication, WorkerReplication
    from synapse.app._sessions import Sessions
    from synapse.handlers.aliases import Aliases
    from synapse.handlers.auto_join import AutoJoin
    from synapse.handlers.deactivation import Departures
    from synapse.handlers.directory_rules import DirectoryRules
    from synapse.handlers.entry import Entry
    from synapse.handlers.event_creation import EventCreation, Signer
    from synapse.handlers.membership import Memberships
    from synapse.handlers.new_rooms import NewRooms
    from synapse.handlers.policy_server import PolicyServers
    from synapse.handlers.public_rooms import PublicRooms
    from synapse.handlers.redaction import Redactions
    from synapse.handlers.room_creation import RoomCreation
    from synapse.handlers.room_profiles import RoomProfiles
    from synapse.handlers.room_succession import RoomSuccession
    from synapse.handlers.room_upgrade import RoomUpgrade
    from synapse.handlers.third_party_invites import ThirdPartyInvites
    from synapse.http.ratelimit import RateLimits
    from synapse.push.bulk import BulkPush, RoomMembers
    from synapse.state.heads import RoomHeads
    from synapse.state.store import StateReader
    from synapse.storage.aliases import AliasesStore
    from synapse.storage.event_txns import EventTxnsStore
    from synapse.storage.events import EventsStore
    from synapse.storage.extremities import ExtremitiesStore
    from synapse.storage.invitees import InviteesStore
    from synapse.storage.memberships import MembershipsStore
    from synapse.storage.persist import Persister
    from synapse.storage.persist_events import Outcome, Receipt, Received, Request
    from synapse.storage.persist_plan import Planned
    from synapse.storage.rooms import RoomsStore
    from synapse.storage.state import StateStore
    from synapse.util.repeating import Repeating

    Writer = Callable[[Request], Awaitable[Outcome]]
    Receive = Callable[[Received], Awaitable[Receipt]]

MINUTE_SECONDS: Final = 60.0
HOUR_SECONDS: Final = 3600.0
KEEP_UPGRADES: Final = 600.0
"""Seconds for which the same request to upgrade a room is answered with the same new room."""
KEEP_TXNS_MS: Final = 24 * 3600 * 1000
"""How long the same transaction id means the same event."""


class Foundation(Base, Protocol):
    """What the room services stand on: the rest of the composition root."""

    @property
    def replication(self) -> MainReplication | WorkerReplication: ...

    @property
    def ratelimits(self) -> RateLimits: ...

    @property
    def accounts(self) -> Accounts: ...

    @property
    def conduct(self) -> Conduct: ...

    @property
    def doors(self) -> Doors: ...

    @property
    def sessions(self) -> Sessions: ...

    @property
    def federation(self) -> Federation: ...

    @property
    def remote(self) -> Remote: ...

    @property
    def queries(self) -> Queries: ...

    async def invalidate(self, cache: str, keys: Iterable[str]) -> None:
        """Has every process forget keys of a cache, this one before it returns."""


class Rooms:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._config = hs.config
        self._server_name = hs.config.server.server_name

    def now(self) -> int:
        """The time in milliseconds since the epoch."""
        return int(self._hs.reactor.seconds() * 1000)

    async def caught_up(self, position: int) -> None:
        """Waits until this process has heard of what was just written."""
        await self._hs.notifier.wait_until("events", position)

    # -- stores ----------------------------------------------------------------------------------------------------

    @cached_property
    def alias_store(self) -> AliasesStore:
        from synapse.storage.aliases import AliasesStore

        return AliasesStore(self._hs.database)

    @cached_property
    def room_store(self) -> RoomsStore:
        from synapse.storage.rooms import RoomsStore

        return RoomsStore(self._hs.database)

    @cached_property
    def membership_store(self) -> MembershipsStore:
        from synapse.storage.memberships import MembershipsStore

        return MembershipsStore(self._hs.database)

    @cached_property
    def invitees_store(self) -> InviteesStore:
        from synapse.storage.invitees import InviteesStore

        return InviteesStore(self._hs.database, self._config.profiles.include_profile_data_on_invite)

    @cached_property
    def state_store(self) -> StateStore:
        from synapse.storage.state import StateStore

        return StateStore(self._hs.database)

    @cached_property
    def extremities_store(self) -> ExtremitiesStore:
        from synapse.storage.extremities import ExtremitiesStore

        return ExtremitiesStore(self._hs.database)

    @cached_property
    def txn_store(self) -> EventTxnsStore:
        from synapse.storage.event_txns import EventTxnsStore

        return EventTxnsStore(self._hs.database)

    # -- what is remembered of rooms -------------------------------------------------------------------------------

    @cached_property
    def memory(self) -> RoomMemory:
        """Events, states, heads and members, kept true by the events stream."""
        from synapse.push.bulk import RoomMembers
        from synapse.state.feed import RoomFeed
        from synapse.state.heads import RoomHeads
        from synapse.state.store import StateReader
        from synapse.storage.current_state import CurrentStateStore
        from synapse.storage.events import EventsStore

        caches, db = self._hs.caches, self._hs.database
        events = EventsStore(db, caches.lru("events", 10_000))
        state = StateReader(CurrentStateStore(db), self.state_store, events, caches.lru("current_state", 1_000))
        heads = RoomHeads(self.extremities_store, caches.lru("room_heads", 5_000))
        cache = caches.cache("local_members", 1_000, shared=False)
        members = RoomMembers(self.membership_store, self._server_name, cache)
        feed = RoomFeed(heads, state, events, members)
        self._hs.notifier.subscribe("events", lambda _, rows: feed.learn(rows), lambda _: feed.forget_all())
        return RoomMemory(events, state, heads, members)

    @property
    def events(self) -> EventsStore:
        """Events by id."""
        return self.memory.events

    @property
    def state(self) -> StateReader:
        """The state of rooms, now and then."""
        return self.memory.state

    # -- writing ---------------------------------------------------------------------------------------------------

    @cached_property
    def persister(self) -> Persister:
        """The one writer of events, in the main process, once the streams are started."""
        from synapse.metrics import table
        from synapse.replication.event_rows import rows_of
        from synapse.replication.invalidation import REDACTED, MainInvalidator
        from synapse.replication.writing import MainStreams
        from synapse.storage.awaited import AwaitedStore
        from synapse.storage.persist import Persister, Stores
        from synapse.storage.persist_outliers import OutlierWriter
        from synapse.storage.persist_room import RoomEnds
        from synapse.storage.persist_state import GroupIds

        streams, caches, memory = self._hs.replication.streams, self._hs.caches, self.memory
        if not isinstance(streams, MainStreams):
            raise RuntimeError("only the main process writes events")

        tell = MainInvalidator(streams.memory("caches")).tell

        def changed(event_ids: Collection[str], redacted: Mapping[str, str]) -> None:
            memory.events.forget(event_ids)
            tell("events", *event_ids)
            tell(REDACTED, *((room_id, event_id) for event_id, room_id in redacted.items()))

        def announce(position: int, planned: Sequence[Planned]) -> None:
            streams.events_written(position, rows_of(planned))

        awaited, room_ends = AwaitedStore(self._hs.database), caches.lru("room_ends", 5_000)
        ends = RoomEnds(self.extremities_store, awaited, memory.events, room_ends)
        persister = Persister(
            self._hs.database,
            Stores(ends, memory.state, self.state_store, memory.events, self.txn_store, self.membership_store),
            streams.positions.allocators["events"],
            GroupIds(self.state_store),
            self._server_name,
            announce,
            self.now,
            caches.lru("events_written", 10_000),
            OutlierWriter(self._hs.database, self.now),
            changed,
        )
        table.EVENTS_WAITING.read_from(lambda: [((), persister.waiting)])
        return persister

    @cached_property
    def writer(self) -> Writer:
        """The way to the writer: itself in the main process, where it also answers the calls of workers."""
        from synapse.handlers import event_receiver
        from synapse.handlers.event_writer import RemoteWriter, answer_calls

        if not self._hs.is_main:
            return RemoteWriter(self._hs.main)
        answer_calls(self._hs.main, self._write)
        event_receiver.answer_calls(self._hs.main, self._receive)
        return self._write

    async def _write(self, request: Request) -> Outcome:
        return await self.persister.persist(request)

    @cached_property
    def receive(self) -> Receive:
        """The way to the writer for what comes from other servers, or with their help."""
        from synapse.handlers.event_receiver import RemoteReceiver

        return self._receive if self._hs.is_main else RemoteReceiver(self._hs.main)

    async def _receive(self, received: Received) -> Receipt:
        return await self.persister.receive(received)

    # -- what users do -----------------------------------------------------------------------------------------------

    @cached_property
    def signer(self) -> Signer:
        """In whose name events are made, and with which key: the first of the file."""
        from synapse.handlers.event_creation import Signer

        return Signer(self._server_name, self._hs.federation.signing_key)

    @cached_property
    def push(self) -> BulkPush:
        from synapse.push.bulk import BulkPush

        programs = self._hs.accounts.push_rules.programs
        return BulkPush(self.memory.members, programs, self.memory.events, self._server_name)

    @cached_property
    def creation(self) -> EventCreation:
        from synapse.handlers.event_creation import EventCreation
        from synapse.handlers.event_rules import EventRules
        from synapse.handlers.room_locks import RoomLocks
        from synapse.storage.relations import RelationsStore

        memory = self.memory
        return EventCreation(
            self.signer,
            memory.heads,
            memory.state,
            memory.events,
            self.txn_store,
            self.writer,
            self.push,
            EventRules(
                self.alias_store,
                RelationsStore(self._hs.database),
                memory.events,
                self._server_name,
                lambda alias: self._hs.queries.federated_aliases.leads_to(alias),
            ),
            self.policy_servers,
            RoomLocks(),
            self._hs.caches.lru("events_sent", 2_000),
            self.caught_up,
            self.now,
            self._hs.is_main,
        )

    @cached_property
    def redactions(self) -> Redactions:
        from synapse.handlers.redaction import Redactions

        return Redactions(self.creation)

    @cached_property
    def entry(self) -> Entry:
        from synapse.handlers.entry import Entry

        return Entry(self.memory.state, self.memory.members, self.membership_store)

    @cached_property
    def third_party_invites(self) -> ThirdPartyInvites:
        from synapse.handlers.identity_server import IdentityServers
        from synapse.handlers.third_party_invites import ThirdPartyInvites

        contacts, limits = self._hs.accounts.contacts, self._hs.ratelimits
        client_location = self._config.email.invite_client_location
        identity = IdentityServers(lambda: contacts.identity_client, contacts.rules, client_location)
        memory, invitees = self.memory, self.invitees_store
        return ThirdPartyInvites(
            self.creation,
            memory.state,
            identity,
            invitees,
            limits,
            self._server_name,
            lambda: self._hs.doors.third_parties,
        )

    @cached_property
    def policy_servers(self) -> PolicyServers:
        from synapse.handlers.policy_server import PolicyServers

        witnesses = self._hs.caches.lru("policy_witnesses", 1_000)
        federation, state, store = lambda: self._hs.federation.api.for_users, self.memory.state, self.membership_store
        return PolicyServers(federation, state, store, witnesses, self._server_name, lambda: self._hs.doors.policy)

    @cached_property
    def room_profiles(self) -> RoomProfiles:
        from synapse.handlers.room_profiles import RoomProfiles

        return RoomProfiles(self.creation, self.memory.state, self.membership_store, self.invitees_store)

    @cached_property
    def memberships(self) -> Memberships:
        """In the main process, guests are also made to leave where they may not be any more."""
        from synapse.handlers.membership import Memberships

        memberships = Memberships(
            self.creation,
            self._hs.remote.memberships,
            self.memory.state,
            self.entry,
            self.third_party_invites,
            self.membership_store,
            self.invitees_store,
            self.aliases,
            self._hs.ratelimits,
            self._server_name,
            self.succession.joined,
            self._forgotten,
            self._hs.conduct.notices_rooms.check_refusal,
        )
        if self._hs.is_main:
            from synapse.handlers.guest_access import GuestDismissal

            memory = self.memory
            dismissal = GuestDismissal(memory.state, memory.members, self._hs.accounts.users, memberships)
            self._hs.notifier.subscribe("events", lambda _, rows: dismissal.learn(row for _, row in rows))
        return memberships

    async def _forgotten(self, user_id: str) -> None:
        from synapse.sync.memberships import CACHE

        await self._hs.invalidate(CACHE, [user_id])

    @cached_property
    def new_rooms(self) -> NewRooms:
        from synapse.handlers.new_rooms import NewRooms

        return NewRooms(self.signer, self.push, self.writer, self.caught_up, self.now)

    @cached_property
    def room_creation(self) -> RoomCreation:
        from synapse.handlers.room_creation import RoomCreation
        from synapse.handlers.room_plan import ENCRYPTED_PRESETS

        options = self._config.server
        return RoomCreation(
            self.new_rooms,
            self.invitees_store,
            self.third_party_invites,
            self._hs.remote.memberships,
            self._hs.ratelimits,
            self._server_name,
            options.default_room_version,
            ENCRYPTED_PRESETS[options.encryption_enabled_by_default_for_room_type],
            self.directory_rules,
        )

    @cached_property
    def succession(self) -> RoomSuccession:
        from synapse.handlers.room_succession import RoomSuccession, Ways

        accounts = self._hs.accounts
        ways = Ways(self.alias_store, self.room_store, self._server_name)
        return RoomSuccession(self.memory.state, accounts.account_data, accounts.push_rules, ways)

    @cached_property
    def room_upgrade(self) -> RoomUpgrade:
        from synapse.handlers.room_upgrade import RoomUpgrade, Stores
        from synapse.sync.breath import Breath
        from synapse.sync.shared import SharedWork

        memory = self.memory
        stores = Stores(self.room_store, self.alias_store, self.membership_store, self.invitees_store, memory.events)
        breath = Breath(self._hs.reactor)
        shared: SharedWork[str] = SharedWork(self._hs.reactor, lambda _: True, KEEP_UPGRADES)
        return RoomUpgrade(self.creation, self.new_rooms, memory.state, stores, self.succession, breath, shared)

    @cached_property
    def aliases(self) -> Aliases:
        from synapse.handlers.aliases import Aliases

        state, creation, elsewhere = self.memory.state, self.creation, self._hs.queries.federated_aliases
        return Aliases(
            self.alias_store, self.room_store, state, creation, self._server_name, elsewhere, self.directory_rules
        )

    @cached_property
    def directory_rules(self) -> DirectoryRules:
        from synapse.handlers.directory_rules import DirectoryRules

        options = self._config.room_directory
        app_services = self._hs.sessions.app_services
        return DirectoryRules(options.alias_creation_rules, options.room_list_publication_rules, app_services)

    @cached_property
    def public_rooms(self) -> PublicRooms:
        from synapse.handlers.public_rooms import PublicRooms

        options = self._config.room_directory
        return PublicRooms(
            self.room_store,
            self._server_name,
            self._hs.queries.federated_rooms,
            enabled=options.enable_room_list_search,
            without_account=options.allow_public_rooms_without_auth,
        )

    @cached_property
    def departures(self) -> Departures:
        """In the main process: takes deactivated users out of their rooms."""
        from synapse.handlers.deactivation import Departures
        from synapse.storage.deactivation import DeactivationStore

        return Departures(DeactivationStore(self._hs.database), self.membership_store, self.memberships.leave)

    @cached_property
    def auto_join(self) -> AutoJoin:
        """In the main process: brings new users into the rooms that everybody is in."""
        from synapse.handlers.auto_join import AutoJoin
        from synapse.storage.arrivals import ArrivalStore

        return AutoJoin(
            self._config.auto_joining,
            ArrivalStore(self._hs.database),
            self._hs.accounts.users,
            self.memberships,
            self.aliases,
            self.room_creation,
            self._server_name,
        )

    @cached_property
    def background(self) -> list[Repeating]:
        """What the main process does once in a while, to be started with it."""
        from synapse.util.repeating import Repeating

        if not self._hs.is_main:
            return []
        reactor, auto_join = self._hs.reactor, self.auto_join
        return [
            Repeating(reactor, HOUR_SECONDS, "Forgetting old transaction ids", self._forget_old),
            Repeating(reactor, MINUTE_SECONDS, "Taking deactivated users out of their rooms", self.departures.run),
            Repeating(reactor, MINUTE_SECONDS, "Taking new users into their rooms", auto_join.run),
        ]

    async def _forget_old(self) -> None:
        await self.txn_store.delete_before(self.now() - KEEP_TXNS_MS)


class RoomMemory(NamedTuple):
    """What a process that creates events remembers of rooms."""

    events: EventsStore
    state: StateReader
    heads: RoomHeads
    members: RoomMembers
