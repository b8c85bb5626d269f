"""What a room's events refer to and is not here: predecessors, and events that a redaction has come for before them.

Both are written with the events that refer to them (`synapse.storage.persist_rows`), and go when what they name comes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

MAX_KEPT: Final = 1_000
"""Of one room, that are kept in memory."""

_DEEPEST: Final = 2**63 - 1


class Redactor(NamedTuple):
    """A redaction that waits for its target. `server_name` is whose events it may redact, None: everybody's."""

    event_id: str
    server_name: str | None


class Awaited(NamedTuple):
    """What a room lacks: its backward extremities, and the targets of redactions. `is_all`: there is no more."""

    missing: frozenset[str] = frozenset()
    redactors: Mapping[str, tuple[Redactor, ...]] = {}
    is_all: bool = True


class AwaitedStore:
    """Reads what is awaited, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_room(self, room_id: str) -> Awaited:
        """What a room lacks, as far as it is few."""
        return await self._db.read("awaited.of_room", _of_room, room_id, None, MAX_KEPT)

    async def of_event(self, room_id: str, event_id: str) -> Awaited:
        """Whether this event is lacked."""
        return await self._db.read("awaited.of_room", _of_room, room_id, event_id, MAX_KEPT)

    async def backwards(self, room_id: str, depth: int, limit: int, highest: int | None = None) -> dict[str, int]:
        """The backward extremities that events of this depth or deeper, as far as `highest`, refer to, the nearest
        first, each with that depth. For whoever looks back from there and fetches what is missing."""
        return await self._db.read("awaited.backwards", _backwards, room_id, depth, limit, highest)


def _of_room(txn: Transaction, room_id: str, event_id: str | None, limit: int) -> Awaited:
    condition = "" if event_id is None else "AND event_id = %(event)s"
    txn.execute(
        f"""
        (SELECT event_id, NULL, NULL FROM backward_extremities WHERE room_id = %(room)s {condition} LIMIT %(limit)s)
        UNION ALL (
            SELECT event_id, redaction_id, server_name FROM pending_redactions
            WHERE room_id = %(room)s {condition} ORDER BY stream_ordering LIMIT %(limit)s
        )
        """,
        {"room": room_id, "event": event_id, "limit": limit},
    )
    missing: list[str] = []
    redactors: dict[str, tuple[Redactor, ...]] = {}
    count = 0
    for target, redaction_id, server_name in txn.rows():
        if redaction_id is None:
            missing.append(target)
        else:
            redactors[target] = (*redactors.get(target, ()), Redactor(redaction_id, server_name))
            count += 1
    return Awaited(frozenset(missing), redactors, len(missing) < limit and count < limit)


def _backwards(txn: Transaction, room_id: str, depth: int, limit: int, highest: int | None) -> dict[str, int]:
    txn.execute(
        """
        SELECT event_id, COALESCE(depth, 0) FROM backward_extremities
        WHERE room_id = %s AND COALESCE(depth, 0) BETWEEN %s AND %s ORDER BY 2 LIMIT %s
        """,
        (room_id, depth, _DEEPEST if highest is None else highest, limit),
    )
    return dict(txn.rows())
