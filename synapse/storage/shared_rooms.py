"""Reading who shares rooms with whom: for presence, for the device lists that encryption needs, and for those who ask.

Questions of the form "which of these users…" over the members of rooms, each in one statement. Nothing is kept about
pairs of users: the present members of rooms say it all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

from synapse.storage.past_state import Delta

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Turn(NamedTuple):
    """A change of a membership, None where there was or is none; and whether the room is encrypted."""

    user_id: str
    before: str | None
    after: str | None
    encrypted: bool


class ChangedLists(NamedTuple):
    """Users whose devices or keys changed: in the eyes of all who share a room with them, and in those of one user."""

    public: set[str]
    private: set[str]


class SharedRoomStore:
    """Reads the members that users have in common, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def sharing(self, user_ids: Collection[str], room_ids: Collection[str]) -> set[str]:
        """Those of the users who are joined to at least one of the rooms."""
        return await self._ask("shared_rooms.sharing", _SHARING, user_ids, room_ids)

    async def sharing_which(self, user_ids: Collection[str], room_ids: Collection[str]) -> dict[str, bool]:
        """Those of the users who are joined to at least one of the rooms, and whether to one that is encrypted."""
        if not user_ids or not room_ids:
            return {}
        return await self._db.read("shared_rooms.sharing_which", _sharing_which, list(user_ids), list(room_ids))

    async def members_of(self, room_ids: Collection[str]) -> list[tuple[str, bool]]:
        """Everybody joined to at least one of these rooms, and whether to one that is encrypted."""
        return await self._db.read("shared_rooms.members_of", _members_of, list(room_ids)) if room_ids else []

    async def members_of_encrypted(self, room_ids: Collection[str]) -> set[str]:
        """Everybody joined to at least one of these rooms that is encrypted."""
        if not room_ids:
            return set()
        return await self._db.read("shared_rooms.members_of_encrypted", _users, _MEMBERS_OF_ENCRYPTED, list(room_ids))

    async def turns(self, deltas: Iterable[Delta]) -> list[Turn]:
        """What these changed membership entries changed."""
        changes = [(delta.room_id, delta.state_key, delta.prev_event_id, delta.event_id) for delta in deltas]
        return await self._db.read("shared_rooms.turns", _turns, changes) if changes else []

    async def changed_device_lists(self, viewer: str, after: int, until: int) -> ChangedLists:
        """Whose devices or keys changed at positions `after` < p ≤ `until`."""
        return await self._db.read("shared_rooms.changed_device_lists", _changed_lists, viewer, after, until)

    async def mutual(self, user_id: str, other_id: str, after: str, limit: int) -> tuple[int, list[str]]:
        """How many rooms a local user and another one are both joined to, and the first of them after a room id."""
        return await self._db.read("shared_rooms.mutual", _mutual, user_id, other_id, after, limit)

    async def _ask(self, name: str, sql: str, user_ids: Collection[str], room_ids: Collection[str]) -> set[str]:
        if not user_ids or not room_ids:
            return set()
        return await self._db.read(name, _users, sql, list(user_ids), list(room_ids))


_SHARING = """
    SELECT u.user_id FROM unnest(%s::text[]) AS u (user_id) WHERE EXISTS (
        SELECT FROM current_state cs WHERE cs.type = 'm.room.member' AND cs.state_key = u.user_id
        AND cs.membership = 'join' AND cs.room_id = ANY(%s)
    )
"""
_MEMBERS_OF_ENCRYPTED = """
    SELECT DISTINCT cs.state_key FROM current_state cs JOIN room_stats s USING (room_id)
    WHERE cs.room_id = ANY(%s) AND cs.type = 'm.room.member' AND cs.membership = 'join' AND s.encryption IS NOT NULL
"""


def _sharing_which(txn: Transaction, user_ids: list[str], room_ids: list[str]) -> dict[str, bool]:
    txn.execute(
        """
        SELECT cs.state_key, BOOL_OR(s.encryption IS NOT NULL)
        FROM current_state cs LEFT JOIN room_stats s USING (room_id)
        WHERE cs.room_id = ANY(%s) AND cs.type = 'm.room.member' AND cs.state_key = ANY(%s) AND cs.membership = 'join'
        GROUP BY cs.state_key
        """,
        (room_ids, user_ids),
    )
    return dict(txn.rows())


def _members_of(txn: Transaction, room_ids: list[str]) -> list[tuple[str, bool]]:
    txn.execute(
        """
        SELECT cs.state_key, BOOL_OR(s.encryption IS NOT NULL)
        FROM current_state cs LEFT JOIN room_stats s USING (room_id)
        WHERE cs.room_id = ANY(%s) AND cs.type = 'm.room.member' AND cs.membership = 'join' GROUP BY cs.state_key
        """,
        (room_ids,),
    )
    return [(user_id, encrypted) for user_id, encrypted in txn.rows()]


def _changed_lists(txn: Transaction, viewer: str, after: int, until: int) -> ChangedLists:
    txn.execute(
        """
        SELECT DISTINCT user_id, false FROM device_lists_stream WHERE stream_id > %(after)s AND stream_id <= %(until)s
        UNION
        SELECT unnest(changed_user_ids), true FROM device_lists_private
        WHERE user_id = %(viewer)s AND stream_id > %(after)s AND stream_id <= %(until)s
        """,
        {"viewer": viewer, "after": after, "until": until},
    )
    changed = ChangedLists(set(), set())
    for user_id, private in txn.rows():
        (changed.private if private else changed.public).add(user_id)
    return changed


def _users(txn: Transaction, sql: str, *params: object) -> set[str]:
    txn.execute(sql, params)
    return {user_id for (user_id,) in txn.rows()}


def _turns(txn: Transaction, changes: list[tuple[str, str, str | None, str | None]]) -> list[Turn]:
    txn.execute(
        """
        SELECT c.user_id, before.membership, after.membership, s.encryption IS NOT NULL
        FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS c (room_id, user_id, prev_event_id, event_id)
        LEFT JOIN room_stats s ON s.room_id = c.room_id
        LEFT JOIN memberships before ON before.event_id = c.prev_event_id
        LEFT JOIN memberships after ON after.event_id = c.event_id
        """,
        tuple(map(list, zip(*changes, strict=True))),
    )
    return [Turn._make(row) for row in txn.rows()]


def _mutual(txn: Transaction, user_id: str, other_id: str, after: str, limit: int) -> tuple[int, list[str]]:
    txn.execute(
        """
        WITH shared AS (
            SELECT cs.room_id FROM local_memberships l
            JOIN current_state cs ON (cs.room_id, cs.type, cs.state_key) = (l.room_id, 'm.room.member', %s)
            WHERE l.user_id = %s AND l.membership = 'join' AND cs.membership = 'join'
        )
        SELECT (SELECT count(*) FROM shared),
            ARRAY(SELECT room_id FROM shared WHERE room_id > %s ORDER BY room_id LIMIT %s)
        """,
        (other_id, user_id, after, limit),
    )
    total, room_ids = txn.one()
    return total, room_ids
