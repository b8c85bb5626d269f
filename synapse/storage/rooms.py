"""Rooms as the server's directory knows them: whether they are listed, and what lists show of them.

The rows are made with the rooms, and room_stats is kept while events are written (`synapse.storage.persist_derived`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Room(NamedTuple):
    """A room that this server knows."""

    room_id: str
    creator: str | None
    room_version: str
    is_public: bool


class ListedRoom(NamedTuple):
    """What a list of rooms shows of one."""

    room_id: str
    name: str | None
    topic: str | None
    canonical_alias: str | None
    avatar_url: str | None
    join_rules: str | None
    history_visibility: str | None
    guest_access: str | None
    room_type: str | None
    joined_members: int


class KnownRoom(NamedTuple):
    """What a summary tells of a room besides, and what decides about who may read it.

    `restricted` is the event with the join rules, as JSON, where these name rooms whose members may join; `allowed` are
    these rooms, where another server has told of the room, which may also leave out the version. `is_here`: somebody of
    this server is in it, so that what is known of it is true. `federates`: users of other servers than the one that
    made it may take part.
    """

    listed: ListedRoom
    room_version: str | None
    encryption: str | None
    restricted: str | None
    allowed: tuple[str, ...] = ()
    is_here: bool = False
    federates: bool = True


class Search(NamedTuple):
    """Which listed rooms are wanted: all whose name, topic or alias contains `term`, ignoring case; of these types
    (None among them being rooms without a type), if any are named; `for_others`: that federate (`m.federate`)."""

    term: str | None = None
    room_types: Collection[str | None] | None = None
    for_others: bool = False


class Place(NamedTuple):
    """A place in the list of rooms, which begins with the largest: that of the room of this id and number of
    members."""

    joined_members: int
    room_id: str


class RoomsStore:
    """Reads and lists rooms, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, room_id: str) -> Room | None:
        """The room, if the server knows it."""
        return await self._db.read("rooms.get", _get, room_id)

    async def set_public(self, room_id: str, is_public: bool) -> None:
        """List the room in the directory, or no longer."""
        await self._db.write_idempotent("rooms.set_public", _set_public, room_id, is_public)

    async def listed(
        self, search: Search, limit: int, *, after: Place | None = None, before: Place | None = None
    ) -> list[ListedRoom]:
        """Listed rooms, the largest first: at most `limit`, the first after a place or the last before one."""
        return await self._db.read("rooms.listed", _listed, search, limit, after, before)

    async def known(self, room_ids: Collection[str]) -> dict[str, KnownRoom]:
        """Those of the rooms that the server knows, listed or not."""
        return await self._db.read("rooms.known", _known, list(room_ids)) if room_ids else {}

    async def count_listed(self, search: Search) -> int:
        """How many there are in all."""
        return await self._db.read("rooms.count_listed", _count_listed, search)


_LISTED = (
    "s.room_id, s.name, s.topic, s.canonical_alias, s.avatar_url, s.join_rules, s.history_visibility, "
    "s.guest_access, s.room_type, s.joined_members"
)


_FEDERATES = """NOT EXISTS (
    SELECT FROM current_state f JOIN events m ON m.event_id = f.event_id
    WHERE (f.room_id, f.type, f.state_key) = (r.room_id, 'm.room.create', '')
      AND (m.json::json -> 'content' -> 'm.federate')::text = 'false'
)"""


def _get(txn: Transaction, room_id: str) -> Room | None:
    txn.execute("SELECT room_id, creator, room_version, is_public FROM rooms WHERE room_id = %s", (room_id,))
    row = txn.one_or_none()
    return None if row is None else Room(*row)


def _set_public(txn: Transaction, room_id: str, is_public: bool) -> None:
    txn.execute("UPDATE rooms SET is_public = %s WHERE room_id = %s", (is_public, room_id))


def _in_any_case(term: str) -> str:
    """A regular expression for a text in whatever case. (In a database of the locale C, PostgreSQL knows no other
    letters than those of ASCII, so ILIKE would not do.)"""
    forms = ({char, *(form for form in (char.lower(), char.upper()) if len(form) == 1)} for char in term)
    return "".join("[" + "".join(f"\\{c}" if c in "[]^-\\" else c for c in sorted(form)) + "]" for form in forms)


def _conditions(search: Search) -> tuple[str, list[object]]:
    sql = "r.is_public"
    params: list[object] = []
    if search.term:
        sql += " AND (s.name ~ %s OR s.topic ~ %s OR s.canonical_alias ~ %s)"
        params += [_in_any_case(search.term)] * 3
    if search.room_types is not None:
        sql += " AND (s.room_type = ANY(%s) OR (s.room_type IS NULL AND %s))"
        params += [[kind for kind in search.room_types if kind is not None], None in search.room_types]
    if search.for_others:
        sql += f" AND {_FEDERATES}"
    return sql, params


def _listed(
    txn: Transaction, search: Search, limit: int, after: Place | None, before: Place | None
) -> list[ListedRoom]:
    condition, params = _conditions(search)
    for place, comparison in ((after, "<"), (before, ">")):
        if place is not None:
            condition += f" AND (s.joined_members, s.room_id) {comparison} (%s, %s)"
            params += place
    order = "DESC" if before is None else "ASC"
    txn.execute(
        f"""
        SELECT {_LISTED} FROM rooms r JOIN room_stats s USING (room_id) WHERE {condition}
        ORDER BY s.joined_members {order}, s.room_id {order} LIMIT %s
        """,
        [*params, limit],
    )
    rooms = [ListedRoom(*row) for row in txn.rows()]
    return rooms if before is None else rooms[::-1]


def _known(txn: Transaction, room_ids: list[str]) -> dict[str, KnownRoom]:
    txn.execute(
        f"""
        SELECT {_LISTED}, r.room_version, s.encryption, e.json, EXISTS (
            SELECT FROM local_memberships l WHERE l.room_id = r.room_id AND l.membership = 'join'
        ), {_FEDERATES} FROM rooms r JOIN room_stats s USING (room_id)
        LEFT JOIN current_state c ON (c.room_id, c.type, c.state_key) = (s.room_id, 'm.room.join_rules', '')
          AND s.join_rules IN ('restricted', 'knock_restricted')
        LEFT JOIN events e ON e.event_id = c.event_id
        WHERE r.room_id = ANY(%s)
        """,
        (room_ids,),
    )
    return {
        row[0]: KnownRoom(ListedRoom._make(row[:-5]), row[-5], row[-4], row[-3], is_here=row[-2], federates=row[-1])
        for row in txn.rows()
    }


def _count_listed(txn: Transaction, search: Search) -> int:
    condition, params = _conditions(search)
    txn.execute(f"SELECT count(*) FROM rooms r JOIN room_stats s USING (room_id) WHERE {condition}", params)
    count: int = txn.one()[0]
    return count
