"""The services by which servers tell each other what is not events: devices and keys, messages between devices.

A part of the composition root (`hs.edus`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.app._queries import Queries
    from synapse.federation.outboxes.device_lists import DeviceListOutbox
    from synapse.federation.outboxes.to_device import ToDeviceOutbox
    from synapse.storage.device_lists_outbox import DeviceListOutboxStore
    from synapse.storage.to_device_outbox import ToDeviceOutboxStore
    from synapse.util.repeating import Repeating

HOUR_SECONDS: Final = 3600.0
KEEP_OUTGOING: Final = 20_000
"""EDUs with messages between devices that wait for a server which does not answer."""


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def queries(self) -> Queries: ...


class Edus:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._clock = hs.reactor

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
        server_name = hs.config.server.server_name
        rooms_of, hosts = hs.rooms_of_users.each, hs.queries.hosts
        store = self.device_list_outbox_store
        return DeviceListOutbox(store, rooms_of, hosts, hs.notifier, self._clock, server_name, with_names=False)

    # -- in the background -----------------------------------------------------------------------------------------

    @cached_property
    def background(self) -> list[Repeating]:
        """What the main process does once in a while, to be started with it."""
        from synapse.util.repeating import Repeating

        if not self._hs.is_main:
            return []
        return [Repeating(self._clock, HOUR_SECONDS, "Forgetting what other servers' devices did", self._forget_old)]

    async def _forget_old(self) -> None:
        from synapse.metrics import table

        table.TO_DEVICE_DROPPED.inc(await self.to_device_outbox_store.trim(KEEP_OUTGOING))
