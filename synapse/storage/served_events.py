"""Reading events for other servers: as text, so that what was stored is handed on without being decoded.

What other servers are shown is decided elsewhere (`synapse.federation.serving`). Events that were rejected are told
apart here, as they are given to nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class ServedEvent(NamedTuple):
    """An event as it is stored; `json` is the federation form, canonical. `state_group` is None of outliers."""

    event_id: str
    room_id: str
    depth: int
    stream: int
    type: str
    state_key: str | None
    sender: str
    state_group: int | None
    rejected: bool
    redacted: bool
    room_version: str
    json: str


_COLUMNS: Final = (
    "e.event_id, e.room_id, e.depth, e.stream_ordering, e.type, e.state_key, e.sender, e.state_group, "
    "e.rejected IS NOT NULL, e.redacted_by IS NOT NULL, r.room_version, e.json"
)


class ServedEventsStore:
    """Reads events, in any process. One statement each, but where something else is said."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, event_id: str) -> ServedEvent | None:
        """An event, whatever is thought of it."""
        return (await self._db.read("served.many", _many, [event_id])).get(event_id)

    async def many(self, event_ids: Collection[str]) -> dict[str, ServedEvent]:
        """Those of the events that are here."""
        return await self._db.read("served.many", _many, list(event_ids)) if event_ids else {}

    async def stretch(self, room_id: str, event_ids: Collection[str], limit: int) -> list[ServedEvent]:
        """Those of the events that are in this room's history, and what lies below the deepest of them: at most `limit`
        events more. No outliers."""
        return await self._db.read("served.stretch", _stretch, room_id, list(event_ids), limit)

    async def state_ids(self, group: int) -> list[str]:
        """The state that a group names, as event ids."""
        return await self._db.read("served.state_ids", _state_ids, group)

    async def auth_chain_ids(self, event_ids: Collection[str]) -> list[str]:
        """The events that these cite, those that they cite, and so on."""
        return await self._db.read("served.chain_ids", _chain_ids, list(event_ids)) if event_ids else []


def _many(txn: Transaction, event_ids: list[str]) -> dict[str, ServedEvent]:
    txn.execute(
        f"SELECT {_COLUMNS} FROM events e JOIN rooms r USING (room_id) WHERE e.event_id = ANY(%s) ORDER BY e.depth",
        (event_ids,),
    )
    return {row[0]: ServedEvent._make(row) for row in txn.rows()}


def _stretch(txn: Transaction, room_id: str, event_ids: list[str], limit: int) -> list[ServedEvent]:
    # How deep an event says it is, is its server's word: it serves to find most of its ancestors at once, no more.
    txn.execute(
        f"""
        WITH named AS (
            SELECT event_id, depth FROM events WHERE event_id = ANY(%s) AND room_id = %s AND NOT outlier
        ), below AS (
            SELECT event_id FROM events
            WHERE room_id = %s AND NOT outlier AND depth < (SELECT max(depth) FROM named)
            ORDER BY depth DESC, stream_ordering DESC LIMIT %s
        )
        SELECT {_COLUMNS} FROM events e JOIN rooms r USING (room_id)
        WHERE e.event_id IN (SELECT event_id FROM named UNION SELECT event_id FROM below)
        """,
        (event_ids, room_id, room_id, limit),
    )
    return [ServedEvent._make(row) for row in txn.rows()]


def _state_ids(txn: Transaction, group: int) -> list[str]:
    txn.execute(
        """
        WITH RECURSIVE chain (id, base_group, step) AS (
            SELECT id, base_group, 0 FROM state_groups WHERE id = %s
            UNION ALL
            SELECT g.id, g.base_group, c.step + 1 FROM chain c JOIN state_groups g ON g.id = c.base_group
        )
        SELECT event_id FROM (
            SELECT DISTINCT ON (s.type, s.state_key) s.event_id
            FROM chain c JOIN state_group_entries s ON s.state_group = c.id ORDER BY s.type, s.state_key, c.step
        ) AS entries WHERE event_id IS NOT NULL
        """,
        (group,),
    )
    return [event_id for (event_id,) in txn.rows()]


def _chain_ids(txn: Transaction, event_ids: Sequence[str]) -> list[str]:
    # As in `synapse.storage.events`: a lateral subquery with an OFFSET has the index looked into once an event.
    txn.execute(
        """
        WITH RECURSIVE chain (event_id) AS (
            SELECT a.auth_event_id FROM unnest(%s::text[]) AS seed (event_id) JOIN event_auth a USING (event_id)
            UNION
            SELECT a.auth_event_id FROM chain c
            CROSS JOIN LATERAL (SELECT auth_event_id FROM event_auth WHERE event_id = c.event_id OFFSET 0) a
        )
        SELECT event_id FROM chain
        """,
        (list(event_ids),),
    )
    return [event_id for (event_id,) in txn.rows()]
