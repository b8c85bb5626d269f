"""How new events reach the one writer: directly in the main process, by a call to it from workers.

A call that is repeated, also to a main process that was started anew in between, does nothing twice: the writer knows
the events by their ids and transaction ids.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec

from synapse.api.room_versions import room_version
from synapse.events.event import Event
from synapse.replication.calls import Call
from synapse.storage.event_txns import TxnKey
from synapse.storage.persist_events import NewEvent, NewRoom, Outcome, Persisted, PushAction, Replaced, Request

if TYPE_CHECKING:
    from synapse.replication.calls import MainProcess


class WireEvent(msgspec.Struct, array_like=True, frozen=True):
    """A NewEvent between processes; `json` is the event as it is stored."""

    event_id: str
    json: msgspec.Raw
    txn: TxnKey | None
    push: tuple[PushAction, ...]
    thread_id: str
    replaces: Replaced | None
    redacts: str | None


class WireRequest(msgspec.Struct, array_like=True, frozen=True):
    """A Request between processes."""

    room_id: str
    room_version: str
    events: tuple[WireEvent, ...]
    state_ordering: int
    room: NewRoom | None
    may_fork: bool


class WireOutcome(msgspec.Struct, array_like=True, frozen=True):
    """An Outcome between processes."""

    events: tuple[Persisted, ...]
    position: int
    stale: bool


PERSIST: Final = Call("events.persist", WireRequest, WireOutcome)


def to_wire(request: Request) -> WireRequest:
    """The request as it is sent."""
    events = tuple(
        WireEvent(
            new.event.event_id,
            msgspec.Raw(new.event.json),
            new.txn,
            tuple(new.push),
            new.thread_id,
            new.replaces,
            new.redacts,
        )
        for new in request.events
    )
    version = request.events[0].event.room_version.identifier
    return WireRequest(request.room_id, version, events, request.state_ordering, request.room, request.may_fork)


def from_wire(wire: WireRequest) -> Request:
    """The request as it was sent."""
    version = room_version(wire.room_version)
    events = tuple(
        NewEvent(
            Event.from_json(bytes(sent.json), version, event_id=sent.event_id),
            sent.txn,
            sent.push,
            sent.thread_id,
            sent.replaces,
            sent.redacts,
        )
        for sent in wire.events
    )
    return Request(wire.room_id, events, wire.state_ordering, wire.room, wire.may_fork)


def answer_calls(main: MainProcess, write: Callable[[Request], Awaitable[Outcome]]) -> None:
    """Let workers write, through the main process that this is."""

    async def persist(wire: WireRequest) -> WireOutcome:
        return WireOutcome(*await write(from_wire(wire)))

    main.expose(PERSIST, persist)


class RemoteWriter:
    """Writes through the main process."""

    def __init__(self, main: MainProcess) -> None:
        self._main = main

    async def __call__(self, request: Request) -> Outcome:
        outcome = await self._main(PERSIST, to_wire(request))
        return Outcome(outcome.events, outcome.position, outcome.stale)
