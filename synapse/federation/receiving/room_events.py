"""The events of one room that one server has sent in one go: what becomes of each, all the way from their text.

Server-server API, "Checks performed on receipt of a PDU".
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from synapse.api.errors import MatrixError
from synapse.federation.receiving.checks import id_of
from synapse.federation.receiving.faults import Later, is_passing
from synapse.metrics import table

if TYPE_CHECKING:
    import msgspec

    from synapse.api.room_versions import RoomVersion
    from synapse.events.event import Event
    from synapse.federation.receiving.checks import EventChecks
    from synapse.federation.receiving.pipeline import Pipeline

logger = logging.getLogger(__name__)

WAITS: Final = Later("The event waits for others, and is looked at later.")


def count(results: Mapping[str, str | None]) -> None:
    """Counts, for metrics, what became of events."""
    later = sum(isinstance(problem, Later) for problem in results.values())
    kept = sum(problem is None for problem in results.values())
    for outcome, number in (("kept", kept), ("later", later), ("refused", len(results) - kept - later)):
        table.FEDERATION_PDUS_RECEIVED.child(outcome).inc(number)


class Door(Protocol):
    """Lets servers in; see `synapse.handlers.federation_door`."""

    async def check_acl(self, origin: str, room_id: str) -> None:
        """Raises 403 M_FORBIDDEN for a server that the room's access list keeps out."""


class RoomEvents:
    """Some events, as text. `results` has, by event id, why an event is not kept, or None; before that is known,
    `WAITS`."""

    def __init__(self, origin: str, room_id: str, version: RoomVersion, raws: Sequence[msgspec.Raw]) -> None:
        self.origin = origin
        self.room_id = room_id
        self.version = version
        self.raws = raws
        self.ids = [id_of(raw, version) for raw in raws]
        self.results: dict[str, str | None] = {i: WAITS for i in self.ids if i is not None}

    @property
    def waiting(self) -> list[str]:
        """The ids of those that are to be looked at, or to be looked at again."""
        return [event_id for event_id, problem in self.results.items() if isinstance(problem, Later)]


class Entrance:
    """Brings them into their rooms."""

    def __init__(self, pipeline: Pipeline, checks: EventChecks, door: Door) -> None:
        self._pipeline = pipeline
        self._checks = checks
        self._door = door

    async def take(self, some: RoomEvents) -> None:
        """Fills in their results. Raises what says that this server cannot do it just now."""
        origin, room_id = some.origin, some.room_id
        try:
            await self._door.check_acl(origin, room_id)
        except MatrixError as error:
            some.results = dict.fromkeys(some.results, error.message)
            logger.info("%d events of %s for %s are dropped: %s", len(some.raws), origin, room_id, error.message)
            return
        events = []
        checked = await self._checks.check_each(some.raws, some.version, origin)
        for event_id, (event, problem) in zip(some.ids, checked, strict=True):
            if problem is not None or event is None:
                sentence = "The event is not right." if problem is None else problem.message
                logger.info("The event %s of %s is dropped: %s", event_id, origin, sentence)
                if event_id is not None:
                    is_final = event is None or not self._checks.may_pass_later(event)
                    some.results[event_id] = sentence if is_final else Later(sentence)
            else:
                events.append(event)
        if events:
            some.results.update(await self._enter(some, events))

    async def _enter(self, some: RoomEvents, events: Sequence[Event]) -> dict[str, str | None]:
        try:
            return await self._pipeline.receive(some.origin, some.room_id, some.version, events)
        except Exception as error:
            if is_passing(error):
                raise
            logger.error("Events of %s for %s could not be looked at", some.origin, some.room_id, exc_info=error)
            return dict.fromkeys((event.event_id for event in events), "This server failed to look at the event.")
