"""Writing outliers: events that are kept because others refer to them, with no state of their own.

They move nothing, so they do not wait in the writer's queue, and nobody waits for thousands of them: they are written
beside it, some hundreds in a transaction. One that is here already, as an outlier or not, stays as it is. Positions of
outliers, and of history, are negative: handed out downwards, in the one process that writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from synapse.api.constants import EventTypes
from synapse.storage.persist_derived import membership_row, received_row
from synapse.storage.persist_entering_rows import KnownRoom, write_known_rooms
from synapse.storage.persist_received_rows import ReceivedRow, write_outliers

if TYPE_CHECKING:
    from synapse.api.room_versions import RoomVersion
    from synapse.storage.database import Database, Transaction
    from synapse.storage.persist_events import Outlier

TOGETHER: Final = 500
"""Outliers that are written in one transaction."""


class BackwardPositions:
    """Hands out positions of what is not new."""

    def __init__(self) -> None:
        self.lowest: int | None = None

    def next(self) -> int:
        assert self.lowest is not None, "it is not known yet where to go on"
        self.lowest -= 1
        return self.lowest


class OutlierWriter:
    """Writes outliers, in the main process."""

    def __init__(self, db: Database, now: Callable[[], int]) -> None:
        self._db = db
        self._now = now
        self.positions = BackwardPositions()

    async def ready(self) -> None:
        """To be awaited before the first position is asked for. One statement, the first time."""
        if self.positions.lowest is None:
            lowest = await self._db.read("events.lowest", _lowest)
            if self.positions.lowest is None:
                self.positions.lowest = lowest

    async def write(self, room_id: str, version: RoomVersion, outliers: Sequence[Outlier]) -> None:
        """Write those of the events that are not here, in several transactions where they are many."""
        await self.ready()
        # In one order for all, so that two transactions with the same events do not wait for each other.
        ordered = sorted({each.event.event_id: each for each in outliers}.items())
        for start in range(0, len(ordered), TOGETHER):
            some = ordered[start : start + TOGETHER]
            rows = [self._row(outlier) for _, outlier in some]
            members = [
                membership_row(each.event, row.stream_ordering)
                for (_, each), row in zip(some, rows, strict=True)
                if row.type == EventTypes.MEMBER and row.state_key is not None and row.rejected is None
            ]
            cited = [
                (i, a) for i, each in some if each.event.is_state() for a in sorted(set(each.event.auth_event_ids))
            ]
            room = KnownRoom(room_id, version.identifier, None, self._now())
            await self._db.write_idempotent("events.outliers", _write, room, rows, members, cited)

    def _row(self, outlier: Outlier) -> ReceivedRow:
        return received_row(outlier.event, self.positions.next(), None, self._now())._replace(rejected=outlier.rejected)


def _lowest(txn: Transaction) -> int:
    txn.execute("SELECT LEAST(min(stream_ordering), 0) FROM events")
    lowest: int = txn.one()[0] or 0
    return lowest


def _write(
    txn: Transaction,
    room: KnownRoom,
    rows: Sequence[ReceivedRow],
    members: Sequence[tuple[object, ...]],
    cited: Sequence[tuple[str, str]],
) -> None:
    write_known_rooms(txn, {room.room_id: room})
    write_outliers(txn, rows)
    txn.values(_MEMBERS, members, later=True)
    txn.values(_CITED, cited, later=True)


_MEMBERS: Final = """
    INSERT INTO memberships (event_id, room_id, user_id, sender, membership, display_name, avatar_url, stream_ordering)
    VALUES %s ON CONFLICT DO NOTHING
"""
_CITED: Final = "INSERT INTO event_auth (event_id, auth_event_id) VALUES %s ON CONFLICT DO NOTHING"
