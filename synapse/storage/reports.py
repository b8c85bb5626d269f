"""What users have reported: events, rooms, other users. Kept until an administrator deletes it.

The three kinds have a table each and are read alike: newest or oldest first, from an offset, with what the server
knows of the thing that was reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of report: its table `r`, what is shown of it by name, and what it can be filtered by."""

    table: str
    shown: dict[str, str]
    filters: dict[str, str]
    joined: str = ""


_ROOM: Final = "LEFT JOIN room_stats s ON s.room_id = r.room_id"
_OF_ROOM: Final = {"room_id": "r.room_id", "name": "s.name", "canonical_alias": "s.canonical_alias"}
_BY_USER: Final = {"id": "r.id", "received_ts": "r.received_ts", "user_id": "r.user_id", "reason": "r.reason"}

EVENTS: Final = Kind(
    "event_reports",
    {**_BY_USER, **_OF_ROOM, "event_id": "r.event_id", "sender": "e.sender", "score": "r.score"},
    {"user_id": "r.user_id", "room_id": "r.room_id", "event_sender_user_id": "COALESCE(e.sender, '')"},
    f"LEFT JOIN events e ON e.event_id = r.event_id {_ROOM}",
)
ROOMS: Final = Kind("room_reports", {**_BY_USER, **_OF_ROOM}, {"user_id": "r.user_id", "room_id": "r.room_id"}, _ROOM)
USERS: Final = Kind(
    "user_reports",
    {**_BY_USER, "target_user_id": "r.target_user_id"},
    {"user_id": "r.user_id", "target_user_id": "r.target_user_id"},
)

Report = dict[str, Any]
"""A report as it is shown."""


class Selection(NamedTuple):
    """Which reports are wanted: those whose columns contain these texts, from an offset on."""

    contains: dict[str, str]
    newest_first: bool
    offset: int
    limit: int


class ReportsStore:
    """Reads and writes reports, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, kind: Kind, **columns: Any) -> None:
        """Keeps a report."""
        await self._db.write("reports.add", _add, kind, columns)

    async def page(self, kind: Kind, selection: Selection) -> tuple[int, list[Report]]:
        """How many reports of that kind the filters let through, and those that are selected."""
        return await self._db.read("reports.page", _page, kind, selection)

    async def get(self, kind: Kind, report_id: int) -> Report | None:
        """One report."""
        return await self._db.read("reports.get", _get, kind, report_id)

    async def delete(self, kind: Kind, report_id: int) -> bool:
        """False where there is no such report."""
        return await self._db.write("reports.delete", _delete, kind, report_id)


def _add(txn: Transaction, kind: Kind, columns: dict[str, Any]) -> None:
    names, marks = ", ".join(columns), ", ".join(["%s"] * len(columns))
    txn.execute(f"INSERT INTO {kind.table} ({names}) VALUES ({marks})", list(columns.values()))


def _page(txn: Transaction, kind: Kind, selection: Selection) -> tuple[int, list[Report]]:
    conditions = [f"strpos({kind.filters[name]}, %s) > 0" for name in selection.contains] or ["true"]
    texts, order = list(selection.contains.values()), "DESC" if selection.newest_first else "ASC"
    source = f"FROM {kind.table} r {kind.joined} WHERE {' AND '.join(conditions)}"
    txn.execute(
        f"""
        SELECT (SELECT count(*) {source}), page.* FROM (SELECT 1) one LEFT JOIN (
            SELECT {", ".join(kind.shown.values())} {source}
            ORDER BY r.received_ts {order}, r.id {order} LIMIT %s OFFSET %s
        ) page ON true
        """,
        [*texts, *texts, selection.limit, selection.offset],
    )
    rows = txn.rows()
    reports = [dict(zip(kind.shown, row[1:], strict=True)) for row in rows if row[1] is not None]
    return rows[0][0], reports


def _get(txn: Transaction, kind: Kind, report_id: int) -> Report | None:
    columns = ", ".join(kind.shown.values())
    txn.execute(f"SELECT {columns} FROM {kind.table} r {kind.joined} WHERE r.id = %s", (report_id,))
    row = txn.one_or_none()
    return None if row is None else dict(zip(kind.shown, row, strict=True))


def _delete(txn: Transaction, kind: Kind, report_id: int) -> bool:
    txn.execute(f"DELETE FROM {kind.table} WHERE id = %s", (report_id,))
    return txn.affected > 0
