"""The facts by which history visibility is decided for another server as a whole: what state groups say of the room's
visibility, and of the memberships of the server's users. What a group says never changes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import orjson

from synapse.api.constants import EventTypes
from synapse.events.visibility import visibility_of

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

_CHAIN = """
    WITH RECURSIVE chain (root, id, base_group, step) AS (
        SELECT id, id, base_group, 0 FROM state_groups WHERE id = ANY(%s)
        UNION ALL
        SELECT c.root, g.id, g.base_group, c.step + 1 FROM chain c JOIN state_groups g ON g.id = c.base_group
    )
"""


class ServedVisibilityStore:
    """Reads state groups, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def visibilities(self, groups: Collection[int]) -> dict[int, str]:
        """The history visibility that each of the groups has. One statement."""
        return await self._db.read("served_visibility.visibilities", _visibilities, list(groups)) if groups else {}

    async def memberships(self, groups: Collection[int], server_name: str) -> dict[int, frozenset[str]]:
        """The memberships that users of the server have in each of the groups. Two statements: what groups have in
        common is read once."""
        if not groups:
            return {}
        return await self._db.read("served_visibility.memberships", _memberships, list(groups), server_name)

    async def groups_before(self, groups: Collection[int]) -> dict[int, int]:
        """For each group that came of a state event, the group before that event. One statement."""
        return await self._db.read("served_visibility.groups_before", _groups_before, list(groups)) if groups else {}


def _visibilities(txn: Transaction, groups: list[int]) -> dict[int, str]:
    txn.execute(
        _CHAIN
        + """
        SELECT DISTINCT ON (c.root) c.root, e.json
        FROM chain c JOIN state_group_entries s ON s.state_group = c.id
         AND (s.type, s.state_key) = ('m.room.history_visibility', '')
        LEFT JOIN events e ON e.event_id = s.event_id
        ORDER BY c.root, c.step
        """,
        (groups,),
    )
    # A redaction leaves the visibility as it is (room versions, "Redactions"), so it need not be looked at.
    said = {root: None if json is None else orjson.loads(json)["content"] for root, json in txn.rows()}
    return {group: visibility_of(said.get(group)) for group in groups}


def _memberships(txn: Transaction, groups: list[int], server_name: str) -> dict[int, frozenset[str]]:
    txn.execute(_CHAIN + "SELECT root, id FROM chain ORDER BY root, step DESC", (groups,))
    chains: dict[int, list[int]] = {group: [] for group in groups}
    for root, link in txn.rows():
        chains[root].append(link)
    txn.execute(
        """
        SELECT s.state_group, s.state_key, m.membership, CASE WHEN m.membership IS NULL THEN e.json END
        FROM state_group_entries s LEFT JOIN memberships m ON m.event_id = s.event_id
        LEFT JOIN events e ON e.event_id = s.event_id
        WHERE s.state_group = ANY(%s) AND s.type = %s AND substr(s.state_key, strpos(s.state_key, ':') + 1) = %s
        """,
        (list({link for links in chains.values() for link in links}), EventTypes.MEMBER, server_name),
    )
    entries: dict[int, dict[str, str | None]] = {}
    for group, user_id, membership, json in txn.rows():
        entries.setdefault(group, {})[user_id] = _membership_in(json) if membership is None else membership
    return {root: _resolved(links, entries) for root, links in chains.items()}


def _resolved(links: list[int], entries: dict[int, dict[str, str | None]]) -> frozenset[str]:
    members: dict[str, str | None] = {}
    for link in links:
        members.update(entries.get(link, ()))
    return frozenset(membership for membership in members.values() if membership is not None)


def _membership_in(json: str | None) -> str | None:
    """What an event says that was never the room's present state; None where a group has no entry any more."""
    membership = None if json is None else orjson.loads(json)["content"].get("membership")
    return membership if isinstance(membership, str) else None


def _groups_before(txn: Transaction, groups: list[int]) -> dict[int, int]:
    txn.execute("SELECT id, prev_group FROM state_groups WHERE id = ANY(%s) AND prev_group IS NOT NULL", (groups,))
    return dict(txn.rows())
