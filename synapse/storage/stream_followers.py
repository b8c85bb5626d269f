"""How far a follower of the events stream has come, so that a restart goes on where it stopped: the table
`stream_followers`. What is followed, and for what, is the business of the stores that call this in their transactions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.storage.database import Transaction


def follower_position(txn: Transaction, follower: str) -> int:
    """The position up to which the follower has taken everything in; 0 where it has not begun."""
    txn.execute("SELECT position FROM stream_followers WHERE follower = %s AND stream = 'events'", (follower,))
    row = txn.one_or_none()
    return 0 if row is None else int(row[0])


def keep_follower_position(txn: Transaction, follower: str, position: int) -> None:
    """Keep it with what this transaction writes. A position never goes back."""
    txn.later(
        """
        INSERT INTO stream_followers (follower, stream, position) VALUES (%s, 'events', %s)
        ON CONFLICT (follower, stream) DO UPDATE
        SET position = GREATEST(stream_followers.position, EXCLUDED.position)
        """,
        (follower, position),
    )
