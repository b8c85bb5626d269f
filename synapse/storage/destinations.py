"""Other servers that do not answer, and when they may be tried again. Times are milliseconds.

A server without a row answers, as far as anybody knows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class DestinationRow(NamedTuple):
    """Since when a server does not answer, when it was tried last, how long it is left alone, until when."""

    failing_since: int
    retry_last_ts: int
    retry_interval: int
    retry_at: int


Change = Callable[[DestinationRow | None], DestinationRow | None]


class DestinationsStore:
    """Reads and writes the table `destinations`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, destination: str) -> DestinationRow | None:
        """What is known of a server that does not answer."""
        return (await self.get_many([destination]))[destination]

    async def get_many(self, destinations: list[str]) -> dict[str, DestinationRow | None]:
        """The same for many at once; None for those that answer."""
        return await self._db.read("destinations.get", _get, destinations)

    async def change(self, destination: str, change: Change) -> bool:
        """Replaces a server's row by what `change` makes of it; whether that is another."""
        return await self._db.write_idempotent("destinations.change", _change, destination, change)

    async def failing(self, limit: int, after: str = "") -> list[tuple[str, DestinationRow]]:
        """Servers that do not answer, by name."""
        return await self._db.read("destinations.failing", _failing, limit, after)

    async def forget_before(self, before: int) -> list[str]:
        """Forgets those that nobody has tried, though it was allowed, since `before`; whom."""
        return await self._db.write_idempotent("destinations.forget", _forget, before)

    async def forget_strangers(self, before: int, most: int) -> list[str]:
        """Of those that are in no room of ours, forgets whom nobody has tried since `before`, though it was allowed,
        and the ones tried longest ago where there are more than `most`; whom."""
        return await self._db.write_idempotent("destinations.forget_strangers", _forget_strangers, before, most)


def _get(txn: Transaction, destinations: list[str]) -> dict[str, DestinationRow | None]:
    txn.execute(
        """
        SELECT destination, failing_since, retry_last_ts, retry_interval, retry_at
        FROM destinations WHERE destination = ANY(%s)
        """,
        (destinations,),
    )
    found: dict[str, DestinationRow | None] = dict.fromkeys(destinations)
    found.update({row[0]: DestinationRow(*row[1:]) for row in txn.rows()})
    return found


def _change(txn: Transaction, destination: str, change: Change) -> bool:
    before = _get(txn, [destination])[destination]
    after = change(before)
    if after == before:
        return False
    if after is None:
        txn.execute("DELETE FROM destinations WHERE destination = %s", (destination,))
        return True
    txn.execute(
        """
        INSERT INTO destinations (destination, failing_since, retry_last_ts, retry_interval, retry_at)
        VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (destination) DO UPDATE SET
            failing_since = EXCLUDED.failing_since, retry_last_ts = EXCLUDED.retry_last_ts,
            retry_interval = EXCLUDED.retry_interval, retry_at = EXCLUDED.retry_at
        """,
        (destination, *after),
    )
    return True


def _failing(txn: Transaction, limit: int, after: str) -> list[tuple[str, DestinationRow]]:
    txn.execute(
        """
        SELECT destination, failing_since, retry_last_ts, retry_interval, retry_at
        FROM destinations WHERE destination > %s ORDER BY destination LIMIT %s
        """,
        (after, limit),
    )
    return [(row[0], DestinationRow(*row[1:])) for row in txn.rows()]


def _forget(txn: Transaction, before: int) -> list[str]:
    txn.execute("DELETE FROM destinations WHERE retry_at < %s RETURNING destination", (before,))
    return [destination for (destination,) in txn.rows()]


def _forget_strangers(txn: Transaction, before: int, most: int) -> list[str]:
    txn.execute(
        """
        WITH strangers AS (
            SELECT destination, retry_at, row_number() OVER (ORDER BY retry_last_ts DESC, destination) AS place
            FROM destinations d WHERE NOT EXISTS (
                SELECT FROM current_state c WHERE c.type = 'm.room.member' AND c.membership = 'join'
                    AND substr(c.state_key, strpos(c.state_key, ':') + 1) = d.destination
            )
        )
        DELETE FROM destinations d USING strangers s
        WHERE d.destination = s.destination AND (s.retry_at < %s OR s.place > %s) RETURNING d.destination
        """,
        (before, most),
    )
    return [destination for (destination,) in txn.rows()]
