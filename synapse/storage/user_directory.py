"""The user directory: the words by which users are found, and the search itself.

Rows of our own users are written together with their profiles; those of others follow the membership events of the
rooms that we are in (`synapse.handlers.user_directory`). Who may find whom is not kept but asked of the rooms' current
state at the time of the search, so it is never out of date.

Names are cut into words by `synapse.util.words` and not by PostgreSQL.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final, NamedTuple

from synapse.api.standing import SYSTEM
from synapse.storage.stream_followers import follower_position, keep_follower_position
from synapse.util.words import UNSPACED, WORD, fold

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

MAX_WORDS: Final = 32
MAX_WORD: Final = 64
_FOLLOWER: Final = "user_directory"


class DirectoryUser(NamedTuple):
    """A user as the directory shows it."""

    user_id: str
    display_name: str | None
    avatar_url: str | None


class Query(NamedTuple):
    """A search: `user_id` asks on whose behalf, `limit` results at most; `only_domain`, where only its users count."""

    user_id: str
    term: str
    limit: int
    search_all_users: bool
    prefer_domain: str | None
    only_domain: str | None = None
    show_locked: bool = False


class MemberChange(NamedTuple):
    """A membership that became or ceased to be current; `in_rooms`: the user is still in one with somebody of this
    server."""

    user: DirectoryUser
    in_rooms: bool


class UserDirectoryStore:
    """Reads and writes the directory."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def search(self, query: Query) -> list[DirectoryUser]:
        """The best matches first; none for a term without letters or digits."""
        return await self._db.read("user_directory.search", _search, query)

    async def position(self) -> int:
        """How far the directory follows the events stream."""
        return await self._db.read("user_directory.position", follower_position, _FOLLOWER)

    async def follow(self, after: int, until: int, server_name: str, limit: int) -> int:
        """Takes in about `limit` membership changes of other servers' users after a position; returns how far."""
        return await self._db.write_idempotent("user_directory.follow", _follow, after, until, server_name, limit)


# -- words -------------------------------------------------------------------------------------------------------------


def split_words(text: str) -> list[str]:
    """The words of a text, folded: without case, accents and width, so that "SMITH" and "Šmith" both find "smith"."""
    return [word[:MAX_WORD] for word in WORD.findall(fold(text))[:MAX_WORDS]]


def index_words(user_id: str, display_name: str | None) -> list[str]:
    """What a user is found by: words of the localpart and the display name, and tails of words in scripts without
    spaces, where a given name has to be found behind the family name."""
    localpart = user_id[1:].partition(":")[0]
    words = split_words(localpart) + split_words(display_name or "")
    tails = [
        run[start:]
        for word in words
        for run in UNSPACED.findall(unicodedata.normalize("NFC", word))
        for start in range(1, len(run))
    ]
    return list(dict.fromkeys(words + tails))


def _tsquery(words: list[str]) -> str:
    """All of the words, each as a prefix. Words hold letters and digits only, so quoting is all the escaping needed."""
    return " & ".join(f"'{word}':*" for word in words)


# -- searching ---------------------------------------------------------------------------------------------------------

_HERE = "EXISTS (SELECT FROM local_memberships h WHERE h.room_id = {room}.room_id AND h.membership = 'join')"
"""Somebody of this server is in the room; of others, it is not told any more who comes and goes."""

# Nobody shares a room with themselves: in private rooms alone, one is not found by one's own search either.
_VISIBLE = f"""
    AND EXISTS (
        SELECT 1 FROM current_state theirs LEFT JOIN room_stats room USING (room_id)
        WHERE theirs.type = 'm.room.member' AND theirs.state_key = d.user_id AND theirs.membership = 'join'
        AND (
            (room.join_rules = 'public' OR room.history_visibility = 'world_readable') AND {_HERE.format(room="theirs")}
            OR EXISTS (
                SELECT 1 FROM local_memberships ours
                WHERE ours.user_id = %(user_id)s AND ours.room_id = theirs.room_id AND ours.membership = 'join'
                AND ours.user_id <> theirs.state_key
            )
        )
    )
"""


def _search(txn: Transaction, query: Query) -> list[DirectoryUser]:
    condition, values = _condition(query.term)
    if condition is None:
        return []
    txn.execute(
        f"""
        SELECT d.user_id, d.display_name, d.avatar_url FROM user_directory d LEFT JOIN users u USING (user_id)
        WHERE {condition} AND u.deactivated IS NOT TRUE {"" if query.search_all_users else _VISIBLE}
            AND (%(show_locked)s OR u.locked IS NOT TRUE) AND u.user_type IS DISTINCT FROM %(system)s
            AND (%(only)s::text IS NULL OR right(d.user_id, length(%(only)s)) = %(only)s)
        ORDER BY
            (lower(d.display_name) = %(exact)s OR split_part(substr(d.user_id, 2), ':', 1) = %(exact)s) IS TRUE DESC,
            (%(domain)s::text IS NOT NULL AND right(d.user_id, length(%(domain)s)) = %(domain)s) DESC,
            (d.display_name IS NOT NULL)::int + (d.avatar_url IS NOT NULL)::int DESC,
            length(d.display_name), d.user_id
        LIMIT %(limit)s
        """,
        {
            **values,
            "user_id": query.user_id,
            "exact": query.term.strip().lower(),
            "domain": _ending(query.prefer_domain),
            "only": _ending(query.only_domain),
            "show_locked": query.show_locked,
            "system": SYSTEM,
            "limit": query.limit,
        },
    )
    return [DirectoryUser(*row) for row in txn.rows()]


def _ending(domain: str | None) -> str | None:
    """What the user ids of a domain end with."""
    return None if domain is None else f":{domain}"


def is_visible(txn: Transaction, user_id: str, to: str) -> bool:
    """Whether somebody shares a room with a user, or could meet the user in a public one."""
    txn.execute(
        f"SELECT FROM (SELECT %(target)s::text AS user_id) d WHERE true {_VISIBLE}", {"target": user_id, "user_id": to}
    )
    return bool(txn.affected)


def _condition(term: str) -> tuple[str | None, dict[str, str]]:
    """SQL that the term selects by: a user id (or its beginning) if it looks like one, else words."""
    term = term.strip()
    if term.startswith("@") and len(term) > 1:
        escaped = re.sub(r"([\\%_])", r"\\\1", term.lower())
        return "lower(d.user_id) LIKE %(prefix)s", {"prefix": escaped + "%"}
    words = split_words(term)
    return ("d.words @@ %(words)s::tsquery", {"words": _tsquery(words)}) if words else (None, {})


# -- writing -----------------------------------------------------------------------------------------------------------


def put(txn: Transaction, users: list[DirectoryUser]) -> None:
    """Writes users' rows; for stores that do it within a transaction of their own."""
    rows = [(*user, index_words(user.user_id, user.display_name) or [user.user_id]) for user in users]
    txn.values(
        """
        INSERT INTO user_directory (user_id, display_name, avatar_url, words)
        SELECT v.user_id, v.display_name, v.avatar_url, array_to_tsvector(v.words)
        FROM (VALUES %s) AS v (user_id, display_name, avatar_url, words)
        ON CONFLICT (user_id) DO UPDATE
        SET display_name = EXCLUDED.display_name, avatar_url = EXCLUDED.avatar_url, words = EXCLUDED.words
        """,
        rows,
    )


def _follow(txn: Transaction, after: int, until: int, server_name: str, limit: int) -> int:
    reached, user_ids = _changed_members(txn, after, until, server_name, limit)
    changes = _standing_of(txn, user_ids) if user_ids else []
    staying = [change.user for change in changes if change.in_rooms]
    if staying:
        put(txn, staying)
    gone = [change.user.user_id for change in changes if not change.in_rooms]
    if gone:
        txn.execute("DELETE FROM user_directory WHERE user_id = ANY(%s)", (gone,))
    keep_follower_position(txn, _FOLLOWER, reached)
    return reached


def _changed_members(
    txn: Transaction, position: int, until: int, server_name: str, limit: int
) -> tuple[int, list[str]]:
    """Other servers' users whose membership of a room changed, and the position up to which they are complete.

    The page ends behind the position of its last row: what happened at one position is never cut in two. Of a room that
    this server has entered, m.room.create takes its own place; all of its members are new then, and have no rows.
    Of a room that the last user of this server has left, all members are among them, too.
    """
    txn.execute(
        f"""
        WITH page AS (
            SELECT max(stream_ordering) AS ends, count(*) AS rows FROM (
                SELECT stream_ordering FROM current_state_deltas
                WHERE stream_ordering > %(after)s AND stream_ordering <= %(until)s AND type = 'm.room.member'
                ORDER BY stream_ordering LIMIT %(limit)s
            ) taken
        )
        SELECT CASE WHEN page.rows < %(limit)s THEN %(until)s ELSE page.ends END, (
            SELECT array_agg(DISTINCT changed.state_key) FROM (
                SELECT d.state_key FROM current_state_deltas d
                WHERE d.stream_ordering > %(after)s AND d.stream_ordering <= page.ends AND d.type = 'm.room.member'
                UNION ALL
                SELECT c.state_key FROM current_state_deltas d
                JOIN current_state c ON c.room_id = d.room_id AND c.type = 'm.room.member'
                WHERE d.stream_ordering > %(after)s AND d.stream_ordering <= page.ends AND d.type = 'm.room.create'
                AND d.event_id = d.prev_event_id
                UNION ALL
                SELECT c.state_key FROM current_state_deltas d
                JOIN current_state c ON c.room_id = d.room_id AND c.type = 'm.room.member'
                WHERE d.stream_ordering > %(after)s AND d.stream_ordering <= page.ends AND d.type = 'm.room.member'
                AND right(d.state_key, %(length)s) = %(suffix)s AND NOT {_HERE.format(room="d")}
            ) changed WHERE right(changed.state_key, %(length)s) <> %(suffix)s
        ) FROM page
        """,
        {
            "after": position,
            "until": until,
            "limit": limit,
            "suffix": f":{server_name}",
            "length": len(server_name) + 1,
        },
    )
    reached, user_ids = txn.one()
    return int(reached), user_ids or []


def _standing_of(txn: Transaction, user_ids: list[str]) -> list[MemberChange]:
    """The latest name that each joined a room under, and whether they are in any room with somebody of this server."""
    txn.execute(
        f"""
        SELECT w.user_id, m.display_name, m.avatar_url, m.user_id IS NOT NULL
        FROM unnest(%s) AS w (user_id) LEFT JOIN LATERAL (
            SELECT m.user_id, m.display_name, m.avatar_url FROM current_state c JOIN memberships m USING (event_id)
            WHERE c.type = 'm.room.member' AND c.state_key = w.user_id AND c.membership = 'join'
            AND {_HERE.format(room="c")}
            ORDER BY c.stream_ordering DESC LIMIT 1
        ) m ON true
        """,
        (user_ids,),
    )
    return [MemberChange(DirectoryUser(*row[:3]), row[3]) for row in txn.rows()]
