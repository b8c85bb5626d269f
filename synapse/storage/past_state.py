"""Reading what the state of rooms was at a position of the events stream, for many rooms at once.

`current_state` says what a room is now and `current_state_deltas` how it came to be so. The state at an earlier
position is the present state with the changes since then undone: for each entry, what the first change after the
position replaced. So a client is told the state at exactly the position that its token names, although the room moves
on while we read.

For the state at an event of the past, which needs the event graph, see the state readers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from synapse.api.constants import EventTypes
from synapse.storage.timeline import COLUMNS, TimelineRow

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

Entry = tuple[str, str, str]
"""(room id, event type, state key)."""


class Delta(NamedTuple):
    """A change of one entry of a room's current state; `event_id` is None where the entry went away."""

    stream: int
    room_id: str
    type: str
    state_key: str
    event_id: str | None
    prev_event_id: str | None

    @property
    def entry(self) -> Entry:
        return (self.room_id, self.type, self.state_key)

    @property
    def is_entry(self) -> bool:
        """Whether this server came into the room, which it had left or never been in: everything is new then."""
        return self.type == EventTypes.CREATE and self.event_id is not None and self.event_id == self.prev_event_id

    def is_membership_of(self, user_id: str) -> bool:
        return self.type == EventTypes.MEMBER and self.state_key == user_id


class Members(NamedTuple):
    """Which membership events to read: of all members (`of` None), or of these (room, user) only."""

    of: Sequence[tuple[str, str]] | None = None


ALL_MEMBERS = Members()
NO_MEMBERS = Members(())


class Summary(NamedTuple):
    """What a client needs to name a room: client-server API, `RoomSummary`. `heroes` only where there is no name."""

    room_id: str
    joined: int
    invited: int
    heroes: list[str] | None


class PastStateStore:
    """Reads rooms' states by stream position, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def current(
        self, room_ids: Sequence[str], members: Members = ALL_MEMBERS, types: Sequence[str] | None = None
    ) -> list[tuple[int, TimelineRow]]:
        """The present state of all the rooms: for each entry since when it holds, and its event. One statement.

        `types` leaves everything else out, except the members that `members` names.
        """
        return await self._db.read("past_state.current", _current, list(room_ids), members, types) if room_ids else []

    async def deltas(self, after: Mapping[str, int], until: int) -> list[Delta]:
        """The changes of each room after its position and up to `until`, oldest first. One statement."""
        return await self._db.read("past_state.deltas", _deltas, dict(after), until) if after else []

    async def events(self, event_ids: Iterable[str]) -> dict[str, TimelineRow]:
        """State events by id, outliers included. One statement."""
        wanted = list(event_ids)
        return await self._db.read("past_state.events", _events, wanted) if wanted else {}

    async def entries(self, keys: Sequence[Entry]) -> dict[Entry, TimelineRow]:
        """Single entries of the present state. One statement."""
        return {entry: row for entry, (_, row) in (await self.dated_entries(keys)).items()}

    async def dated_entries(self, keys: Sequence[Entry]) -> dict[Entry, tuple[int, TimelineRow]]:
        """The same, each with the position since which it holds."""
        return await self._db.read("past_state.entries", _entries, keys) if keys else {}

    async def summaries(self, room_ids: Sequence[str], user_id: str, members: Sequence[Delta] = ()) -> list[Summary]:
        """How `user_id` may call the rooms, and those in which one of the changes `members` made a membership another.

        One statement.
        """
        if not room_ids and not members:
            return []
        return await self._db.read("past_state.summaries", _summaries, list(room_ids), user_id, members)


def _current(
    txn: Transaction, room_ids: list[str], members: Members, types: Sequence[str] | None
) -> list[tuple[int, TimelineRow]]:
    conditions: list[str] = []
    params: list[object] = [room_ids]
    if members.of is not None:
        conditions.append("cs.type <> %s")
        params.append(EventTypes.MEMBER)
    if types is not None:
        conditions.append("cs.type = ANY(%s)")
        params.append(list(types))
    sql = f"""
        SELECT cs.stream_ordering, {COLUMNS} FROM current_state cs JOIN events e ON e.event_id = cs.event_id
        WHERE cs.room_id = ANY(%s) {"".join(f" AND {condition}" for condition in conditions)}
    """
    if members.of:
        sql += f"""
        UNION ALL SELECT cs.stream_ordering, {COLUMNS}
        FROM unnest(%s::text[], %s::text[]) AS m (room_id, user_id)
        JOIN current_state cs ON (cs.room_id, cs.type, cs.state_key) = (m.room_id, 'm.room.member', m.user_id)
        JOIN events e ON e.event_id = cs.event_id
        """
        params += map(list, zip(*members.of, strict=True))
    txn.planned(sql, tuple(params))
    return [(row[0], TimelineRow._make(row[1:])) for row in txn.rows()]


def _deltas(txn: Transaction, after: dict[str, int], until: int) -> list[Delta]:
    txn.planned(
        """
        SELECT d.stream_ordering, d.room_id, d.type, d.state_key, d.event_id, d.prev_event_id
        FROM unnest(%s::text[], %s::bigint[]) AS w (room_id, after)
        JOIN current_state_deltas d ON d.room_id = w.room_id AND d.stream_ordering > w.after AND d.stream_ordering <= %s
        ORDER BY d.stream_ordering
        """,
        (list(after), list(after.values()), until),
    )
    return [Delta._make(row) for row in txn.rows()]


def _events(txn: Transaction, event_ids: list[str]) -> dict[str, TimelineRow]:
    txn.planned(f"SELECT {COLUMNS} FROM events e WHERE e.event_id = ANY(%s) AND e.rejected IS NULL", (event_ids,))
    return {row.event_id: row for row in map(TimelineRow._make, txn.rows())}


def _entries(txn: Transaction, keys: Sequence[Entry]) -> dict[Entry, tuple[int, TimelineRow]]:
    txn.planned(
        f"""
        SELECT cs.stream_ordering, {COLUMNS}
        FROM unnest(%s::text[], %s::text[], %s::text[]) AS k (room_id, type, state_key)
        JOIN current_state cs USING (room_id, type, state_key) JOIN events e ON e.event_id = cs.event_id
        """,
        tuple(map(list, zip(*keys, strict=True))),
    )
    rows = [(since, TimelineRow._make(columns)) for since, *columns in txn.rows()]
    return {(row.room_id, row.type, row.state_key or ""): (since, row) for since, row in rows}


# A new display name makes a membership the newest, so that others of many members may come to be the first.
_CHANGED = """
    UNION SELECT c.room_id FROM unnest(%s::text[], %s::text[], %s::text[]) AS c (room_id, before, after)
    LEFT JOIN memberships b ON b.event_id = c.before LEFT JOIN memberships a ON a.event_id = c.after
    LEFT JOIN room_stats s ON s.room_id = c.room_id
    WHERE a.membership IS DISTINCT FROM b.membership OR (
        s.joined_members + s.invited_members > 6 AND COALESCE(s.name, '') = '' AND COALESCE(s.canonical_alias, '') = ''
    )
"""


def _summaries(txn: Transaction, room_ids: list[str], user_id: str, members: Sequence[Delta]) -> list[Summary]:
    changes = [[d.room_id for d in members], [d.prev_event_id for d in members], [d.event_id for d in members]]
    # Those who have left come after those who are here, and stand for the room only if nobody is.
    txn.planned(
        f"""
        SELECT r.room_id, COALESCE(s.joined_members, 0), COALESCE(s.invited_members, 0), h.heroes
        FROM (SELECT unnest(%s::text[]) AS room_id {_CHANGED if members else ""}) AS r
        LEFT JOIN room_stats s USING (room_id)
        LEFT JOIN LATERAL (
            SELECT COALESCE(
                array_agg(first.state_key ORDER BY first.stream_ordering) FILTER (WHERE first.here),
                array_agg(first.state_key ORDER BY first.stream_ordering), '{{}}'
            ) AS heroes FROM (
                SELECT cs.state_key, cs.stream_ordering, cs.membership IN ('join', 'invite') AS here
                FROM current_state cs
                WHERE cs.room_id = r.room_id AND cs.type = 'm.room.member' AND cs.state_key <> %s
                  AND cs.membership <> 'knock' AND COALESCE(s.name, '') = '' AND COALESCE(s.canonical_alias, '') = ''
                ORDER BY here DESC, cs.stream_ordering LIMIT 5
            ) AS first
        ) h ON COALESCE(s.name, '') = '' AND COALESCE(s.canonical_alias, '') = ''
        """,
        (room_ids, *(changes if members else ()), user_id),
    )
    return [Summary._make(row) for row in txn.rows()]
