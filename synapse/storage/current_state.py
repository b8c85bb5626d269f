"""What rooms are now: reading `current_state`. It is written together with the events that change it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse.state.filters import ALL, StateFilter, StateKey
from synapse.storage.events import COLUMNS, StoredEvent, from_row

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Snapshot(NamedTuple):
    """Entries of a room's present state, as it was when `position` was its last change (0: the room is not known)."""

    events: list[StoredEvent]
    position: int


class CurrentStateStore:
    """Reads the present state of rooms, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def ids(self, room_id: str, wanted: StateFilter = ALL) -> dict[StateKey, str]:
        """The state as event ids."""
        return await self._db.read("current_state.ids", _ids, room_id, wanted)

    async def events(self, room_id: str, wanted: StateFilter = ALL) -> Snapshot:
        """The state as events."""
        return await self._db.read("current_state.events", _events, room_id, wanted)


def _ids(txn: Transaction, room_id: str, wanted: StateFilter) -> dict[StateKey, str]:
    condition, params = wanted.sql("c")
    txn.execute(
        f"SELECT c.type, c.state_key, c.event_id FROM current_state c WHERE c.room_id = %s AND {condition}",
        [room_id, *params],
    )
    return {(event_type, state_key): event_id for event_type, state_key, event_id in txn.rows()}


def _events(txn: Transaction, room_id: str, wanted: StateFilter) -> Snapshot:
    condition, params = wanted.sql("c")
    txn.execute(
        f"""
        SELECT h.state_ordering, {COLUMNS} FROM room_heads h JOIN rooms r USING (room_id)
        LEFT JOIN current_state c ON c.room_id = h.room_id AND {condition}
        LEFT JOIN events e ON e.event_id = c.event_id WHERE h.room_id = %s
        """,
        [*params, room_id],
    )
    rows = txn.rows()
    return Snapshot([from_row(row[1:]) for row in rows if row[1] is not None], rows[0][0] if rows else 0)
