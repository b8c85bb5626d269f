"""Unread counts: how many events of a room, and of each thread, a user has yet to see.

`push_actions` holds an event that notifies or counts for a local user until that user has read it: the writer of
events adds rows, `mark_read` takes away what a receipt (or an own message, which says as much) covers. What is left
is counted. The table therefore stays as small as what people have not read, and a count reads nothing else.

Client-server API, "Receiving notifications" and "Marking notifications as read".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

MAIN = "main"
"""The timeline of a room outside its threads."""


class Unread(NamedTuple):
    """Counts of one thread of one room."""

    room_id: str
    thread_id: str
    notifications: int
    highlights: int
    last: int  # position of the last event that counts


class UnreadStore:
    """Counts what is unread, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def counts(self, user_id: str, after: Mapping[str, int], until: int) -> list[Unread]:
        """By room and thread, where there is anything to count after the room's position. One statement."""
        return await self._db.read("unread.counts", _counts, user_id, after, until) if after else []


def _counts(txn: Transaction, user_id: str, after: Mapping[str, int], until: int) -> list[Unread]:
    txn.planned(
        """
        SELECT p.room_id, p.thread_id, COUNT(*) FILTER (WHERE p.notify), COUNT(*) FILTER (WHERE p.highlight),
            MAX(p.stream_ordering)
        FROM unnest(%s::text[], %s::bigint[]) AS w (room_id, after)
        JOIN push_actions p ON p.user_id = %s AND p.room_id = w.room_id
          AND p.stream_ordering > w.after AND p.stream_ordering <= %s
        GROUP BY p.room_id, p.thread_id
        """,
        (list(after), list(after.values()), user_id, until),
    )
    return [Unread._make(row) for row in txn.rows()]


def mark_read(txn: Transaction, user_id: str, room_id: str, thread_id: str, until: int) -> None:
    """Takes away what the user has read: up to and including `until`; of all threads if `thread_id` is ""."""
    txn.execute(
        """
        DELETE FROM push_actions
        WHERE user_id = %s AND room_id = %s AND stream_ordering <= %s AND (%s = '' OR thread_id = %s)
        """,
        (user_id, room_id, until, thread_id, thread_id),
    )
