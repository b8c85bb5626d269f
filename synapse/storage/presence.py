"""Who is there: the last known presence of each user that ever had one.

One row a user, overwritten; the position in the presence stream tells who changed since. Written by the main process.
Who may see whose presence is decided by shared rooms, which this store looks up together with the states.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class PresenceState(NamedTuple):
    """`state` is online, unavailable or offline; `last_active_ts` in milliseconds since the epoch.

    The name and picture of the user's profile come along where states are read to be shown.
    """

    user_id: str
    state: str
    status_msg: str | None
    last_active_ts: int
    currently_active: bool
    display_name: str | None = None
    avatar_url: str | None = None


class PresenceStore:
    """Reads presence anywhere; writes it in the main process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(self, state: PresenceState, stream_id: int, keep_status: bool = False) -> None:
        """Writes a state at its stream position; `keep_status` leaves the status message that is there. One
        statement.
        """
        await self._db.write_idempotent("presence.put", _put, state, stream_id, keep_status)

    async def put_many(self, states: Sequence[PresenceState], stream_ids: Sequence[int]) -> dict[int, str]:
        """Writes the states of different users, each at a stream position of its own; whose is at which. One
        statement.
        """
        return await self._db.write_idempotent("presence.put_many", _put_many, states, stream_ids)

    async def note(self, user_id: str, active_ts: int) -> None:
        """Somebody offline did something, which others are not told of. One statement."""
        await self._db.write_idempotent("presence.note", _note, user_id, active_ts)

    async def get(self, user_ids: Sequence[str]) -> dict[str, PresenceState]:
        """One statement; users without presence are missing."""
        return await self._db.read("presence.get", _get, list(user_ids)) if user_ids else {}

    async def visible_to(self, user_id: str, after: int, until: int) -> list[PresenceState]:
        """Changes after one position and up to another, of the user and of everybody in a room with them. One
        statement.
        """
        return await self._db.read("presence.visible_to", _visible_to, user_id, after, until)

    async def in_rooms(
        self, room_ids: Sequence[str], until: int, active_since: int, own: str | None = None
    ) -> list[PresenceState]:
        """The states of those members of these rooms who are around, and that of the user `own`. One statement.

        Around is who is not offline, or was active at `active_since` (in milliseconds) or later.
        """
        if not room_ids and own is None:
            return []
        return await self._db.read("presence.in_rooms", _in_rooms, list(room_ids), until, active_since, own)

    async def of_members(self, room_id: str, after: int | None, until: int) -> list[PresenceState]:
        """The states of a room's members that were set at `after` < position ≤ `until`, offline ones included. None:
        whenever they were set before.
        """
        return await self._db.read("presence.of_members", _of_members, room_id, after, until)

    async def members_without(self, room_id: str) -> list[str]:
        """The members of a room who were never seen."""
        return await self._db.read("presence.members_without", _members_without, room_id)

    async def newcomers(self, members: Sequence[tuple[str, str]], until: int, active_since: int) -> list[PresenceState]:
        """The states of those of these (room, user) who are in the room and around; see `in_rooms`.

        This server's own users were active when they came, though nothing else may be known of them.
        """
        if not members:
            return []
        return await self._db.read("presence.newcomers", _newcomers, list(members), until, active_since)

    async def share_room(self, user_id: str, other: str) -> bool:
        """Whether both are in one room."""
        return await self._db.read("presence.share_room", _share_room, user_id, other)

    async def not_offline(self) -> list[PresenceState]:
        """For the main process at its start: everybody whom it left online or idle."""
        return await self._db.read("presence.not_offline", _not_offline)

    async def forget_others(self, before: int, server_name: str) -> None:
        """Drops users of other servers who are offline, and were active last before that time (milliseconds)."""
        await self._db.write_idempotent("presence.forget_others", _forget_others, before, server_name)

    async def max_stream_id(self) -> int:
        return await self._db.read("presence.max_stream_id", _max_stream_id)

    async def updates(self, after: int, until: int, limit: int) -> list[tuple[int, str]]:
        """For replication: (stream id, user) of changes at `after` < id ≤ `until`, in order."""
        return await self._db.read("presence.updates", _updates, after, until, limit)


_COLUMNS = "p.user_id, p.state, p.status_msg, p.last_active_ts, p.currently_active"
_SHOWN = f"{_COLUMNS}, pr.display_name, pr.avatar_url"
_WITH_PROFILE = "presence p LEFT JOIN profiles pr USING (user_id)"


def _put(txn: Transaction, state: PresenceState, stream_id: int, keep_status: bool) -> None:
    txn.execute(
        """
        INSERT INTO presence AS p (user_id, state, status_msg, last_active_ts, currently_active, stream_id)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (user_id) DO UPDATE SET
            state = EXCLUDED.state, status_msg = CASE WHEN %s THEN p.status_msg ELSE EXCLUDED.status_msg END,
            last_active_ts = EXCLUDED.last_active_ts, currently_active = EXCLUDED.currently_active,
            stream_id = EXCLUDED.stream_id
        """,
        (*state[:5], stream_id, keep_status),
    )


def _put_many(txn: Transaction, states: Sequence[PresenceState], stream_ids: Sequence[int]) -> dict[int, str]:
    rows = sorted((state[:5], stream_id) for state, stream_id in zip(states, stream_ids, strict=True))
    txn.values(
        """
        INSERT INTO presence (user_id, state, status_msg, last_active_ts, currently_active, stream_id) VALUES %s
        ON CONFLICT (user_id) DO UPDATE SET
            state = EXCLUDED.state, status_msg = EXCLUDED.status_msg, last_active_ts = EXCLUDED.last_active_ts,
            currently_active = EXCLUDED.currently_active, stream_id = EXCLUDED.stream_id
        """,
        [(*state, stream_id) for state, stream_id in rows],
    )
    return {stream_id: state.user_id for state, stream_id in zip(states, stream_ids, strict=True)}


def _note(txn: Transaction, user_id: str, active_ts: int) -> None:
    # Who was never seen gets a position before all others, which nobody waits for.
    txn.execute(
        """
        INSERT INTO presence AS p (user_id, state, last_active_ts, currently_active, stream_id)
        SELECT %s, 'offline', %s, false, LEAST(MIN(stream_id), 0) - 1 FROM presence
        ON CONFLICT (user_id) DO UPDATE SET last_active_ts = EXCLUDED.last_active_ts
        WHERE p.state = 'offline' AND p.last_active_ts < EXCLUDED.last_active_ts
        """,
        (user_id, active_ts),
    )


def _get(txn: Transaction, user_ids: list[str]) -> dict[str, PresenceState]:
    txn.execute(f"SELECT {_COLUMNS} FROM presence p WHERE p.user_id = ANY(%s)", (user_ids,))
    return {state.user_id: state for state in (PresenceState(*row) for row in txn.rows())}


def _visible_to(txn: Transaction, user_id: str, after: int, until: int) -> list[PresenceState]:
    txn.execute(
        f"""
        SELECT {_SHOWN} FROM {_WITH_PROFILE}
        WHERE p.stream_id > %s AND p.stream_id <= %s AND (p.user_id = %s OR EXISTS (
            SELECT FROM local_memberships me JOIN current_state cs
              ON cs.room_id = me.room_id AND cs.type = 'm.room.member' AND cs.state_key = p.user_id
             AND cs.membership = 'join'
            WHERE me.user_id = %s AND me.membership = 'join'
        )) ORDER BY p.stream_id
        """,
        (after, until, user_id, user_id),
    )
    return [PresenceState(*row) for row in txn.rows()]


_AROUND = "(p.state <> 'offline' OR p.last_active_ts >= %s)"


def _in_rooms(
    txn: Transaction, room_ids: list[str], until: int, active_since: int, own: str | None
) -> list[PresenceState]:
    # Each member is looked up, once: everybody whom the server has ever seen may be many more. The membership is
    # compared in a way that no index knows, as there is one of all who are joined anywhere.
    txn.planned(
        f"""
        SELECT found.* FROM (
            SELECT cs.state_key AS user_id FROM current_state cs
            WHERE cs.room_id = ANY(%s) AND cs.type = 'm.room.member' AND (cs.membership = 'join') IS TRUE
            UNION SELECT %s::text
        ) AS member CROSS JOIN LATERAL (
            SELECT {_SHOWN} FROM {_WITH_PROFILE}
            WHERE p.user_id = member.user_id AND p.stream_id <= %s AND ({_AROUND} OR p.user_id = %s) OFFSET 0
        ) AS found
        """,
        (room_ids, own, until, active_since, own),
    )
    return [PresenceState(*row) for row in txn.rows()]


def _of_members(txn: Transaction, room_id: str, after: int | None, until: int) -> list[PresenceState]:
    txn.execute(
        f"""
        SELECT {_SHOWN} FROM {_WITH_PROFILE} JOIN current_state cs ON cs.state_key = p.user_id
        WHERE cs.room_id = %s AND cs.type = 'm.room.member' AND cs.membership = 'join'
          AND (%s::bigint IS NULL OR p.stream_id > %s) AND p.stream_id <= %s ORDER BY p.stream_id
        """,
        (room_id, after, after, until),
    )
    return [PresenceState(*row) for row in txn.rows()]


def _members_without(txn: Transaction, room_id: str) -> list[str]:
    txn.execute(
        """
        SELECT cs.state_key FROM current_state cs
        WHERE cs.room_id = %s AND cs.type = 'm.room.member' AND cs.membership = 'join'
          AND NOT EXISTS (SELECT FROM presence p WHERE p.user_id = cs.state_key)
        """,
        (room_id,),
    )
    return [user_id for (user_id,) in txn.rows()]


def _newcomers(txn: Transaction, members: list[tuple[str, str]], until: int, active_since: int) -> list[PresenceState]:
    txn.execute(
        """
        SELECT * FROM (
            SELECT DISTINCT ON (n.user_id) n.user_id, COALESCE(p.state, 'offline') AS state, p.status_msg,
                   GREATEST(p.last_active_ts, CASE WHEN u.user_id IS NOT NULL THEN e.received_ts END) AS active,
                   COALESCE(p.currently_active, false), pr.display_name, pr.avatar_url
            FROM unnest(%s::text[], %s::text[]) AS n (room_id, user_id)
            JOIN current_state cs ON cs.room_id = n.room_id AND cs.type = 'm.room.member' AND cs.state_key = n.user_id
             AND cs.membership = 'join'
            JOIN events e ON e.event_id = cs.event_id
            LEFT JOIN users u ON u.user_id = n.user_id
            LEFT JOIN presence p ON p.user_id = n.user_id
            LEFT JOIN profiles pr ON pr.user_id = n.user_id
            WHERE p.user_id IS NULL OR p.stream_id <= %s
            ORDER BY n.user_id, active DESC NULLS LAST
        ) AS come WHERE state <> 'offline' OR active >= %s
        """,
        ([room_id for room_id, _ in members], [user_id for _, user_id in members], until, active_since),
    )
    return [PresenceState(*row) for row in txn.rows()]


def _share_room(txn: Transaction, user_id: str, other: str) -> bool:
    txn.execute(
        """
        SELECT FROM current_state a JOIN current_state b USING (room_id, type)
        WHERE a.type = 'm.room.member' AND a.state_key = %s AND a.membership = 'join'
          AND b.state_key = %s AND b.membership = 'join' LIMIT 1
        """,
        (user_id, other),
    )
    return txn.one_or_none() is not None


def _not_offline(txn: Transaction) -> list[PresenceState]:
    txn.execute(f"SELECT {_COLUMNS} FROM presence p WHERE p.state <> 'offline'")
    return [PresenceState(*row) for row in txn.rows()]


def _forget_others(txn: Transaction, before: int, server_name: str) -> None:
    txn.execute(
        """
        DELETE FROM presence WHERE state = 'offline' AND last_active_ts < %s
        AND substr(user_id, strpos(user_id, ':') + 1) <> %s
        """,
        (before, server_name),
    )


def _max_stream_id(txn: Transaction) -> int:
    txn.execute("SELECT GREATEST(MAX(stream_id), 0) FROM presence")
    return int(txn.one()[0])


def _updates(txn: Transaction, after: int, until: int, limit: int) -> list[tuple[int, str]]:
    txn.execute(
        "SELECT stream_id, user_id FROM presence WHERE stream_id > %s AND stream_id <= %s ORDER BY stream_id LIMIT %s",
        (after, until, limit),
    )
    return [(stream_id, user_id) for stream_id, user_id in txn.rows()]
