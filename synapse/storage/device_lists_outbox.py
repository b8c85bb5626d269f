"""Which servers are to be told of which local users' devices, and what each of them knows.

A change of the stream `device_lists`, or a local user who comes into a room, makes rows of `device_lists_due`: at most
one for each server and user, however much changes. What a server has been told is a row of `device_lists_sent`, and
what lies in between is in `device_lists_stream`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.storage.published_keys import PublishedKeys, read_published_keys

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from synapse.storage.database import Database, Transaction

FOLLOWER: Final = "device_lists_outbox"


class Told(NamedTuple):
    """What a server knows of a user: all up to a position; `update_id` is the `stream_id` that it was told last."""

    stream_id: int
    update_id: int | None


class Due(NamedTuple):
    """A server that is to be told of a user; `told` None: for the first time."""

    destination: str
    user_id: str
    told: Told | None


class Change(NamedTuple):
    """A change of some devices (none: of the user's own keys; None: it is not known of which)."""

    stream_id: int
    device_ids: Sequence[str] | None


class Devices(NamedTuple):
    """What there is to tell of a user: changes in order, all devices with their names, and the keys.

    Changes up to `forgotten` may be missing.
    """

    changes: list[Change]
    names: dict[str, str | None]
    published: PublishedKeys
    forgotten: int


class Positions(NamedTuple):
    """How far two streams have been taken in."""

    device_lists: int
    events: int


class DeviceListOutboxStore:
    """For the process that sends; reads anywhere."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, present: Positions) -> Positions:
        """How far the streams have been taken in: as far as `present` where nobody has begun yet."""
        return await self._db.write_idempotent("device_lists_outbox.begin", _begin, present)

    async def changed(self, after: int, until: int, server_name: str) -> dict[str, int]:
        """Local users with changes at positions `after` < p ≤ `until`, each with the last of them."""
        return await self._db.read("device_lists_outbox.changed", _changed, after, until, server_name)

    async def entered(self, after: int, until: int, server_name: str) -> list[tuple[str, str, bool]]:
        """(user, room, has keys) of local users who came into rooms at positions `after` < p ≤ `until` of the events
        stream. "Has keys": or had, or other changes, so that a server may have missed something.

        Without those who never had a device.
        """
        return await self._db.read("device_lists_outbox.entered", _entered, after, until, server_name)

    async def returned(self, after: int, until: int, server_name: str) -> list[tuple[str, str]]:
        """(server, user) of other servers whose users came into rooms at positions `after` < p ≤ `until` of the events
        stream, and the local users there of whom they know something, but not all: while no room was shared, they
        were not told.
        """
        return await self._db.read("device_lists_outbox.returned", _returned, after, until, server_name)

    async def add(self, due: Iterable[tuple[str, str, int]], reached: Positions) -> set[str]:
        """Rows of (destination, user, position of the change), without those of which the destination knows; and that
        the streams have been taken in so far. Returns the destinations.
        """
        return await self._db.write_idempotent("device_lists_outbox.add", _add, list(due), reached)

    async def destinations(self) -> set[str]:
        """The servers that are to be told of somebody."""
        return await self._db.read("device_lists_outbox.destinations", _destinations)

    async def due(self, destinations: Collection[str], limit: int) -> list[Due]:
        """Of whom these servers are to be told, so many users each."""
        return await self._db.read("device_lists_outbox.due", _due, list(destinations), limit)

    async def devices(self, user_id: str, after: int, until: int, keep: int) -> Devices:
        """Changes at positions `after` < p ≤ `until`, and what is true now. `keep`: so many of the last positions of
        the stream are kept whole.
        """
        return await self._db.snapshot("device_lists_outbox.devices", _devices, user_id, after, until, keep)

    async def forget_strangers(self, after: tuple[str, str], limit: int) -> tuple[str, str] | None:
        """Looks at so many of what servers know, from a (destination, user) on, and drops what is of users with whom
        they share no room any more. Returns where to go on; None at the end.
        """
        return await self._db.write_idempotent("device_lists_outbox.forget_strangers", _forget_strangers, after, limit)

    async def latest(self, user_id: str, until: int) -> int:
        """The position of a user's last change, as far as `until`; 0 where there is none."""
        return await self._db.read("device_lists_outbox.latest", _latest, user_id, until)

    async def told(self, users: Collection[tuple[str, str, Told]]) -> None:
        """(destination, user): the server knows so much of the user."""
        if users:
            await self._db.write_idempotent("device_lists_outbox.told", _told, list(users))


def _begin(txn: Transaction, present: Positions) -> Positions:
    txn.values(
        "INSERT INTO stream_followers (follower, stream, position) VALUES %s ON CONFLICT DO NOTHING",
        [(FOLLOWER, stream, position) for stream, position in present._asdict().items()],
    )
    txn.execute("SELECT stream, position FROM stream_followers WHERE follower = %s", (FOLLOWER,))
    return Positions(**dict(txn.rows()))


def _changed(txn: Transaction, after: int, until: int, server_name: str) -> dict[str, int]:
    txn.execute(
        """
        SELECT user_id, MAX(stream_id) FROM device_lists_stream
        WHERE stream_id > %s AND stream_id <= %s AND substr(user_id, strpos(user_id, ':') + 1) = %s GROUP BY user_id
        """,
        (after, until, server_name),
    )
    return dict(txn.rows())


def _entered(txn: Transaction, after: int, until: int, server_name: str) -> list[tuple[str, str, bool]]:
    txn.execute(
        """
        SELECT DISTINCT d.state_key, d.room_id,
          EXISTS (SELECT FROM device_lists_stream c WHERE c.user_id = d.state_key) AS has_keys
        FROM current_state_deltas d
        JOIN memberships n ON n.event_id = d.event_id LEFT JOIN memberships o ON o.event_id = d.prev_event_id
        WHERE d.stream_ordering > %s AND d.stream_ordering <= %s AND d.type = 'm.room.member'
          AND substr(d.state_key, strpos(d.state_key, ':') + 1) = %s
          AND n.membership = 'join' AND o.membership IS DISTINCT FROM 'join'
          AND (
            EXISTS (SELECT FROM device_lists_stream c WHERE c.user_id = d.state_key)
            OR EXISTS (SELECT FROM devices v WHERE v.user_id = d.state_key)
          )
        """,
        (after, until, server_name),
    )
    return [(user_id, room_id, has_keys) for user_id, room_id, has_keys in txn.rows()]


def _returned(txn: Transaction, after: int, until: int, server_name: str) -> list[tuple[str, str]]:
    txn.execute(
        """
        SELECT DISTINCT s.destination, s.user_id FROM (
            SELECT DISTINCT d.room_id, substr(d.state_key, strpos(d.state_key, ':') + 1) AS server_name
            FROM current_state_deltas d
            JOIN memberships n ON n.event_id = d.event_id LEFT JOIN memberships o ON o.event_id = d.prev_event_id
            WHERE d.stream_ordering > %s AND d.stream_ordering <= %s AND d.type = 'm.room.member'
              AND substr(d.state_key, strpos(d.state_key, ':') + 1) <> %s
              AND n.membership = 'join' AND o.membership IS DISTINCT FROM 'join'
        ) AS come
        JOIN device_lists_sent s ON s.destination = come.server_name
        JOIN current_state c ON c.room_id = come.room_id AND c.type = 'm.room.member' AND c.state_key = s.user_id
            AND c.membership = 'join'
        WHERE EXISTS (
            SELECT FROM device_lists_stream later WHERE later.user_id = s.user_id AND later.stream_id > s.stream_id
        )
        """,
        (after, until, server_name),
    )
    return [(destination, user_id) for destination, user_id in txn.rows()]


def _add(txn: Transaction, due: list[tuple[str, str, int]], reached: Positions) -> set[str]:
    for stream, position in reached._asdict().items():
        txn.later(
            "UPDATE stream_followers SET position = GREATEST(position, %s) WHERE follower = %s AND stream = %s",
            (position, FOLLOWER, stream),
        )
    if not due:
        return set()
    # Who comes into a room with a server that knows all of their devices already has nothing to tell it.
    txn.execute(
        """
        INSERT INTO device_lists_due AS d (destination, user_id, stream_id)
        SELECT n.destination, n.user_id, MAX(n.stream_id)
        FROM unnest(%s::text[], %s::text[], %s::bigint[]) AS n (destination, user_id, stream_id)
        WHERE NOT EXISTS (
            SELECT FROM device_lists_sent s WHERE (s.destination, s.user_id) = (n.destination, n.user_id)
            AND s.stream_id >= n.stream_id
            AND (n.stream_id > 0 OR NOT EXISTS (
                SELECT FROM device_lists_stream later WHERE later.user_id = n.user_id AND later.stream_id > s.stream_id
            ))
        ) GROUP BY n.destination, n.user_id
        ON CONFLICT (destination, user_id) DO UPDATE SET stream_id = GREATEST(d.stream_id, EXCLUDED.stream_id)
        RETURNING destination
        """,
        tuple(map(list, zip(*due, strict=True))),
    )
    return {destination for (destination,) in txn.rows()}


def _destinations(txn: Transaction) -> set[str]:
    txn.execute("SELECT DISTINCT destination FROM device_lists_due")
    return {destination for (destination,) in txn.rows()}


def _due(txn: Transaction, destinations: list[str], limit: int) -> list[Due]:
    txn.execute(
        """
        SELECT d.destination, d.user_id, s.stream_id, s.update_id FROM unnest(%s::text[]) AS w (destination)
        CROSS JOIN LATERAL (
            SELECT * FROM device_lists_due WHERE destination = w.destination ORDER BY stream_id, user_id LIMIT %s
        ) AS d LEFT JOIN device_lists_sent s ON (s.destination, s.user_id) = (d.destination, d.user_id)
        ORDER BY d.destination, d.stream_id, d.user_id
        """,
        (destinations, limit),
    )
    return [
        Due(destination, user_id, None if stream_id is None else Told(stream_id, update_id))
        for destination, user_id, stream_id, update_id in txn.rows()
    ]


def _devices(txn: Transaction, user_id: str, after: int, until: int, keep: int) -> Devices:
    txn.execute(
        """
        SELECT stream_id, COALESCE(device_ids, CASE WHEN device_id IS NOT NULL THEN ARRAY[device_id] END)
        FROM device_lists_stream
        WHERE user_id = %(user)s AND stream_id > %(after)s AND stream_id <= %(until)s
        UNION ALL
        SELECT NULL, ARRAY[GREATEST(MAX(stream_id) - %(keep)s, 0)::text] FROM device_lists_stream
        ORDER BY stream_id NULLS FIRST
        """,
        {"user": user_id, "after": after, "until": until, "keep": keep},
    )
    (_, (forgotten,)), *changes = txn.rows()
    txn.execute("SELECT device_id, display_name FROM devices WHERE user_id = %s ORDER BY device_id", (user_id,))
    names: dict[str, str | None] = dict(txn.rows())
    # Nobody of another server sees more than what everybody does.
    published = read_published_keys(txn, [user_id], "")
    return Devices([Change(*row) for row in changes], names, published, int(forgotten or 0))


def _told(txn: Transaction, users: list[tuple[str, str, Told]]) -> None:
    destinations, names, told = map(list, zip(*users, strict=True))
    positions = [each.stream_id for each in told]
    txn.later(
        """
        INSERT INTO device_lists_sent AS s (destination, user_id, stream_id, update_id)
        SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[])
        ON CONFLICT (destination, user_id) DO UPDATE SET stream_id = EXCLUDED.stream_id, update_id = CASE
            WHEN s.stream_id = EXCLUDED.stream_id THEN GREATEST(s.update_id, EXCLUDED.update_id)
            ELSE EXCLUDED.update_id END
        WHERE s.stream_id <= EXCLUDED.stream_id
        """,
        (destinations, names, positions, [each.update_id for each in told]),
    )
    txn.later(
        """
        DELETE FROM device_lists_due d
        USING unnest(%s::text[], %s::text[], %s::bigint[]) AS n (destination, user_id, stream_id)
        WHERE d.destination = n.destination AND d.user_id = n.user_id AND d.stream_id <= n.stream_id
        """,
        (destinations, names, positions),
    )


def _latest(txn: Transaction, user_id: str, until: int) -> int:
    txn.execute(
        "SELECT COALESCE(MAX(stream_id), 0) FROM device_lists_stream WHERE user_id = %s AND stream_id <= %s",
        (user_id, until),
    )
    return int(txn.one()[0])


def _forget_strangers(txn: Transaction, after: tuple[str, str], limit: int) -> tuple[str, str] | None:
    txn.execute(
        """
        SELECT destination, user_id FROM device_lists_sent WHERE (destination, user_id) > (%s, %s)
        ORDER BY destination, user_id LIMIT %s
        """,
        (*after, limit),
    )
    seen = txn.rows()
    if not seen:
        return None
    txn.later(
        """
        DELETE FROM device_lists_sent s USING unnest(%s::text[], %s::text[]) AS n (destination, user_id)
        WHERE s.destination = n.destination AND s.user_id = n.user_id AND NOT EXISTS (
            SELECT FROM local_memberships m JOIN current_state c ON c.room_id = m.room_id
            WHERE m.user_id = s.user_id AND m.membership = 'join' AND c.type = 'm.room.member'
              AND c.membership = 'join' AND substr(c.state_key, strpos(c.state_key, ':') + 1) = s.destination
        )
        """,
        tuple(map(list, zip(*seen, strict=True))),
    )
    return seen[-1] if len(seen) == limit else None
