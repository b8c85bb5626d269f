"""What rooms are now: reading `current_state`. It is written together with the events that change it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse.state.filters import ALL, StateFilter, StateKey
from synapse.storage.events import COLUMNS, StoredEvent, from_row

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class CurrentStateStore:
    """Reads the present state of rooms, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def ids(self, room_id: str, wanted: StateFilter = ALL) -> dict[StateKey, str]:
        """The state as event ids."""
        return await self._db.read("current_state.ids", _ids, room_id, wanted)

    async def events(self, room_id: str, wanted: StateFilter = ALL) -> list[StoredEvent]:
        """The state as events."""
        return await self._db.read("current_state.events", _events, room_id, wanted)


def _ids(txn: Transaction, room_id: str, wanted: StateFilter) -> dict[StateKey, str]:
    condition, params = wanted.sql("c")
    txn.execute(
        f"SELECT c.type, c.state_key, c.event_id FROM current_state c WHERE c.room_id = %s AND {condition}",
        [room_id, *params],
    )
    return {(event_type, state_key): event_id for event_type, state_key, event_id in txn.rows()}


def _events(txn: Transaction, room_id: str, wanted: StateFilter) -> list[StoredEvent]:
    condition, params = wanted.sql("c")
    txn.execute(
        f"""
        SELECT {COLUMNS} FROM current_state c JOIN events e USING (event_id) JOIN rooms r ON r.room_id = c.room_id
        WHERE c.room_id = %s AND {condition}
        """,
        [room_id, *params],
    )
    return [from_row(row) for row in txn.rows()]
