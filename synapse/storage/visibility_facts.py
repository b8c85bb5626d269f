"""The facts that history visibility is decided by: which visibility a room had when, and what held at an event.

`history` is cheap and answers for most rooms: one that was always `shared` hides nothing from its members. Only where
a stricter visibility was in force is the state at each event looked at, by state group; many events share one. The
rules are in `synapse.events.visibility`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class VisibilityChange(NamedTuple):
    """From position `stream` on the room's m.room.history_visibility had this content (None: it was removed)."""

    room_id: str
    stream: int
    content: dict[str, Any] | None


class GroupFacts(NamedTuple):
    """What a state group says: content of the visibility event, and the user's membership; None where it has none."""

    visibility: dict[str, Any] | None
    membership: str | None


class VisibilityFactStore:
    """Reads the facts of visibility, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def history(self, room_ids: Sequence[str]) -> list[VisibilityChange]:
        """All changes of these rooms' visibility that are known, oldest first. One statement."""
        return await self._db.read("visibility.history", _history, list(room_ids)) if room_ids else []

    async def at_groups(self, groups: Sequence[int], user_id: str) -> dict[int, GroupFacts]:
        """What these state groups say. One statement."""
        return await self._db.read("visibility.at_groups", _at_groups, list(groups), user_id) if groups else {}

    async def groups_before(self, groups: Sequence[int]) -> dict[int, int]:
        """For each group that came of a state event, the group before that event. One statement."""
        return await self._db.read("visibility.groups_before", _groups_before, list(groups)) if groups else {}


def _history(txn: Transaction, room_ids: list[str]) -> list[VisibilityChange]:
    txn.planned(
        """
        SELECT d.room_id, d.stream_ordering, e.json
        FROM current_state_deltas d LEFT JOIN events e ON e.event_id = d.event_id
        WHERE d.room_id = ANY(%s) AND d.type = 'm.room.history_visibility' AND d.state_key = ''
        ORDER BY d.stream_ordering
        """,
        (room_ids,),
    )
    return [VisibilityChange(room_id, stream, _content(json)) for room_id, stream, json in txn.rows()]


def _content(json: str | None) -> dict[str, Any] | None:
    # A redaction leaves the visibility as it is (room versions, "Redactions"), so it need not be looked at.
    return None if json is None else orjson.loads(json)["content"]


def _at_groups(txn: Transaction, groups: list[int], user_id: str) -> dict[int, GroupFacts]:
    # From each group down its bases to one that holds everything; the entry nearest to the group counts.
    txn.planned(
        """
        WITH RECURSIVE chain (root, id, base_group, level) AS (
            SELECT id, id, base_group, 0 FROM state_groups WHERE id = ANY(%s)
          UNION ALL
            SELECT c.root, g.id, g.base_group, c.level + 1 FROM chain c JOIN state_groups g ON g.id = c.base_group
        )
        SELECT DISTINCT ON (c.root, s.type) c.root, s.type, e.json
        FROM chain c JOIN state_group_entries s ON s.state_group = c.id
         AND (s.type, s.state_key) IN (('m.room.history_visibility', ''), ('m.room.member', %s))
        LEFT JOIN events e ON e.event_id = s.event_id
        ORDER BY c.root, s.type, c.level
        """,
        (groups, user_id),
    )
    facts = dict.fromkeys(groups, GroupFacts(None, None))
    for root, event_type, json in txn.rows():
        content = _content(json)
        if event_type == "m.room.member":
            facts[root] = facts[root]._replace(membership=content.get("membership") if content else None)
        else:
            facts[root] = facts[root]._replace(visibility=content)
    return facts


def _groups_before(txn: Transaction, groups: list[int]) -> dict[int, int]:
    txn.execute("SELECT id, prev_group FROM state_groups WHERE id = ANY(%s) AND prev_group IS NOT NULL", (groups,))
    return dict(txn.rows())
