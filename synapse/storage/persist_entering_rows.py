"""The rows by which this server enters a room that others have: its state as a whole, in few statements however many
members it has. Part of the one transaction of `synapse.storage.persist_rows`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.events.event import StateKey
    from synapse.storage.transaction import Transaction


class KnownRoom(NamedTuple):
    """A room that others have made. `creator` is None as long as the room's first event is not known."""

    room_id: str
    version: str
    creator: str | None
    known_since: int


class Entered(NamedTuple):
    """A room that the server enters: the entries of its present state that are not what they were."""

    room_id: str
    position: int
    entries: Mapping[StateKey, str]


def write_known_rooms(txn: Transaction, rooms: Mapping[str, KnownRoom]) -> None:
    """Rooms, unless they are known. Of one that the server has not been in, the last who speaks of it is believed."""
    txn.values(_KNOWN_ROOMS, rooms.values(), later=True)


def write_entered(txn: Transaction, entered: Iterable[Entered]) -> None:
    """The present state of rooms, and how many members they have."""
    for room_id, position, entries in entered:
        types, keys = zip(*entries, strict=True)
        txn.later(_ENTRIES, (room_id, position, list(types), list(keys), list(entries.values())))
        txn.later(_COUNTS, (room_id, room_id))


_KNOWN_ROOMS: Final = """
    INSERT INTO rooms (room_id, room_version, creator, created_ts) VALUES %s
    ON CONFLICT (room_id) DO UPDATE
    SET room_version = excluded.room_version, creator = COALESCE(rooms.creator, excluded.creator)
    WHERE (rooms.room_version <> excluded.room_version OR rooms.creator IS NULL AND excluded.creator IS NOT NULL)
        AND NOT EXISTS (SELECT FROM room_heads h WHERE h.room_id = rooms.room_id)
"""
_ENTRIES: Final = """
    INSERT INTO current_state (room_id, type, state_key, event_id, membership, stream_ordering)
    SELECT at.room_id, n.type, n.state_key, n.event_id, m.membership, at.position
    FROM (SELECT %s::text, %s::bigint) AS at (room_id, position)
    CROSS JOIN unnest(%s::text[], %s::text[], %s::text[]) AS n (type, state_key, event_id)
    LEFT JOIN memberships m ON n.type = 'm.room.member' AND m.event_id = n.event_id
    ON CONFLICT (room_id, type, state_key) DO UPDATE
    SET event_id = excluded.event_id, membership = excluded.membership, stream_ordering = excluded.stream_ordering
"""
_COUNTS: Final = """
    INSERT INTO room_stats (room_id, joined_members, invited_members)
    SELECT %s, count(*) FILTER (WHERE membership = 'join'), count(*) FILTER (WHERE membership = 'invite')
    FROM current_state WHERE room_id = %s AND type = 'm.room.member'
    ON CONFLICT (room_id) DO UPDATE
    SET joined_members = excluded.joined_members, invited_members = excluded.invited_members
"""
