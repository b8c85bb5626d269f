"""Who was active within the last month, and counts: the table `monthly_active_users`.

`admit` is the one place where somebody comes in. It holds a lock on the table while it counts, so that however many
processes let people in at the same time, there are never more than the limit allows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

    from synapse.storage.database import Database, Transaction

MONTH_MS: Final = 30 * 24 * 3600 * 1000
_STALE_MS: Final = 3600 * 1000
"""How old the time of somebody's last activity may be before it is written anew."""


class Limit(NamedTuple):
    """How many users there may be (None: any number), and the addresses of those for whom there is always room."""

    users: int | None
    reserved: tuple[tuple[str, str], ...] = ()


class ActiveUsersStore:
    """Reads and writes, in any process. `now` is in milliseconds."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def admit(self, user_id: str, now: int, limit: Limit) -> bool:
        """Counts the user from now on, if there is room, or they count already; whether they do."""
        if await self._db.write("active_users.touch", _touch, user_id, now):
            return True
        return await self._db.write("active_users.admit", _admit, user_id, now, limit)

    async def has_room(self, user_id: str, now: int, limit: Limit) -> bool:
        """Whether `admit` would let the user in."""
        return await self._db.read("active_users.has_room", _has_room, user_id, now, limit)

    async def count(self, now: int) -> int:
        """How many users count."""
        return await self._db.read("active_users.count", _count, now)

    async def seen(self, user_ids: Collection[str], now: int) -> None:
        """These users are active just now; those of them who do not count are left out."""
        await self._db.write("active_users.seen", _seen, sorted(user_ids), now)

    async def forget(self, now: int, limit: Limit) -> list[str]:
        """Drops those who were not active for a month, and those who are too many: the ones who were away longest. Who
        they are."""
        return await self._db.write("active_users.forget", _forget, now, limit)


def _touch(txn: Transaction, user_id: str, now: int) -> bool:
    txn.execute(
        """
        UPDATE monthly_active_users SET last_active_ts = GREATEST(last_active_ts, %s)
        WHERE user_id = %s AND last_active_ts > %s RETURNING true
        """,
        (now, user_id, now - MONTH_MS),
    )
    return txn.one_or_none() is not None


def _admit(txn: Transaction, user_id: str, now: int, limit: Limit) -> bool:
    # First of all, before anything is read: what is seen is what was there when the lock was granted.
    txn.execute("LOCK TABLE monthly_active_users IN SHARE ROW EXCLUSIVE MODE")
    if not _has_room(txn, user_id, now, limit):
        return False
    txn.execute(
        """
        INSERT INTO monthly_active_users (user_id, last_active_ts) VALUES (%s, %s)
        ON CONFLICT (user_id) DO UPDATE SET last_active_ts = EXCLUDED.last_active_ts
        """,
        (user_id, now),
    )
    return True


def _has_room(txn: Transaction, user_id: str, now: int, limit: Limit) -> bool:
    if limit.users is None:
        return True
    txn.execute(
        """
        SELECT count(*) < %s OR bool_or(user_id = %s) OR %s IN (
            SELECT t.user_id FROM user_threepids t
            JOIN unnest(%s::text[], %s::text[]) AS r (medium, address) USING (medium, address)
        ) FROM monthly_active_users WHERE last_active_ts > %s
        """,
        (limit.users, user_id, user_id, *_columns(limit), now - MONTH_MS),
    )
    return bool(txn.one()[0])


def _count(txn: Transaction, now: int) -> int:
    txn.execute("SELECT count(*) FROM monthly_active_users WHERE last_active_ts > %s", (now - MONTH_MS,))
    return int(txn.one()[0])


def _seen(txn: Transaction, user_ids: list[str], now: int) -> None:
    txn.execute(
        "UPDATE monthly_active_users SET last_active_ts = %s WHERE user_id = ANY(%s) AND last_active_ts < %s",
        (now, user_ids, now - _STALE_MS),
    )


def _forget(txn: Transaction, now: int, limit: Limit) -> list[str]:
    txn.execute("DELETE FROM monthly_active_users WHERE last_active_ts <= %s RETURNING user_id", (now - MONTH_MS,))
    gone = [user_id for (user_id,) in txn.rows()]
    if limit.users is None:
        return gone
    txn.execute(
        """
        DELETE FROM monthly_active_users WHERE user_id IN (
            SELECT m.user_id FROM monthly_active_users m WHERE m.user_id NOT IN (
                SELECT t.user_id FROM user_threepids t
                JOIN unnest(%s::text[], %s::text[]) AS r (medium, address) USING (medium, address)
            )
            ORDER BY m.last_active_ts DESC, m.user_id
            OFFSET GREATEST(0, %s - (
                SELECT count(DISTINCT t.user_id) FROM user_threepids t
                JOIN unnest(%s::text[], %s::text[]) AS r (medium, address) USING (medium, address)
                JOIN monthly_active_users a ON a.user_id = t.user_id
            ))
        ) RETURNING user_id
        """,
        (*_columns(limit), limit.users, *_columns(limit)),
    )
    return gone + [user_id for (user_id,) in txn.rows()]


def _columns(limit: Limit) -> tuple[list[str], list[str]]:
    return [medium for medium, _ in limit.reserved], [address for _, address in limit.reserved]
