"""The services by which servers tell each other what is not events: devices and keys, messages between devices.

A part of the composition root (`hs.edus`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.app._accounts import Accounts
    from synapse.app._encryption import Encryption
    from synapse.app._federation import Federation
    from synapse.app._queries import Queries
    from synapse.app._reading import Reading
    from synapse.federation.outboxes.device_lists import DeviceListOutbox
    from synapse.federation.outboxes.to_device import ToDeviceOutbox
    from synapse.federation.receiving.edus import EduRegistry
    from synapse.handlers.edus.asking import TheirKeys
    from synapse.handlers.edus.device_lists import DeviceListKeeper
    from synapse.handlers.edus.given_keys import GivenKeys
    from synapse.handlers.edus.presence import FarPresenceKeeper
    from synapse.handlers.edus.resync import Resync
    from synapse.handlers.edus.shares import DeviceShares
    from synapse.handlers.edus.speakers import Speakers
    from synapse.handlers.positions import StreamWriter
    from synapse.storage.device_lists_outbox import DeviceListOutboxStore
    from synapse.storage.remote_devices import RemoteDeviceStore
    from synapse.storage.to_device_outbox import ToDeviceOutboxStore
    from synapse.util.repeating import Repeating

HOUR_SECONDS: Final = 3600.0
KEEP_OUTGOING: Final = 20_000
"""EDUs with messages between devices that wait for a server which does not answer."""

KEEP_PRESENCE_MS: Final = 7 * 24 * 3600 * 1000
"""For how long users of other servers are remembered who are offline."""
LOOKED_AT: Final = 2_000
"""Of what servers know of users, so much is looked at each time, whether it is needed still."""


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def encryption(self) -> Encryption: ...

    @property
    def reading(self) -> Reading: ...

    @property
    def queries(self) -> Queries: ...

    @property
    def federation(self) -> Federation: ...

    def stream_writer(self, name: str) -> StreamWriter: ...


class Edus:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._clock = hs.reactor
        self._server_name = hs.config.server.server_name
        self._looked_at: tuple[str, str] | None = None

    # -- outgoing: for who sends -----------------------------------------------------------------------------------

    @cached_property
    def to_device_outbox_store(self) -> ToDeviceOutboxStore:
        from synapse.storage.to_device_outbox import ToDeviceOutboxStore

        return ToDeviceOutboxStore(self._hs.database)

    @cached_property
    def to_device_outbox(self) -> ToDeviceOutbox:
        from synapse.federation.outboxes.to_device import ToDeviceOutbox

        return ToDeviceOutbox(self.to_device_outbox_store, self._hs.notifier)

    @cached_property
    def device_list_outbox_store(self) -> DeviceListOutboxStore:
        from synapse.storage.device_lists_outbox import DeviceListOutboxStore

        return DeviceListOutboxStore(self._hs.database)

    @cached_property
    def device_list_outbox(self) -> DeviceListOutbox:
        from synapse.federation.outboxes.device_lists import DeviceListOutbox

        hs = self._hs
        rooms_of, hosts = hs.rooms_of_users.each, hs.queries.hosts
        store, with_names = self.device_list_outbox_store, hs.federation.lookups.device_names
        return DeviceListOutbox(
            store, rooms_of, hosts, hs.notifier, self._clock, self._server_name, with_names=with_names
        )

    # -- incoming --------------------------------------------------------------------------------------------------

    @cached_property
    def speakers(self) -> Speakers:
        from synapse.handlers.edus.speakers import Speakers

        hs = self._hs
        return Speakers(hs.queries.door, hs.queries.hosts, hs.rooms_of_users.each, self._server_name)

    def register(self, registry: EduRegistry) -> None:
        """Takes what comes of these types, in any process; the main process keeps what is kept of it."""
        from synapse.api.constants import EduTypes
        from synapse.handlers.edus.device_lists import FarDeviceLists
        from synapse.handlers.edus.presence import FarPresence
        from synapse.handlers.edus.receipts import FarReceipts
        from synapse.handlers.edus.to_device import FarToDevice
        from synapse.handlers.edus.typing import FarTyping

        hs, speakers = self._hs, self.speakers
        lists = FarDeviceLists(speakers, hs.encryption.cross_signing_store, hs.main)
        presence = FarPresence(speakers, hs.main, self._clock, enabled=hs.config.use_presence)
        receipts = FarReceipts(speakers, hs.reading.receipt_store, hs.stream_writer("receipts"), hs.main)
        if hs.is_main:
            self._keep()
        registry.on(EduTypes.TYPING, FarTyping(speakers, hs.main).receive)
        registry.on(EduTypes.RECEIPT, receipts.receive)
        registry.on(EduTypes.PRESENCE, presence.receive)
        registry.on(EduTypes.DIRECT_TO_DEVICE, FarToDevice(hs.main, self._server_name).receive)
        registry.on(EduTypes.DEVICE_LIST_UPDATE, lists.receive)
        registry.on(EduTypes.SIGNING_KEY_UPDATE, lists.receive_signing_keys)

    # -- devices and keys of other servers' users ------------------------------------------------------------------

    @cached_property
    def remote_device_store(self) -> RemoteDeviceStore:
        from synapse.storage.remote_devices import RemoteDeviceStore

        return RemoteDeviceStore(self._hs.database)

    @cached_property
    def device_shares(self) -> DeviceShares:
        """In the main process."""
        from synapse.handlers.edus.shares import DeviceShares

        counted = self._hs.caches.lru("device_shares", 10_000)
        return DeviceShares(self.remote_device_store, counted, self._clock)

    @cached_property
    def resync(self) -> Resync:
        """In the main process."""
        from synapse.handlers.edus.resync import Resync

        hs = self._hs
        stream, api, standing = hs.stream_writer("device_lists"), hs.federation.api, hs.federation.destinations
        store, shares, speakers = self.remote_device_store, self.device_shares, self.speakers
        resync = Resync(store, shares, stream, api, speakers, standing.ready, self._clock)
        standing.on_change(resync.heard)
        return resync

    @cached_property
    def device_list_keeper(self) -> DeviceListKeeper:
        """In the main process."""
        from synapse.handlers.edus.device_lists import DeviceListKeeper

        hs, store, shares = self._hs, self.remote_device_store, self.device_shares
        stream, resync, speakers = hs.stream_writer("device_lists"), self.resync, self.speakers
        keeper = DeviceListKeeper(store, shares, stream, resync, speakers, hs.main, self._clock, self._server_name)
        hs.notifier.subscribe("events", lambda _, rows: keeper.learn(row for _, row in rows))
        return keeper

    @cached_property
    def their_keys(self) -> TheirKeys:
        from synapse.handlers.edus.asking import TheirKeys

        hs = self._hs
        if hs.is_main:
            self._keep()
        return TheirKeys(
            self.remote_device_store,
            lambda: hs.federation.api.for_users,
            lambda: self.speakers,
            hs.main,
            self._clock,
        )

    @cached_property
    def given_keys(self) -> GivenKeys:
        from synapse.handlers.edus.given_keys import GivenKeys
        from synapse.storage.published_keys import PublishedKeyStore

        hs = self._hs
        notifier = hs.notifier
        notifier.subscribe("device_lists", lambda position, rows: None)  # whoever knows its position has to follow it
        return GivenKeys(
            PublishedKeyStore(hs.database),
            self.device_list_outbox_store,
            hs.encryption.key_query,
            hs.accounts.keys,
            hs.rooms_of_users.each,
            hs.queries.hosts,
            lambda: notifier.position("device_lists"),
            self._server_name,
            with_names=hs.federation.lookups.device_names,
        )

    # -- presence --------------------------------------------------------------------------------------------------

    @cached_property
    def presence_keeper(self) -> FarPresenceKeeper:
        """In the main process, where presence is not switched off."""
        from synapse.handlers.edus.presence import FarPresenceKeeper

        hs = self._hs
        stream, store = hs.stream_writer("presence"), hs.reading.presence_store
        return FarPresenceKeeper(store, stream, hs.main, self._clock, self._server_name)

    async def begin(self) -> None:
        """In the main process, once the streams are started: take up what the last one left."""
        if self._hs.is_main and self._hs.config.use_presence:
            await self.presence_keeper.start()

    def _keep(self) -> None:
        self.device_list_keeper  # noqa: B018  # it answers calls of other processes
        if self._hs.config.use_presence:
            self.presence_keeper  # noqa: B018

    # -- in the background -----------------------------------------------------------------------------------------

    @cached_property
    def background(self) -> list[Repeating]:
        """What the main process does once in a while, to be started with it."""
        from synapse.util.repeating import Repeating

        if not self._hs.is_main:
            return []
        from synapse.handlers.edus.presence import SWEEP_SECONDS
        from synapse.handlers.edus.resync import RETRY_SECONDS

        forget = Repeating(self._clock, HOUR_SECONDS, "Forgetting what waits for other servers", self._forget_old)
        retry = Repeating(self._clock, RETRY_SECONDS, "Fetching devices of other servers' users", self.resync.retry)
        if not self._hs.config.use_presence:
            return [forget, retry]
        sweep = self.presence_keeper.sweep
        return [forget, retry, Repeating(self._clock, SWEEP_SECONDS, "Ageing the presence of others", sweep)]

    async def _forget_old(self) -> None:
        from synapse.metrics import table

        table.TO_DEVICE_DROPPED.inc(await self.to_device_outbox_store.trim(KEEP_OUTGOING))
        before = int(self._clock.seconds() * 1000) - KEEP_PRESENCE_MS
        await self._hs.reading.presence_store.forget_others(before, self._server_name)
        self._looked_at = await self.device_list_outbox_store.forget_strangers(self._looked_at or ("", ""), LOOKED_AT)
