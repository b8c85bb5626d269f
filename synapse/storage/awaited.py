"""What a room's events refer to and is not here: predecessors, and events that a redaction has come for before them.

Both are written with the events that refer to them (`synapse.storage.persist_rows`), and go when what they name comes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
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


class Gap(NamedTuple):
    """Where an event is lacked: the depth of the deepest event that refers to it, and the position just before the
    first, which no other event has."""

    depth: int
    position: int

    def joined(self, other: Gap) -> Gap:
        """The same of all who refer to the event."""
        return Gap(max(self.depth, other.depth), min(self.position, other.position))


class Stretch(NamedTuple):
    """A part of a room's history: the events before which something may be missing that belongs into it. They are as
    deep as `lowest` at least and as `highest` at most (None: any), and `after` < the gap's position ≤ `until`. The end
    that is `backwards` or not is the nearest to whoever asks."""

    lowest: int = 0
    highest: int | None = None
    after: int = -_DEEPEST
    until: int = _DEEPEST
    backwards: bool = True


class Awaited(NamedTuple):
    """What a room lacks: its backward extremities, and the targets of redactions. `is_all`: there is no more."""

    missing: Mapping[str, Gap] = {}
    redactors: Mapping[str, tuple[Redactor, ...]] = {}
    is_all: bool = True


class AwaitedStore:
    """Reads what is awaited, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_room(self, room_id: str) -> Awaited:
        """What a room lacks, as far as it is few."""
        return await self._db.read("awaited.of_room", _of_room, room_id, None, MAX_KEPT)

    async def of_events(self, room_id: str, event_ids: Collection[str]) -> Awaited:
        """Which of these events are lacked."""
        return await self._db.read("awaited.of_room", _of_room, room_id, list(event_ids), MAX_KEPT)

    async def missing(self, room_id: str, stretch: Stretch, limit: int) -> dict[str, int]:
        """The backward extremities that events of the stretch refer to, the nearest first, each with the depth of who
        refers to it. For whoever fetches what is missing."""
        return await self._db.read("awaited.missing", _missing, room_id, stretch, limit)


def _of_room(txn: Transaction, room_id: str, event_ids: list[str] | None, limit: int) -> Awaited:
    condition = "" if event_ids is None else "AND event_id = ANY(%(events)s)"
    txn.execute(
        f"""
        (
            SELECT event_id, NULL, NULL, COALESCE(depth, 0), COALESCE(stream_ordering, 0) FROM backward_extremities
            WHERE room_id = %(room)s {condition} LIMIT %(limit)s
        )
        UNION ALL (
            SELECT event_id, redaction_id, server_name, 0, 0 FROM pending_redactions
            WHERE room_id = %(room)s {condition} ORDER BY stream_ordering LIMIT %(limit)s
        )
        """,
        {"room": room_id, "events": event_ids, "limit": limit},
    )
    missing: dict[str, Gap] = {}
    redactors: dict[str, tuple[Redactor, ...]] = {}
    count = 0
    for target, redaction_id, server_name, depth, position in txn.rows():
        if redaction_id is None:
            missing[target] = Gap(depth, position)
        else:
            redactors[target] = (*redactors.get(target, ()), Redactor(redaction_id, server_name))
            count += 1
    return Awaited(missing, redactors, len(missing) < limit and count < limit)


def _missing(txn: Transaction, room_id: str, stretch: Stretch, limit: int) -> dict[str, int]:
    highest = _DEEPEST if stretch.highest is None else stretch.highest
    txn.execute(
        f"""
        SELECT event_id, COALESCE(depth, 0) FROM backward_extremities
        WHERE room_id = %s AND COALESCE(depth, 0) BETWEEN %s AND %s AND COALESCE(stream_ordering, 0) > %s
            AND COALESCE(stream_ordering, 0) <= %s
        ORDER BY 2 {"DESC" if stretch.backwards else ""}, 1 LIMIT %s
        """,
        (room_id, stretch.lowest, highest, stretch.after, stretch.until, limit),
    )
    return dict(txn.rows())
