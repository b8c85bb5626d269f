"""What transactions to other servers are made of: events as they are sent, and where their rooms stood.

Read by the process that sends; statements do not grow in number with events, rooms or servers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from synapse.storage.presence import PresenceState
from synapse.storage.receipts import Receipt

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class SentEvent(NamedTuple):
    """An event as it is sent. `redacted_in` is the version of its room where it has been redacted."""

    stream_ordering: int
    event_id: str
    json: bytes
    redacted_in: str | None = None


class FederationEventsStore:
    """Reads. One statement each."""

    def __init__(self, db: Database, server_name: str) -> None:
        self._db = db
        self._server_name = server_name

    async def hosts_at(self, room_ids: Collection[str], position: int) -> dict[str, dict[str, int]]:
        """The servers of each of the rooms, with how many joined members they had at a position of the stream."""
        return await self._db.read("federation_events.hosts_at", _hosts_at, list(room_ids), position)

    async def events(self, positions: Collection[int]) -> list[SentEvent]:
        """Those of the events that are (still) there."""
        return await self._db.read("federation_events.events", _events, list(positions))

    async def receipts(self, after: int, until: int, limit: int) -> list[tuple[int, Receipt]]:
        """Public receipts of this server's users at `after` < position ≤ `until`, in order, so many at most."""
        return await self._db.read("federation_events.receipts", _receipts, self._server_name, after, until, limit)

    async def presence(self, after: int, until: int, limit: int) -> list[tuple[int, PresenceState]]:
        """The presence of this server's users that was set at `after` < position ≤ `until`, in order."""
        return await self._db.read("federation_events.presence", _presence, self._server_name, after, until, limit)

    async def present_in(self, room_ids: Collection[str]) -> dict[str, list[PresenceState]]:
        """The presence of this server's joined members of rooms, of those who are not offline."""
        return await self._db.read("federation_events.present_in", _present_in, self._server_name, list(room_ids))


def _hosts_at(txn: Transaction, room_ids: list[str], position: int) -> dict[str, dict[str, int]]:
    # The present members, with what was changed after the position undone.
    txn.execute(
        """
        WITH changed AS (
            SELECT DISTINCT ON (room_id, state_key) room_id, state_key, prev_event_id FROM current_state_deltas
            WHERE room_id = ANY(%(rooms)s) AND stream_ordering > %(position)s AND type = 'm.room.member'
            ORDER BY room_id, state_key, stream_ordering
        )
        SELECT room_id, substr(user_id, strpos(user_id, ':') + 1), count(*) FROM (
            SELECT c.room_id, c.state_key AS user_id FROM current_state c
            WHERE c.room_id = ANY(%(rooms)s) AND c.type = 'm.room.member' AND c.membership = 'join'
                AND NOT EXISTS (SELECT FROM changed d WHERE (d.room_id, d.state_key) = (c.room_id, c.state_key))
            UNION ALL
            SELECT changed.room_id, changed.state_key FROM changed
            JOIN memberships m ON m.event_id = changed.prev_event_id AND m.membership = 'join'
        ) AS joined GROUP BY 1, 2
        """,
        {"rooms": room_ids, "position": position},
    )
    found: dict[str, dict[str, int]] = {room_id: {} for room_id in room_ids}
    for room_id, server, count in txn.rows():
        found[room_id][server] = count
    return found


def _events(txn: Transaction, positions: list[int]) -> list[SentEvent]:
    txn.execute(
        """
        SELECT e.stream_ordering, e.event_id, e.json, CASE WHEN e.redacted_by IS NOT NULL THEN r.room_version END
        FROM events e LEFT JOIN rooms r ON e.redacted_by IS NOT NULL AND r.room_id = e.room_id
        WHERE e.stream_ordering = ANY(%s)
        """,
        (positions,),
    )
    return [SentEvent(position, event_id, json.encode(), version) for position, event_id, json, version in txn.rows()]


_IS_OURS = "substr({0}, strpos({0}, ':') + 1) = %s"


def _receipts(txn: Transaction, server_name: str, after: int, until: int, limit: int) -> list[tuple[int, Receipt]]:
    txn.execute(
        f"""
        SELECT r.stream_id, r.room_id, r.receipt_type, r.user_id, r.thread_id, r.event_id, r.data
        FROM receipts r
        WHERE {_IS_OURS.format("r.user_id")} AND r.stream_id > %s AND r.stream_id <= %s AND r.receipt_type = 'm.read'
        ORDER BY r.stream_id LIMIT %s
        """,
        (server_name, after, until, limit),
    )
    return [(position, Receipt(*rest)) for position, *rest in txn.rows()]


def _presence(
    txn: Transaction, server_name: str, after: int, until: int, limit: int
) -> list[tuple[int, PresenceState]]:
    txn.execute(
        f"""
        SELECT p.stream_id, p.user_id, p.state, p.status_msg, p.last_active_ts, p.currently_active FROM presence p
        WHERE {_IS_OURS.format("p.user_id")} AND p.stream_id > %s AND p.stream_id <= %s ORDER BY p.stream_id LIMIT %s
        """,
        (server_name, after, until, limit),
    )
    return [(position, PresenceState(*rest)) for position, *rest in txn.rows()]


def _present_in(txn: Transaction, server_name: str, room_ids: list[str]) -> dict[str, list[PresenceState]]:
    txn.execute(
        f"""
        SELECT l.room_id, p.user_id, p.state, p.status_msg, p.last_active_ts, p.currently_active
        FROM local_memberships l JOIN presence p USING (user_id)
        WHERE l.room_id = ANY(%s) AND l.membership = 'join' AND p.state <> 'offline'
            AND {_IS_OURS.format("p.user_id")}
        """,
        (room_ids, server_name),
    )
    found: dict[str, list[PresenceState]] = {}
    for room_id, *rest in txn.rows():
        found.setdefault(room_id, []).append(PresenceState(*rest))
    return found
