"""Reading where a user stands: the rooms of a user, and how each membership came about.

`local_memberships` is the present, also for rooms that the server has left. The past is what became of the entry in
the room's state, which the resolution of a fork may have changed by no event of its own; of rooms that go on without
this server, it is the events of `memberships`. All are written with the events; this only reads them, and its answers
are cached by `synapse.sync.memberships`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class RoomMembership(NamedTuple):
    """Where a user stands in one room, and since which position."""

    room_id: str
    membership: str
    sender: str
    event_id: str
    stream: int
    forgotten: bool


class Step(NamedTuple):
    """One membership of a user that is or was the room's state: "leave", too, where there came to be none any more."""

    room_id: str
    stream: int
    membership: str


class UserRoomStore:
    """Reads users' memberships, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_user(self, user_id: str) -> list[RoomMembership]:
        """All rooms that a local user is or was in, was invited to, or has knocked at. One statement."""
        return await self._db.read("user_rooms.of_user", _of_user, user_id)

    async def steps(self, user_id: str, room_ids: Sequence[str]) -> list[Step]:
        """How the user's membership of these rooms went, oldest first; what is known of it from others' word alone is
        left out. One statement."""
        return await self._db.read("user_rooms.steps", _steps, user_id, list(room_ids)) if room_ids else []

    async def joined_members(self, room_id: str) -> list[tuple[str, str | None, str | None]]:
        """(user, display name, avatar) of everybody joined. One statement."""
        return await self._db.read("user_rooms.joined_members", _joined_members, room_id)


def _of_user(txn: Transaction, user_id: str) -> list[RoomMembership]:
    txn.planned(
        """
        SELECT room_id, membership, sender, event_id, stream_ordering, forgotten
        FROM local_memberships WHERE user_id = %s ORDER BY stream_ordering
        """,
        (user_id,),
    )
    return [RoomMembership._make(row) for row in txn.rows()]


def _steps(txn: Transaction, user_id: str, room_ids: list[str]) -> list[Step]:
    # Events that never came to be the state are no steps, if the room's state was known by then.
    txn.planned(
        """
        SELECT d.room_id, d.stream_ordering AS position, COALESCE(m.membership, 'leave')
        FROM current_state_deltas d LEFT JOIN memberships m ON m.event_id = d.event_id
        WHERE d.type = 'm.room.member' AND d.state_key = %s AND d.room_id = ANY(%s)
        UNION
        SELECT m.room_id, m.stream_ordering, m.membership FROM memberships m JOIN events e ON e.event_id = m.event_id
        WHERE m.user_id = %s AND m.room_id = ANY(%s) AND m.stream_ordering > 0 AND (e.outlier OR NOT EXISTS (
            SELECT FROM current_state_deltas d
            WHERE d.type = 'm.room.member' AND d.state_key = m.user_id AND d.room_id = m.room_id
            AND d.stream_ordering <= m.stream_ordering
        ))
        ORDER BY position
        """,
        (user_id, room_ids, user_id, room_ids),
    )
    return [Step._make(row) for row in txn.rows()]


def _joined_members(txn: Transaction, room_id: str) -> list[tuple[str, str | None, str | None]]:
    txn.execute(
        """
        SELECT cs.state_key, m.display_name, m.avatar_url FROM current_state cs LEFT JOIN memberships m USING (event_id)
        WHERE cs.room_id = %s AND cs.type = 'm.room.member' AND cs.membership = 'join'
        """,
        (room_id,),
    )
    return [(user_id, display_name, avatar_url) for user_id, display_name, avatar_url in txn.rows()]
