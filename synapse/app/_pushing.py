"""The services of push notifications: the pushers of users, and sending to them.

A part of the composition root (`hs.pushing`).
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.app._rooms import Rooms
    from synapse.handlers.push_sending import PushSending
    from synapse.handlers.pushers import Pushers
    from synapse.http.outside import OutsideClient
    from synapse.storage.pushers import PusherStore


class Foundation(Base, Protocol):
    """What these services stand on: the rest of the composition root."""

    @property
    def rooms(self) -> Rooms: ...


class Pushing:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs

    @cached_property
    def store(self) -> PusherStore:
        from synapse.storage.pushers import PusherStore

        return PusherStore(self._hs.database)

    @cached_property
    def pushers(self) -> Pushers:
        """In the main process."""
        from synapse.handlers.pushers import Pushers

        return Pushers(self.store, self._present, self._hs.reactor)

    @cached_property
    def sending(self) -> PushSending:
        """The duty `pusher`."""
        from synapse.handlers.push_sending import PushSending

        hs = self._hs
        sending = PushSending(self.store, hs.rooms.events, self._client, self._present, hs.reactor, hs.config.push)
        hs.notifier.subscribe("events", sending.events, sending.missed)
        hs.notifier.subscribe("receipts", sending.receipts)
        return sending

    def _client(self) -> OutsideClient:
        from synapse.app._outside import to_push_gateways

        return to_push_gateways(self._hs.config, self._hs.reactor)

    def _present(self) -> int:
        return self._hs.notifier.position("events")
