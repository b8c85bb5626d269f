"""The services that send to other servers, and what is known of their queues.

A part of the composition root (`hs.sending`). What it stands on, it names in `Foundation`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from synapse.app._foundation import Base

if TYPE_CHECKING:
    from synapse.app._edus import Edus
    from synapse.app._federation import Federation
    from synapse.app._queries import Queries
    from synapse.federation.outboxes import Outbox
    from synapse.federation.sending.audience import Outgoing
    from synapse.federation.sending.dispatch import Dispatch
    from synapse.federation.sending.loading import Loading
    from synapse.federation.sending.news import News
    from synapse.federation.sending.sender import FederationSending
    from synapse.federation.sending.takeover import TakeOver
    from synapse.handlers.federation_admin import FederationAdmin
    from synapse.storage.federation_events import FederationEventsStore
    from synapse.storage.federation_queue import FederationQueueStore, Fenced


class Foundation(Base, Protocol):
    """What it stands on: the rest of the composition root."""

    @property
    def federation(self) -> Federation: ...

    @property
    def queries(self) -> Queries: ...

    @property
    def edus(self) -> Edus: ...

    def acknowledge_events(self, position: int) -> None:
        """Tells the main process up to where the events stream is queued for other servers."""


class Sending:
    """One lazily built attribute per service."""

    def __init__(self, hs: Foundation) -> None:
        self._hs = hs
        self._server_name = hs.config.server.server_name

    @cached_property
    def queues(self) -> FederationQueueStore:
        """What other servers are still to be sent."""
        from synapse.storage.federation_queue import FederationQueueStore

        return FederationQueueStore(self._hs.database, self._server_name)

    @cached_property
    def events(self) -> FederationEventsStore:
        """What it is made of."""
        from synapse.storage.federation_events import FederationEventsStore

        return FederationEventsStore(self._hs.database, self._server_name)

    @cached_property
    def admin(self) -> FederationAdmin:
        """What administrators see of other servers."""
        from synapse.handlers.federation_admin import FederationAdmin
        from synapse.storage.destinations_admin import DestinationsAdminStore

        return FederationAdmin(DestinationsAdminStore(self._hs.database), self._hs.federation.destinations)

    @cached_property
    def sending(self) -> FederationSending:
        """The duty `federation_sender`."""
        from synapse.federation.sending.sender import FederationSending

        hs, notifier = self._hs, self._hs.notifier
        sending = FederationSending(
            self.queues, self.dispatch, self._news, self._outboxes, self._take_over, notifier.position, hs.reactor
        )
        news, followed = sending.news, sending.take_over
        notifier.subscribe("events", followed.rows, followed.missed)
        notifier.subscribe("typing", news.typing.rows, news.typing.reset)
        notifier.subscribe("receipts", news.receipts.rows, news.receipts.missed)
        if hs.config.use_presence:
            notifier.subscribe("presence", news.presence.rows, news.presence.missed)
            notifier.subscribe("events", news.presence.events)
        hs.federation.destinations.on_change(self.dispatch.heard)
        return sending

    @cached_property
    def dispatch(self) -> Dispatch:
        """The queues of all servers."""
        from synapse.federation.sending.composing import Composer
        from synapse.federation.sending.dispatch import Dispatch

        hs, federation = self._hs, self._hs.federation
        composer = Composer(self._server_name, self._loading, self._skip, hs.reactor, lambda: secrets.token_hex(8))
        retries = federation.settings.long
        return Dispatch(
            composer, self._loading, self._send, federation.destinations, hs.reactor, retries, self._is_allowed
        )

    @cached_property
    def _loading(self) -> Loading:
        from synapse.federation.sending.loading import Loading

        return Loading(self.queues, self.events, self._outboxes, self._hs.reactor)

    @cached_property
    def _outboxes(self) -> dict[str, Outbox]:
        edus = self._hs.edus
        return {"to_device": edus.to_device_outbox, "device_lists": edus.device_list_outbox}

    @cached_property
    def _news(self) -> News:
        from synapse.federation.sending.news import News

        hs = self._hs
        per_second = hs.config.federating.federation_rr_transactions_per_room_per_second
        hosts, rooms_of = hs.queries.hosts, hs.rooms_of_users.each
        return News(self._server_name, self.events, hosts, rooms_of, hs.notifier, self.dispatch, hs.reactor, per_second)

    def _take_over(self, deliver: Callable[[Sequence[Outgoing]], None], fenced: Callable[[Fenced], None]) -> TakeOver:
        from synapse.federation.sending.audience import RoomAudiences
        from synapse.federation.sending.takeover import TakeOver

        hs = self._hs
        return TakeOver(
            self.queues,
            self.events,
            hs.database,
            RoomAudiences(self._server_name, self._is_allowed),
            self._loading.pdus,
            lambda: hs.notifier.position("events"),
            hs.reactor,
            deliver,
            hs.acknowledge_events,
            fenced,
        )

    def _is_allowed(self, server: str) -> bool:
        """Whether anything is sent to a server; names come from users' ids, which may be anything in old rooms."""
        from synapse.api.identifiers import is_server_name

        return is_server_name(server) and self._hs.federation.client.is_allowed(server)

    async def _skip(self, destination: str, after: int, until: int) -> None:
        await self.sending.skip(destination, after, until)

    async def _send(self, destination: str, txn_id: str, body: bytes) -> dict[str, dict[str, Any]]:
        from synapse.federation.client import Canonical

        return await self._hs.federation.api.send_transaction(destination, txn_id, Canonical(body))
