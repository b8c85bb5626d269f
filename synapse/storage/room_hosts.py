"""Which servers are in which rooms: those of the joined members of the rooms' present state. And which have been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction
    from synapse.storage.served_events import ServedEvent

_LATEST: Final = 1_000
"""Of so many users of a server, those whose memberships changed last, it is asked when they left."""


class HostCounts(NamedTuple):
    """How many joined members of a room each server has, after the change of its state at `position`."""

    counts: dict[str, int]
    position: int


class RoomsOfServer(NamedTuple):
    """Rooms that somebody of a server is joined to, and those that somebody of it is invited to."""

    joined: frozenset[str]
    invited: frozenset[str]


class Departure(NamedTuple):
    """How a server's last user left a room: by that event (None: by none that is here), of that depth, which became
    part of the room's present state at `position`."""

    position: int
    event_id: str | None
    depth: int

    def comes_after(self, event: ServedEvent) -> bool:
        """Whether the event is the departure itself, or was here before it.

        Positions of states and history that were fetched say nothing of when that was: then the depth decides.
        """
        if event.event_id == self.event_id:
            return True
        return event.stream < self.position and (event.stream > 0 or event.depth < self.depth)


class RoomHostsStore:
    """Counts servers, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def joined(self, room_ids: Sequence[str]) -> dict[str, HostCounts]:
        """The servers of each of the rooms that this server knows."""
        return await self._db.read("room_hosts.joined", _joined, list(room_ids)) if room_ids else {}

    async def among(self, server_name: str, room_ids: Sequence[str]) -> RoomsOfServer:
        """Those of the rooms that somebody of the server is joined or invited to."""
        if not room_ids:
            return RoomsOfServer(frozenset(), frozenset())
        return await self._db.read("room_hosts.among", _among, server_name, list(room_ids))

    async def is_joined(self, server_name: str, room_id: str) -> bool:
        """Whether somebody of the server is joined to the room."""
        return await self._db.read("room_hosts.is_joined", _is_joined, server_name, room_id)

    async def departure(self, server_name: str, room_id: str) -> Departure | None:
        """How the last of the server's users left the room that it is not in any more; None where none ever was in it,
        as far as this server knows."""
        return await self._db.read("room_hosts.departure", _departure, server_name, room_id)


# What the indexes current_state_servers, current_state_invited_servers, current_state_gone are made of, to the letter.
_SERVER = "substr(c.state_key, strpos(c.state_key, ':') + 1)"
_MEMBER = "c.type = 'm.room.member' AND c.membership = 'join'"
_INVITED = "c.type = 'm.room.member' AND c.membership = 'invite'"
_GONE = "c.type = 'm.room.member' AND c.membership <> 'join'"


def _joined(txn: Transaction, room_ids: list[str]) -> dict[str, HostCounts]:
    # The position comes with the counts: what the stream tells up to it is in them.
    txn.execute(
        f"""
        SELECT w.room_id, h.state_ordering, {_SERVER}, count(c.state_key)
        FROM unnest(%s::text[]) AS w (room_id) JOIN room_heads h USING (room_id)
        LEFT JOIN current_state c ON c.room_id = w.room_id AND {_MEMBER}
        GROUP BY 1, 2, 3
        """,
        (room_ids,),
    )
    found: dict[str, HostCounts] = {}
    for room_id, position, server_name, count in txn.rows():
        room = found.setdefault(room_id, HostCounts({}, position))
        if server_name is not None:
            room.counts[server_name] = count
    return found


def _among(txn: Transaction, server_name: str, room_ids: list[str]) -> RoomsOfServer:
    txn.execute(
        f"""
        SELECT c.room_id, true FROM current_state c WHERE {_MEMBER} AND {_SERVER} = %s AND c.room_id = ANY(%s)
        UNION SELECT c.room_id, false FROM current_state c WHERE {_INVITED} AND {_SERVER} = %s AND c.room_id = ANY(%s)
        """,
        (server_name, room_ids, server_name, room_ids),
    )
    rooms: dict[bool, set[str]] = {True: set(), False: set()}
    for room_id, is_joined in txn.rows():
        rooms[is_joined].add(room_id)
    return RoomsOfServer(frozenset(rooms[True]), frozenset(rooms[False]))


def _is_joined(txn: Transaction, server_name: str, room_id: str) -> bool:
    txn.execute(
        f"SELECT EXISTS (SELECT FROM current_state c WHERE {_MEMBER} AND {_SERVER} = %s AND c.room_id = %s)",
        (server_name, room_id),
    )
    return bool(txn.one()[0])


def _departure(txn: Transaction, server_name: str, room_id: str) -> Departure | None:
    # Of somebody who is not joined now, the last change of a join is how they left.
    txn.execute(
        f"""
        SELECT d.stream_ordering, d.event_id, coalesce(e.depth, 0) FROM (
            SELECT c.state_key FROM current_state c WHERE {_GONE} AND {_SERVER} = %s AND c.room_id = %s
            ORDER BY c.stream_ordering DESC LIMIT %s
        ) u CROSS JOIN LATERAL (
            SELECT d.stream_ordering, d.event_id FROM current_state_deltas d
            JOIN memberships m ON m.event_id = d.prev_event_id AND m.membership = 'join'
            WHERE d.type = 'm.room.member' AND d.state_key = u.state_key AND d.room_id = %s
            ORDER BY d.stream_ordering DESC LIMIT 1
        ) d LEFT JOIN events e ON e.event_id = d.event_id
        ORDER BY d.stream_ordering DESC LIMIT 1
        """,
        (server_name, room_id, _LATEST, room_id),
    )
    row = txn.one_or_none()
    return None if row is None else Departure._make(row)
