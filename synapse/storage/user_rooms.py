"""Reading where a user stands: the rooms of a user, and how each membership came about.

`local_memberships` is the present, also for rooms that the server has left; `memberships` is the past. Both are
written with the events; this only reads them, and its answers are cached by `synapse.sync.memberships`.
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
    """One membership event of a user that is or was the room's state."""

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
    txn.planned(
        """
        SELECT room_id, stream_ordering, membership FROM memberships
        WHERE user_id = %s AND room_id = ANY(%s) AND stream_ordering > 0 ORDER BY stream_ordering
        """,
        (user_id, room_ids),
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
