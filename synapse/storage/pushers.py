"""Pushers: where users want to be notified, and how far each of them has been told.

A pusher ends with the session that made it: in `synapse.storage.devices` with the device, in
`synapse.storage.access_tokens` with a token that has none. What there is to send is in `push_actions`, until its user
has read it.

Client-server API, "Push notifications".
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Key(NamedTuple):
    """Which pusher."""

    user_id: str
    app_id: str
    pushkey: str


class Session(NamedTuple):
    """What a pusher was made with, and ends with: a device, or the token where that has no device."""

    device_id: str | None
    token_id: int | None


class Pusher(NamedTuple):
    """A pusher of kind `http`, as its user wants it. `data` is JSON; `set_ts` is milliseconds."""

    key: Key
    app_display_name: str
    device_display_name: str
    profile_tag: str | None
    lang: str
    data: str
    set_ts: int


class Action(NamedTuple):
    """An event to be told of. `actions` is the JSON of the push rule's; names are None where there are none."""

    stream_ordering: int
    event_id: str
    actions: str
    highlight: bool
    sender_name: str | None
    room_name: str | None
    room_alias: str | None


class Due(NamedTuple):
    """What there is to tell: an action, or none but perhaps another count."""

    data: str
    set_ts: int  # milliseconds, as `failing_since` is
    failing_since: int | None
    badge: int  # the count that was told last
    messages: int  # that are unread now, and the rooms that they are in
    rooms: int
    action: Action | None


class PusherStore:
    """Read and written in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_user(self, user_id: str) -> list[Pusher]:
        return await self._db.read("pushers.of_user", _of_user, user_id)

    async def set(self, pusher: Pusher, session: Session, position: int, *, append: bool, limit: int) -> bool | None:
        """Makes or changes a pusher; a new one is told of events after `position`.

        Without `append`, nobody else has it any more. False, and nothing done, if the user would have more than
        `limit` of them; None if the session has ended.
        """
        return await self._db.write("pushers.set", _set, pusher, session, position, append, limit)

    async def delete(self, key: Key, set_ts: int | None = None) -> bool:
        """False if there is none; with `set_ts`, if it has been set again since."""
        return await self._db.write_idempotent("pushers.delete", _delete, key, set_ts)

    # -- sending ---------------------------------------------------------------------------------------------------

    async def concerned(self, user_ids: Collection[str], room_ids: Collection[str]) -> list[tuple[Key, int]]:
        """The pushers of these users and of the local members of these rooms, with when each was set."""
        return await self._db.read("pushers.concerned", _concerned, list(user_ids), list(room_ids))

    async def behind(self, after: Key | None, limit: int) -> list[tuple[Key, int]]:
        """Pushers that have something to tell, or failed to; the first so many in the order of their keys."""
        return await self._db.read("pushers.behind", _behind, after or Key("", "", ""), limit)

    async def due(self, key: Key, until: int) -> Due | None:
        """What a pusher has to tell next, of events up to `until`. None where it is gone, or its user is locked out."""
        return await self._db.read("pushers.due", _due, key, until)

    async def sent(self, key: Key, position: int | None, badge: int) -> None:
        """What is up to `position` (None: as before) was told, and the count."""
        await self._db.write_idempotent("pushers.sent", _sent, key, position, badge)

    async def failed(self, key: Key, since: int) -> None:
        await self._db.write_idempotent("pushers.failed", _failed, key, since)


_COLUMNS: Final = "app_display_name, device_display_name, profile_tag, lang, data, set_ts"


def _of_user(txn: Transaction, user_id: str) -> list[Pusher]:
    txn.execute(
        f"SELECT user_id, app_id, pushkey, {_COLUMNS} FROM pushers WHERE user_id = %s ORDER BY app_id, pushkey",
        (user_id,),
    )
    return [Pusher(Key(*row[:3]), *row[3:]) for row in txn.rows()]


def _set(txn: Transaction, pusher: Pusher, session: Session, position: int, append: bool, limit: int) -> bool | None:
    key = pusher.key
    txn.see_the_latest()
    # Of two users who take the same pushkey for themselves, one has it in the end.
    txn.later("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"pusher {key.app_id} {key.pushkey}",))
    if not _touch(txn, key.user_id, session):
        return None
    txn.execute("SELECT COUNT(*) FROM pushers WHERE user_id = %s AND (app_id, pushkey) <> (%s, %s)", tuple(key))
    if txn.one()[0] >= limit:
        return False
    if not append:
        txn.later("DELETE FROM pushers WHERE user_id <> %s AND app_id = %s AND pushkey = %s", tuple(key))
    made_with = (session.device_id, session.token_id if session.device_id is None else None)
    txn.later(
        f"""
        INSERT INTO pushers (user_id, app_id, pushkey, {_COLUMNS}, device_id, token_id, last_stream_ordering)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (user_id, app_id, pushkey) DO UPDATE
        SET app_display_name = excluded.app_display_name, device_display_name = excluded.device_display_name,
            profile_tag = excluded.profile_tag, lang = excluded.lang, data = excluded.data, set_ts = excluded.set_ts,
            device_id = excluded.device_id, token_id = excluded.token_id, failing_since = NULL
        """,
        (*key, *pusher[1:], *made_with, position),
    )
    return True


def _touch(txn: Transaction, user_id: str, session: Session) -> bool:
    """Changes the session's row, so that whoever ends it at the same time sees the pusher; False if it has ended."""
    if session.device_id is not None:
        txn.execute(
            "UPDATE devices SET created_ts = created_ts WHERE user_id = %s AND device_id = %s RETURNING true",
            (user_id, session.device_id),
        )
    else:
        txn.execute(
            "UPDATE access_tokens SET created_ts = created_ts WHERE user_id = %s AND id = %s RETURNING true",
            (user_id, session.token_id),
        )
    return txn.one_or_none() is not None


def _delete(txn: Transaction, key: Key, set_ts: int | None) -> bool:
    txn.execute(
        "DELETE FROM pushers WHERE user_id = %s AND app_id = %s AND pushkey = %s AND set_ts = COALESCE(%s, set_ts)"
        " RETURNING true",
        (*key, set_ts),
    )
    return txn.one_or_none() is not None


def _concerned(txn: Transaction, user_ids: list[str], room_ids: list[str]) -> list[tuple[Key, int]]:
    txn.execute(
        """
        SELECT user_id, app_id, pushkey, set_ts FROM pushers WHERE user_id = ANY(%s)
        UNION
        SELECT p.user_id, p.app_id, p.pushkey, p.set_ts FROM local_memberships m JOIN pushers p USING (user_id)
        WHERE m.room_id = ANY(%s) AND m.membership IN ('join', 'invite')
        """,
        (user_ids, room_ids),
    )
    return _keys(txn.rows())


def _behind(txn: Transaction, after: Key, limit: int) -> list[tuple[Key, int]]:
    txn.execute(
        """
        SELECT user_id, app_id, pushkey, set_ts FROM pushers p
        WHERE (user_id, app_id, pushkey) > (%s, %s, %s) AND (failing_since IS NOT NULL OR EXISTS (
            SELECT FROM push_actions a
            WHERE a.user_id = p.user_id AND a.stream_ordering > p.last_stream_ordering AND a.notify
        ))
        ORDER BY user_id, app_id, pushkey LIMIT %s
        """,
        (*after, limit),
    )
    return _keys(txn.rows())


def _keys(rows: list[tuple[Any, ...]]) -> list[tuple[Key, int]]:
    return [(Key(*row[:3]), row[3]) for row in rows]


# Whom somebody has removed from a room is not told of it any more.
_DUE: Final = """
    WITH unread AS (
        SELECT a.room_id, a.stream_ordering, a.event_id, a.actions, a.highlight
        FROM push_actions a JOIN local_memberships m USING (user_id, room_id)
        WHERE a.user_id = %(user)s AND a.notify AND m.membership IN ('join', 'invite')
            AND a.stream_ordering <= %(until)s
    )
    SELECT p.data, p.set_ts, p.failing_since, p.badge, n.messages, n.rooms,
        a.stream_ordering, a.event_id, a.actions, a.highlight, s.display_name, r.name, r.canonical_alias
    FROM pushers p JOIN users u USING (user_id)
    CROSS JOIN (SELECT COUNT(*) AS messages, COUNT(DISTINCT room_id) AS rooms FROM unread) n
    LEFT JOIN LATERAL (
        SELECT * FROM unread WHERE stream_ordering > p.last_stream_ordering ORDER BY stream_ordering LIMIT 1
    ) a ON true
    LEFT JOIN events e ON e.event_id = a.event_id
    LEFT JOIN current_state c ON c.room_id = e.room_id AND c.type = 'm.room.member' AND c.state_key = e.sender
    LEFT JOIN memberships s ON s.event_id = c.event_id
    LEFT JOIN room_stats r ON r.room_id = a.room_id
    WHERE p.user_id = %(user)s AND p.app_id = %(app)s AND p.pushkey = %(pushkey)s
        AND NOT u.locked AND NOT u.deactivated
"""


def _due(txn: Transaction, key: Key, until: int) -> Due | None:
    txn.execute(_DUE, {"user": key.user_id, "app": key.app_id, "pushkey": key.pushkey, "until": until})
    row = txn.one_or_none()
    if row is None:
        return None
    return Due._make((*row[:6], None if row[6] is None else Action._make(row[6:])))


def _sent(txn: Transaction, key: Key, position: int | None, badge: int) -> None:
    # A position never goes back: two processes may have held the duty one after the other.
    txn.execute(
        """
        UPDATE pushers SET failing_since = NULL, badge = %s,
            last_stream_ordering = GREATEST(last_stream_ordering, COALESCE(%s, last_stream_ordering))
        WHERE user_id = %s AND app_id = %s AND pushkey = %s
        """,
        (badge, position, *key),
    )


def _failed(txn: Transaction, key: Key, since: int) -> None:
    txn.execute(
        "UPDATE pushers SET failing_since = COALESCE(failing_since, %s)"
        " WHERE user_id = %s AND app_id = %s AND pushkey = %s",
        (since, *key),
    )
