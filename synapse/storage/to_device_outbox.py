"""Messages for devices of other servers' users, from when their senders were answered to when their servers have them.

Written with the messages for devices of this server (`storage.to_device`), at the same position of the stream
`to_device`; taken away by the process that sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

    from synapse.storage.database import Database, Transaction


class Outgoing(NamedTuple):
    """An EDU m.direct_to_device for a server; `content` is JSON text, and holds the message id too."""

    destination: str
    message_id: str
    content: str


class ToDeviceOutboxStore:
    """Reads and deletes, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def destinations(self) -> set[str]:
        """The servers for which there is something."""
        return await self._db.read("to_device_outbox.destinations", _destinations)

    async def waiting(self, destinations: Collection[str], limit: int) -> list[Outgoing]:
        """The oldest ones for each of the servers, in order."""
        return await self._db.read("to_device_outbox.waiting", _waiting, list(destinations), limit)

    async def delete(self, arrived: Collection[tuple[str, str]]) -> None:
        """Servers have these: (destination, message id)."""
        if arrived:
            await self._db.write_idempotent("to_device_outbox.delete", _delete, list(arrived))

    async def trim(self, limit: int) -> int:
        """Deletes the oldest of servers for which there are more than that many. Returns how many."""
        return await self._db.write("to_device_outbox.trim", _trim, limit)


def put(txn: Transaction, outgoing: Collection[Outgoing], stream_id: int) -> None:
    """Within the transaction that stores what else the request sends."""
    txn.values(
        "INSERT INTO to_device_outbox (destination, stream_id, message_id, content) VALUES %s",
        [(each.destination, stream_id, each.message_id, each.content) for each in outgoing],
        later=True,
    )


def _destinations(txn: Transaction) -> set[str]:
    txn.execute("SELECT DISTINCT destination FROM to_device_outbox")
    return {destination for (destination,) in txn.rows()}


def _waiting(txn: Transaction, destinations: list[str], limit: int) -> list[Outgoing]:
    txn.execute(
        """
        SELECT o.destination, o.message_id, o.content FROM unnest(%s::text[]) AS d (destination)
        CROSS JOIN LATERAL (
            SELECT * FROM to_device_outbox w WHERE w.destination = d.destination
            ORDER BY w.stream_id, w.message_id LIMIT %s
        ) AS o ORDER BY o.destination, o.stream_id, o.message_id
        """,
        (destinations, limit),
    )
    return [Outgoing(*row) for row in txn.rows()]


def _delete(txn: Transaction, arrived: list[tuple[str, str]]) -> None:
    txn.execute(
        """
        DELETE FROM to_device_outbox o USING unnest(%s::text[], %s::text[]) AS a (destination, message_id)
        WHERE o.destination = a.destination AND o.message_id = a.message_id
        """,
        tuple(map(list, zip(*arrived, strict=True))),
    )


def _trim(txn: Transaction, limit: int) -> int:
    txn.execute(
        """
        DELETE FROM to_device_outbox o USING (
            SELECT destination, stream_id, message_id,
                row_number() OVER (PARTITION BY destination ORDER BY stream_id DESC, message_id DESC) AS place
            FROM to_device_outbox
        ) AS placed
        WHERE place > %s AND (o.destination, o.stream_id, o.message_id)
            = (placed.destination, placed.stream_id, placed.message_id)
        """,
        (limit,),
    )
    return txn.affected
