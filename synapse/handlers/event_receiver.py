"""How received events reach the one writer: directly in the main process, by a call to it from workers.

A call that is repeated does nothing twice: the writer knows the events by their ids.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from synapse.api.room_versions import RoomVersion, room_version
from synapse.events.event import Event
from synapse.replication.calls import Call
from synapse.storage.persist_events import Fate, Kind, Outlier, PushAction, Receipt, Received, ReceivedEvent

if TYPE_CHECKING:
    from synapse.replication.calls import MainProcess

OUTLIERS_A_CALL: Final = 500
"""Outliers that are sent at once, so that no message between processes grows with a room."""


class WireReceivedEvent(msgspec.Struct, array_like=True, frozen=True):
    """A ReceivedEvent between processes; `json` is the event as it is stored, a state (type, state key, event id)."""

    event_id: str
    json: msgspec.Raw
    rejected: str | None
    soft_failed: str | None
    state_before: tuple[tuple[str, str, str], ...] | None
    push: tuple[PushAction, ...]
    thread_id: str
    redacts: str | None
    relay: bool | None
    stripped: tuple[dict[str, Any], ...]


class WireOutlier(msgspec.Struct, array_like=True, frozen=True):
    """An Outlier between processes."""

    event_id: str
    json: msgspec.Raw
    rejected: str | None


class WireReceived(msgspec.Struct, array_like=True, frozen=True):
    """A Received between processes."""

    room_id: str
    room_version: str
    events: tuple[WireReceivedEvent, ...]
    outliers: tuple[WireOutlier, ...]
    kind: Kind


class WireReceipt(msgspec.Struct, array_like=True, frozen=True):
    """A Receipt between processes."""

    fates: tuple[tuple[Fate, str], ...]
    position: int


RECEIVE: Final = Call("events.receive", WireReceived, WireReceipt)


def to_wire(received: Received) -> WireReceived:
    """The events as they are sent."""
    return WireReceived(
        received.room_id,
        received.version.identifier,
        tuple(map(_event_to_wire, received.events)),
        tuple(WireOutlier(o.event.event_id, msgspec.Raw(o.event.json), o.rejected) for o in received.outliers),
        received.kind,
    )


def _event_to_wire(each: ReceivedEvent) -> WireReceivedEvent:
    state = None if each.state_before is None else tuple((*key, i) for key, i in each.state_before.items())
    return WireReceivedEvent(
        each.event.event_id,
        msgspec.Raw(each.event.json),
        each.rejected,
        each.soft_failed,
        state,
        tuple(each.push),
        each.thread_id,
        each.redacts,
        each.relay,
        tuple(dict(event) for event in each.stripped),
    )


def from_wire(wire: WireReceived) -> Received:
    """The events as they were sent."""
    version = room_version(wire.room_version)
    return Received(
        wire.room_id,
        version,
        tuple(_event_from_wire(sent, version) for sent in wire.events),
        tuple(Outlier(_event(sent, version), sent.rejected) for sent in wire.outliers),
        wire.kind,
    )


def _event_from_wire(sent: WireReceivedEvent, version: RoomVersion) -> ReceivedEvent:
    state = None if sent.state_before is None else {(kind, key): i for kind, key, i in sent.state_before}
    return ReceivedEvent(
        _event(sent, version),
        sent.rejected,
        sent.soft_failed,
        state,
        sent.push,
        sent.thread_id,
        sent.redacts,
        sent.relay,
        sent.stripped,
    )


def _event(sent: WireReceivedEvent | WireOutlier, version: RoomVersion) -> Event:
    return Event.from_json(bytes(sent.json), version, event_id=sent.event_id)


def answer_calls(main: MainProcess, receive: Callable[[Received], Awaitable[Receipt]]) -> None:
    """Let workers hand over what they receive, through the main process that this is."""

    async def answer(wire: WireReceived) -> WireReceipt:
        return WireReceipt(*await receive(from_wire(wire)))

    main.expose(RECEIVE, answer)


class RemoteReceiver:
    """Hands over to the main process."""

    def __init__(self, main: MainProcess) -> None:
        self._main = main

    async def __call__(self, received: Received) -> Receipt:
        outliers = received.outliers
        while len(outliers) > OUTLIERS_A_CALL:
            await self._call(received._replace(events=(), outliers=outliers[:OUTLIERS_A_CALL]))
            outliers = outliers[OUTLIERS_A_CALL:]
        return await self._call(received._replace(outliers=outliers))

    async def _call(self, received: Received) -> Receipt:
        receipt = await self._main(RECEIVE, to_wire(received))
        return Receipt(receipt.fates, receipt.position)
