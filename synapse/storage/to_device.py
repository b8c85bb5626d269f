"""Messages from device to device, waiting for the devices of this server to sync.

A message is kept until the device has told, by syncing on, that it has it. Stream positions come from the caller, which
is the main process. One call is one position, whatever the number of devices that it reaches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.storage import to_device_outbox

if TYPE_CHECKING:
    from collections.abc import Collection

    from synapse.storage.database import Database, Transaction
    from synapse.storage.to_device_outbox import Outgoing


RECEIVED_PER_ORIGIN: Final = 20_000
"""Message ids that are kept of another server, the latest: it sends again what it has sent last."""


class Message(NamedTuple):
    """A message for one device, or all of the user's (`device_id` "*"); `json` is `{"type", "sender", "content"}`."""

    user_id: str
    device_id: str
    json: str


class Txn(NamedTuple):
    """A client's transaction: whose request it was, and its transaction id."""

    user_id: str
    device_id: str
    txn_id: str


class Device(NamedTuple):
    """A device that messages wait for."""

    user_id: str
    device_id: str


class Added(NamedTuple):
    """Whom a request has reached: devices of this server, and other servers."""

    devices: list[Device]
    servers: list[str]


class ToDeviceStore:
    """Reads messages anywhere; writes them in the main process. Devices delete what they have wherever they sync."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(
        self, sender: Txn, messages: list[Message], outgoing: list[Outgoing], stream_id: int, now: int
    ) -> Added:
        """Stores the messages for devices that exist, and those for other servers, at one position.

        What is for one device goes before what is for all of its user's. Nothing happens, and the answer is empty, if
        the transaction was seen before. Two statements, however many devices there are, and one for other servers.
        """
        return await self._db.write("to_device.add", _add, sender, messages, outgoing, stream_id, now)

    async def receive(
        self, origin: str, message_id: str, messages: list[Message], stream_id: int, now: int
    ) -> list[Device]:
        """Stores what another server has sent, for devices that exist, and returns these. Nothing happens if it has
        sent something by that message id before.
        """
        return await self._db.write("to_device.receive", _receive, origin, message_id, messages, stream_id, now)

    async def forget_received(self, before: int) -> None:
        """Drops the message ids of other servers that came before that time (milliseconds), and what is too much for
        one server."""
        await self._db.write("to_device.forget_received", _forget_received, before)

    async def trim(self, devices: Collection[Device], limit: int) -> int:
        """Deletes the oldest messages of these devices so that each has `limit` at most. Returns how many."""
        return await self._db.write("to_device.trim", _trim, list(devices), limit)

    async def waiting(self, user_id: str, device_id: str, after: int, until: int, limit: int) -> list[tuple[int, str]]:
        """At most `limit` messages at positions `after` < p ≤ `until`, oldest first, as (position, JSON text)."""
        return await self._db.read("to_device.waiting", _waiting, user_id, device_id, after, until, limit)

    async def delete(self, user_id: str, device_id: str, until: int) -> int:
        """Deletes what the device has received: everything up to `until`. Returns how many."""
        return await self._db.write("to_device.delete", _delete, user_id, device_id, until)

    async def forget_txns(self, before: int) -> None:
        """Drops transaction ids received before that time (milliseconds): no client retries for so long."""
        await self._db.write("to_device.forget_txns", _forget_txns, before)

    async def max_stream_id(self) -> int:
        return await self._db.read("to_device.max_stream_id", _max_stream_id)


def _add(
    txn: Transaction, sender: Txn, messages: list[Message], outgoing: list[Outgoing], stream_id: int, now: int
) -> Added:
    txn.execute(
        """
        INSERT INTO to_device_txns (user_id, device_id, txn_id, received_ts) VALUES (%s, %s, %s, %s)
        ON CONFLICT DO NOTHING RETURNING true
        """,
        (*sender, now),
    )
    if txn.one_or_none() is None:
        return Added([], [])
    to_device_outbox.put(txn, outgoing, stream_id)
    return Added(_insert(txn, messages, stream_id), sorted({each.destination for each in outgoing}))


def _receive(
    txn: Transaction, origin: str, message_id: str, messages: list[Message], stream_id: int, now: int
) -> list[Device]:
    txn.execute(
        """
        INSERT INTO to_device_received (origin, message_id, received_ts) VALUES (%s, %s, %s)
        ON CONFLICT DO NOTHING RETURNING true
        """,
        (origin, message_id, now),
    )
    if txn.one_or_none() is None:
        return []
    devices = _insert(txn, messages, stream_id)
    if not devices:  # it may come once more: nobody has it, and whoever makes ids up fills no table
        txn.later("DELETE FROM to_device_received WHERE origin = %s AND message_id = %s", (origin, message_id))
    return devices


def _insert(txn: Transaction, messages: list[Message], stream_id: int) -> list[Device]:
    if not messages:
        return []
    txn.values(
        """
        INSERT INTO to_device_messages (stream_id, user_id, device_id, message)
        SELECT DISTINCT ON (d.user_id, d.device_id) v.stream_id, d.user_id, d.device_id, v.message
        FROM (VALUES %s) AS v (stream_id, user_id, device_id, message)
        JOIN devices d ON d.user_id = v.user_id AND (v.device_id = '*' OR d.device_id = v.device_id)
        ORDER BY d.user_id, d.device_id, v.device_id = '*'
        RETURNING user_id, device_id
        """,
        [(stream_id, *message) for message in messages],
    )
    return [Device(*row) for row in txn.rows()]


def _trim(txn: Transaction, devices: list[Device], limit: int) -> int:
    txn.execute(
        """
        DELETE FROM to_device_messages m USING (
            SELECT d.user_id, d.device_id, (
                SELECT stream_id FROM to_device_messages w WHERE w.user_id = d.user_id AND w.device_id = d.device_id
                ORDER BY stream_id DESC OFFSET %s LIMIT 1
            ) AS last FROM unnest(%s, %s) AS d (user_id, device_id)
        ) AS cut
        WHERE m.user_id = cut.user_id AND m.device_id = cut.device_id AND m.stream_id <= cut.last
        """,
        [limit, *(list(column) for column in zip(*devices, strict=True))],
    )
    return txn.affected


def _waiting(
    txn: Transaction, user_id: str, device_id: str, after: int, until: int, limit: int
) -> list[tuple[int, str]]:
    txn.planned(
        """
        SELECT stream_id, message FROM to_device_messages
        WHERE user_id = %s AND device_id = %s AND stream_id > %s AND stream_id <= %s ORDER BY stream_id LIMIT %s
        """,
        (user_id, device_id, after, until, limit),
    )
    return [(stream_id, message) for stream_id, message in txn.rows()]


def _delete(txn: Transaction, user_id: str, device_id: str, until: int) -> int:
    txn.execute(
        "DELETE FROM to_device_messages WHERE user_id = %s AND device_id = %s AND stream_id <= %s",
        (user_id, device_id, until),
    )
    return txn.affected


def _forget_txns(txn: Transaction, before: int) -> None:
    txn.execute("DELETE FROM to_device_txns WHERE received_ts < %s", (before,))


def _forget_received(txn: Transaction, before: int) -> None:
    txn.execute("DELETE FROM to_device_received WHERE received_ts < %s", (before,))
    txn.execute(
        """
        DELETE FROM to_device_received r USING (
            SELECT o.origin, m.message_id
            FROM (SELECT origin FROM to_device_received GROUP BY origin HAVING count(*) > %(most)s) o
            CROSS JOIN LATERAL (
                SELECT message_id FROM to_device_received WHERE origin = o.origin
                ORDER BY received_ts DESC, message_id OFFSET %(most)s
            ) m
        ) surplus
        WHERE r.origin = surplus.origin AND r.message_id = surplus.message_id
        """,
        {"most": RECEIVED_PER_ORIGIN},
    )


def _max_stream_id(txn: Transaction) -> int:
    txn.execute("SELECT COALESCE(MAX(stream_id), 0) FROM to_device_messages")
    return int(txn.one()[0])
