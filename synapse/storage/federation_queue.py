"""What other servers are still to be sent, on record: whatever dies, it is sent afterwards.

`federation_outgoing` is the log: each event that is for others has one row, however many servers it is for, which
names the set of them (`federation_audiences`). A set that is new has a row for each of its servers: never more rows
than requests that are made for the sake of its event. It goes with the last event that is for it. How far each server
has come in the log is in `federation_queues`, with the transaction that is under way to it. The log goes back an hour
or so; what a server had not got by then becomes the last event of each room (`federation_missed`).

One process at a time writes here, the one whose `epoch` is the latest: each write makes sure of it, so that a process
which has lost the duty without noticing comes no further (`Fenced`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from synapse.util.problems import Problem

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

FOLLOWER: Final = "federation_sender"


class Fenced(Problem):
    """Another process has taken over the duty."""


class Logged(NamedTuple):
    """An event for the log."""

    stream_ordering: int
    room_id: str
    audience: bytes


class Standing(NamedTuple):
    """A server for which there is something: how far it has come, the last entry of the log that is for it (0: none),
    the transaction that was under way, and whether there are rooms of which it has missed the last event."""

    destination: str
    acked: int
    newest: int
    sending_until: int | None
    sending_txn: str | None
    missed: bool


class Progress(NamedTuple):
    """How far a server has come, and what is under way to it, if anything."""

    destination: str
    acked: int
    sending_until: int | None = None
    sending_txn: str | None = None


class Told(NamedTuple):
    """A server has been told the last event of a room that it had missed."""

    destination: str
    room_id: str
    stream_ordering: int


class Trimmed(NamedTuple):
    """Up to where the log was given up (0: nothing was), the servers that have missed something by that, and the
    audiences that are on record no more."""

    until: int
    destinations: list[str]
    audiences: list[bytes]


class FederationQueueStore:
    """Reads and writes; the statements of a call do not grow in number with servers or events."""

    def __init__(self, db: Database, server_name: str) -> None:
        self._db = db
        self._server_name = server_name

    async def begin(self) -> tuple[int, dict[str, int]]:
        """Takes the writing over. The new epoch, and how far the streams have been followed (`events`, `receipts`,
        `presence`); a stream that was not followed before is missing.
        """
        return await self._db.write("federation_queue.begin", _begin)

    async def start_of_events(self, present: int) -> int:
        """Where to begin to follow the events stream, of which nothing has been taken over yet: before the first time
        that another server came into a room. (Once.)"""
        return await self._db.read("federation_queue.start", _start, self._server_name, present)

    async def keep_positions(self, epoch: int, positions: Mapping[str, int]) -> None:
        """Keeps how far streams have been followed. Raises Fenced."""
        await self._db.write_idempotent("federation_queue.keep_positions", _keep_positions, epoch, positions)

    async def log(
        self, epoch: int, position: int, events: Sequence[Logged], audiences: Mapping[bytes, Sequence[str]], now: int
    ) -> None:
        """Puts events on record, and the audiences that are not yet; the events stream has been followed up to
        `position`. Raises Fenced.
        """
        await self._db.write_idempotent("federation_queue.log", _log, epoch, position, events, audiences, now)

    async def note(self, epoch: int, progress: Sequence[Progress], told: Sequence[Told] = ()) -> None:
        """Notes down how far servers have come. Raises Fenced."""
        await self._db.write_idempotent("federation_queue.note", _note, epoch, progress, told)

    async def standing(self) -> list[Standing]:
        """All servers for which there is something."""
        return await self._db.snapshot("federation_queue.standing", _standing)

    async def pages(self, wanted: Mapping[str, tuple[int, int]]) -> dict[str, list[int]]:
        """For each server, the positions of the log's events for it after a position, so many at most. One
        statement."""
        return await self._db.read("federation_queue.pages", _pages, wanted)

    async def missed(self, limits: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
        """For each server, the rooms that it has missed, the one that waits longest first, with the position of the
        last event. One statement."""
        return await self._db.read("federation_queue.missed", _missed, limits)

    async def skip(self, epoch: int, destination: str, after: int, until: int) -> None:
        """Makes a server's part of the log the last events of rooms. Raises Fenced."""
        await self._db.write_idempotent("federation_queue.skip", _skip, epoch, destination, after, until)

    async def trim(self, epoch: int, before_ts: int, keep: int) -> Trimmed:
        """Gives up what was logged before, and all but the last `keep` entries. Raises Fenced."""
        return await self._db.write_idempotent("federation_queue.trim", _trim, epoch, before_ts, keep)

    async def forget_missed(self, epoch: int, before_ts: int) -> None:
        """Forgets what servers have missed of events older than that, and how far those have come that are in no room
        any more. Raises Fenced."""
        await self._db.write_idempotent("federation_queue.forget_missed", _forget_missed, epoch, before_ts)


def _fence(txn: Transaction, epoch: int) -> None:
    """Who takes over waits until this transaction has ended, and this one fails once it has."""
    txn.execute("SELECT epoch FROM federation_sender FOR SHARE")
    row = txn.one_or_none()
    if row is None or row[0] != epoch:
        raise Fenced("Another process sends to other servers by now.")


def _begin(txn: Transaction) -> tuple[int, dict[str, int]]:
    txn.execute(
        """
        INSERT INTO federation_sender (epoch) VALUES (1)
        ON CONFLICT (one) DO UPDATE SET epoch = federation_sender.epoch + 1 RETURNING epoch
        """
    )
    epoch = int(txn.one()[0])
    txn.execute("SELECT stream, position FROM stream_followers WHERE follower = %s", (FOLLOWER,))
    return epoch, dict(txn.rows())


def _start(txn: Transaction, server_name: str, present: int) -> int:
    txn.execute(
        """
        SELECT MIN(stream_ordering) FROM memberships WHERE membership = 'join' AND stream_ordering > 0
            AND substr(user_id, strpos(user_id, ':') + 1) <> %s
        """,
        (server_name,),
    )
    first = txn.one()[0]
    return present if first is None else min(present, int(first) - 1)


def _keep_positions(txn: Transaction, epoch: int, positions: Mapping[str, int]) -> None:
    _fence(txn, epoch)
    _keep(txn, positions)


def _keep(txn: Transaction, positions: Mapping[str, int]) -> None:
    txn.values(
        """
        INSERT INTO stream_followers (follower, stream, position) VALUES %s
        ON CONFLICT (follower, stream) DO UPDATE
        SET position = GREATEST(stream_followers.position, EXCLUDED.position)
        """,
        [(FOLLOWER, stream, position) for stream, position in positions.items()],
        later=True,
    )


def _log(
    txn: Transaction,
    epoch: int,
    position: int,
    events: Sequence[Logged],
    audiences: Mapping[bytes, Sequence[str]],
    now: int,
) -> None:
    _fence(txn, epoch)
    if audiences:
        txn.later(
            """
            INSERT INTO federation_audiences (audience, destination)
            SELECT * FROM unnest(%s::bytea[], %s::text[]) ON CONFLICT DO NOTHING
            """,
            (
                [audience for audience, servers in audiences.items() for _ in servers],
                [server for servers in audiences.values() for server in servers],
            ),
        )
    txn.values(
        """
        INSERT INTO federation_outgoing (stream_ordering, room_id, audience, logged_ts) VALUES %s
        ON CONFLICT DO NOTHING
        """,
        [(*event, now) for event in events],
        later=True,
    )
    _keep(txn, {"events": position})


def _note(txn: Transaction, epoch: int, progress: Sequence[Progress], told: Sequence[Told]) -> None:
    _fence(txn, epoch)
    if progress:
        txn.later(
            """
            INSERT INTO federation_queues (destination, acked, sending_until, sending_txn)
            SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::text[])
            ON CONFLICT (destination) DO UPDATE SET acked = GREATEST(federation_queues.acked, EXCLUDED.acked),
                sending_until = EXCLUDED.sending_until, sending_txn = EXCLUDED.sending_txn
            """,
            _columns(progress),
        )
    if told:
        # A later event of the room may have been missed meanwhile.
        txn.later(
            """
            DELETE FROM federation_missed m
            USING unnest(%s::text[], %s::text[], %s::bigint[]) AS told (destination, room_id, stream_ordering)
            WHERE (m.destination, m.room_id) = (told.destination, told.room_id)
                AND m.stream_ordering <= told.stream_ordering
            """,
            _columns(told),
        )


def _standing(txn: Transaction) -> list[Standing]:
    txn.execute(
        """
        WITH newest AS (
            SELECT a.destination, max(o.newest) AS newest
            FROM (SELECT audience, max(stream_ordering) AS newest FROM federation_outgoing GROUP BY audience) AS o
            JOIN federation_audiences a USING (audience) GROUP BY a.destination
        ), missed AS (SELECT DISTINCT destination FROM federation_missed)
        SELECT destination, COALESCE(q.acked, 0), COALESCE(n.newest, 0), q.sending_until, q.sending_txn,
            m.destination IS NOT NULL
        FROM newest n FULL JOIN missed m USING (destination) LEFT JOIN federation_queues q USING (destination)
        WHERE m.destination IS NOT NULL OR n.newest > COALESCE(q.acked, 0)
        """
    )
    return [Standing(*row) for row in txn.rows()]


def _pages(txn: Transaction, wanted: Mapping[str, tuple[int, int]]) -> dict[str, list[int]]:
    txn.execute(
        """
        SELECT w.destination, found.stream_ordering
        FROM unnest(%s::text[], %s::bigint[], %s::integer[]) AS w (destination, after, most)
        CROSS JOIN LATERAL (
            SELECT o.stream_ordering FROM federation_audiences a
            JOIN federation_outgoing o ON o.audience = a.audience AND o.stream_ordering > w.after
            WHERE a.destination = w.destination ORDER BY o.stream_ordering LIMIT w.most
        ) AS found ORDER BY found.stream_ordering
        """,
        (list(wanted), [after for after, _ in wanted.values()], [most for _, most in wanted.values()]),
    )
    pages: dict[str, list[int]] = {destination: [] for destination in wanted}
    for destination, position in txn.rows():
        pages[destination].append(position)
    return pages


def _missed(txn: Transaction, limits: Mapping[str, int]) -> dict[str, list[tuple[str, int]]]:
    txn.execute(
        """
        SELECT w.destination, found.room_id, found.stream_ordering
        FROM unnest(%s::text[], %s::integer[]) AS w (destination, most)
        CROSS JOIN LATERAL (
            SELECT m.room_id, m.stream_ordering FROM federation_missed m
            WHERE m.destination = w.destination ORDER BY m.stream_ordering LIMIT w.most
        ) AS found ORDER BY found.stream_ordering
        """,
        (list(limits), list(limits.values())),
    )
    missed: dict[str, list[tuple[str, int]]] = {destination: [] for destination in limits}
    for destination, room_id, position in txn.rows():
        missed[destination].append((room_id, position))
    return missed


_TO_MISSED: Final = """
    ON CONFLICT (destination, room_id) DO UPDATE
    SET stream_ordering = GREATEST(federation_missed.stream_ordering, EXCLUDED.stream_ordering)
"""


def _skip(txn: Transaction, epoch: int, destination: str, after: int, until: int) -> None:
    _fence(txn, epoch)
    txn.later(
        f"""
        INSERT INTO federation_missed (destination, room_id, stream_ordering)
        SELECT a.destination, o.room_id, max(o.stream_ordering)
        FROM federation_audiences a JOIN federation_outgoing o USING (audience)
        WHERE a.destination = %s AND o.stream_ordering > %s AND o.stream_ordering <= %s GROUP BY 1, 2 {_TO_MISSED}
        """,
        (destination, after, until),
    )
    txn.later(
        """
        INSERT INTO federation_queues (destination, acked) VALUES (%s, %s)
        ON CONFLICT (destination) DO UPDATE SET acked = GREATEST(federation_queues.acked, EXCLUDED.acked),
            sending_until = NULL, sending_txn = NULL
        """,
        (destination, until),
    )


def _trim(txn: Transaction, epoch: int, before_ts: int, keep: int) -> Trimmed:
    _fence(txn, epoch)
    txn.execute(
        """
        SELECT GREATEST(
            (SELECT max(stream_ordering) FROM federation_outgoing WHERE logged_ts < %s),
            (SELECT stream_ordering FROM federation_outgoing ORDER BY stream_ordering DESC OFFSET %s LIMIT 1)
        )
        """,
        (before_ts, keep),
    )
    (until,) = txn.one()
    if until is None:
        return Trimmed(0, [], [])
    txn.execute(
        f"""
        INSERT INTO federation_missed (destination, room_id, stream_ordering)
        SELECT a.destination, o.room_id, max(o.stream_ordering)
        FROM federation_outgoing o JOIN federation_audiences a USING (audience)
        LEFT JOIN federation_queues q USING (destination)
        WHERE o.stream_ordering <= %s AND o.stream_ordering > COALESCE(q.acked, 0) GROUP BY 1, 2 {_TO_MISSED}
        RETURNING destination
        """,
        (until,),
    )
    destinations = sorted({destination for (destination,) in txn.rows()})
    # All that this costs grows with what is given up: the audiences of a room with thousands of servers, of whom some
    # come and go, are a large table.
    txn.execute(
        """
        WITH gone AS (
            DELETE FROM federation_outgoing WHERE stream_ordering <= %(until)s RETURNING audience
        ), dropped AS (
            DELETE FROM federation_audiences a USING (SELECT DISTINCT audience FROM gone) g
            WHERE a.audience = g.audience AND NOT EXISTS (
                SELECT FROM federation_outgoing o WHERE o.audience = g.audience AND o.stream_ordering > %(until)s
            ) RETURNING a.audience
        ) SELECT DISTINCT audience FROM dropped
        """,
        {"until": until},
    )
    return Trimmed(int(until), destinations, sorted({bytes(audience) for (audience,) in txn.rows()}))


def _forget_missed(txn: Transaction, epoch: int, before_ts: int) -> None:
    _fence(txn, epoch)
    txn.later(
        """
        DELETE FROM federation_missed m USING events e
        WHERE e.stream_ordering = m.stream_ordering AND e.received_ts < %s
        """,
        (before_ts,),
    )
    txn.later(
        """
        DELETE FROM federation_missed m
        WHERE NOT EXISTS (SELECT FROM events e WHERE e.stream_ordering = m.stream_ordering)
        """
    )
    # Where the log has nothing for a server, nothing would be sent to it again.
    txn.later(
        """
        DELETE FROM federation_queues q
        WHERE NOT EXISTS (SELECT FROM federation_audiences a WHERE a.destination = q.destination)
            AND NOT EXISTS (SELECT FROM federation_missed m WHERE m.destination = q.destination)
            AND NOT EXISTS (
                SELECT FROM current_state c WHERE c.type = 'm.room.member' AND c.membership = 'join'
                    AND substr(c.state_key, strpos(c.state_key, ':') + 1) = q.destination
            )
        """
    )


def _columns(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]
