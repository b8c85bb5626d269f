"""What transactions are made of, read for all servers at once: their events' bytes, and what comes next for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.api.room_versions import room_version
from synapse.events.event import Event
from synapse.util.concurrency import gather
from synapse.util.together import Together

if TYPE_CHECKING:
    from synapse.federation.outboxes import Outbox, Waiting
    from synapse.storage.federation_events import FederationEventsStore, SentEvent
    from synapse.storage.federation_queue import FederationQueueStore
    from synapse.util.clock import Clock

KEPT_BYTES: Final = 32 << 20
AT_ONCE: Final = 100  # servers about which what may be much is asked


class Pdu(NamedTuple):
    """An event as it is sent."""

    event_id: str
    json: bytes


class Pdus:
    """The bytes of events by position: those that went out lately are remembered, for the other servers."""

    def __init__(self, store: FederationEventsStore, clock: Clock, kept: int = KEPT_BYTES) -> None:
        self._store = store
        self._kept = kept
        self._size = 0
        self._pdus: OrderedDict[int, Pdu] = OrderedDict()
        self._load: Together[int, None, Pdu | None] = Together(clock, self._read, lambda: None)

    def remember(self, position: int, event_id: str, json: bytes) -> None:
        """An event that will be asked for."""
        if position not in self._pdus:
            self._pdus[position] = Pdu(event_id, json)
            self._size += len(json)
        while self._size > self._kept and len(self._pdus) > 1:
            _, pdu = self._pdus.popitem(last=False)
            self._size -= len(pdu.json)

    def forget(self, event_id: str) -> None:
        """An event was redacted: it is sent as what is left of it."""
        for position, pdu in self._pdus.items():
            if pdu.event_id == event_id:
                self._size -= len(pdu.json)
                del self._pdus[position]
                return

    async def get(self, positions: Sequence[int]) -> dict[int, Pdu]:
        """Those of the events that there (still) are, in order."""
        found = {position: self._pdus.get(position) for position in positions}
        loading = [(position, self._load(position, None)) for position, pdu in found.items() if pdu is None]
        if loading:
            read = await gather(each for _, each in loading)
            found.update(dict(zip((position for position, _ in loading), read, strict=True)))
        return {position: pdu for position, pdu in found.items() if pdu is not None}

    async def _read(self, positions: Mapping[int, None]) -> dict[int, Pdu | None]:
        read = {event.stream_ordering: _pdu(event) for event in await self._store.events(positions)}
        for position, pdu in read.items():
            self.remember(position, *pdu)
        return dict(read)


def _pdu(event: SentEvent) -> Pdu:
    if event.redacted_in is None:
        return Pdu(event.event_id, event.json)
    whole = Event.from_json(event.json, room_version(event.redacted_in), event_id=event.event_id)
    return Pdu(event.event_id, whole.redacted().json)


class Loading:
    """What comes next for servers, and what they have."""

    def __init__(
        self,
        queues: FederationQueueStore,
        events: FederationEventsStore,
        outboxes: Mapping[str, Outbox],
        clock: Clock,
    ) -> None:
        self.outboxes = outboxes
        self.pdus = Pdus(events, clock)
        self.page: Together[str, tuple[int, int], list[int]] = Together(clock, queues.pages, list, AT_ONCE)
        self.missed: Together[str, int, list[tuple[str, int]]] = Together(clock, queues.missed, list)
        self.waiting = {name: _waiting(outbox, clock) for name, outbox in outboxes.items()}
        self.sent = {name: _sent(outbox, clock) for name, outbox in outboxes.items()}


def _waiting(outbox: Outbox, clock: Clock) -> Together[str, None, Sequence[Waiting]]:
    async def ask(destinations: Mapping[str, None]) -> Mapping[str, Sequence[Waiting]]:
        return await outbox.waiting(list(destinations))

    return Together(clock, ask, tuple, AT_ONCE)


def _sent(outbox: Outbox, clock: Clock) -> Together[str, Sequence[Any], None]:
    async def tell(marks: Mapping[str, Sequence[Any]]) -> Mapping[str, None]:
        await outbox.sent(marks)
        return {}

    return Together(clock, tell, lambda: None)
