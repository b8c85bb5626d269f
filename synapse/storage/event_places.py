"""Where events stand, without the events: for the thousands that another server names as a room's state."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class EventPlace(NamedTuple):
    """`state_key` is None of events that are no state."""

    room_id: str
    type: str
    state_key: str | None
    is_rejected: bool


class EventPlacesStore:
    """Reads places, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def places(self, event_ids: Collection[str]) -> dict[str, EventPlace]:
        """The places of those of the events that this server has, outliers included. One statement."""
        return await self._db.read("events.places", _places, list(event_ids)) if event_ids else {}


def _places(txn: Transaction, event_ids: list[str]) -> dict[str, EventPlace]:
    txn.execute(
        "SELECT event_id, room_id, type, state_key, rejected IS NOT NULL FROM events WHERE event_id = ANY(%s)",
        (event_ids,),
    )
    return {event_id: EventPlace(*place) for event_id, *place in txn.rows()}
