"""Who stands where in which room: questions about memberships, and forgetting rooms.

Memberships are written with the events that they come from (`synapse.storage.persist_rows`); forgetting is the one
thing that a user does to a membership without an event.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, NamedTuple

from synapse.api.constants import EventTypes, Membership

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class LocalMembership(NamedTuple):
    """Where a user of this server stands with a room."""

    room_id: str
    membership: str
    sender: str
    event_id: str
    stream_ordering: int
    forgotten: bool


class LocalMember(NamedTuple):
    """A user of this server, and the event by which it stands where it stands with a room."""

    user_id: str
    event_id: str


class MembershipsStore:
    """Reads memberships, in any process. One statement each."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_user(self, user_id: str, room_id: str) -> LocalMembership | None:
        """Where a user of this server stands with a room."""
        return await self._db.read("memberships.of_user", _of_user, user_id, room_id)

    async def local(self, room_id: str) -> dict[str, str]:
        """The membership events by which users of this server stand with a room."""
        return await self._db.read("memberships.local", _local, room_id)

    async def rooms_of(self, user_id: str, memberships: Collection[str]) -> list[LocalMembership]:
        """The rooms in which a user of this server has one of these memberships, and which it has not forgotten."""
        return await self._db.read("memberships.rooms_of", _rooms_of, user_id, memberships)

    async def waiting_in(self, room_ids: Collection[str]) -> dict[str, list[LocalMember]]:
        """By room, the users of this server who are invited to it, or have knocked; some hundreds at most."""
        return await self._db.read("memberships.waiting_in", _waiting_in, list(room_ids))

    async def entered(self, room_ids: Collection[str]) -> dict[str, str]:
        """The versions of those of the rooms that a user of this server is joined to."""
        return await self._db.read("memberships.entered", _entered, list(room_ids))

    async def joined_any(self, user_id: str, room_ids: Iterable[str]) -> bool:
        """Whether a user of this server has joined any of the rooms."""
        return await self._db.read("memberships.joined_any", _joined_any, user_id, list(room_ids))

    async def other_joined_any(self, user_id: str, room_ids: Iterable[str]) -> bool:
        """Whether another server's user has joined any of those rooms that this server takes part in."""
        return await self._db.read("memberships.other_joined_any", _other_joined_any, user_id, list(room_ids))

    async def any_here(self, room_ids: Iterable[str]) -> bool:
        """Whether this server takes part in any of the rooms."""
        return await self._db.read("memberships.any_here", _any_here, list(room_ids))

    async def joined_of_server(self, room_id: str, server_name: str) -> str | None:
        """Somebody of that server who is in the room."""
        return await self._db.read("memberships.joined_of_server", _joined_of_server, room_id, server_name)

    async def banned(self, room_id: str, limit: int) -> list[str]:
        """The events that ban somebody from the room, the latest first."""
        return await self._db.read("memberships.banned", _banned, room_id, limit)

    async def was_seen(self, user_id: str) -> bool:
        """Whether a user, of whichever server, was ever a member of a room that this server knows."""
        return await self._db.read("memberships.was_seen", _was_seen, user_id)

    async def joined_local(self, room_id: str) -> tuple[dict[str, str | None], int]:
        """The room's joined members of this server, with their display names there; and how many there are in all."""
        return await self._db.read("memberships.joined_local", _joined_local, room_id)

    async def forget(self, user_id: str, room_id: str) -> bool:
        """The user wants to hear no more of a room. False, and nothing happens, unless it has left or is banned."""
        return await self._db.write_idempotent("memberships.forget", _forget, user_id, room_id)


def _was_seen(txn: Transaction, user_id: str) -> bool:
    txn.execute("SELECT EXISTS (SELECT FROM memberships WHERE user_id = %s)", (user_id,))
    return bool(txn.one()[0])


_COLUMNS = "room_id, membership, sender, event_id, stream_ordering, forgotten"


def _of_user(txn: Transaction, user_id: str, room_id: str) -> LocalMembership | None:
    txn.execute(f"SELECT {_COLUMNS} FROM local_memberships WHERE user_id = %s AND room_id = %s", (user_id, room_id))
    row = txn.one_or_none()
    return None if row is None else LocalMembership(*row)


def _local(txn: Transaction, room_id: str) -> dict[str, str]:
    txn.execute("SELECT user_id, event_id FROM local_memberships WHERE room_id = %s", (room_id,))
    return dict(txn.rows())


def _rooms_of(txn: Transaction, user_id: str, memberships: Collection[str]) -> list[LocalMembership]:
    txn.execute(
        f"""
        SELECT {_COLUMNS} FROM local_memberships
        WHERE user_id = %s AND membership = ANY(%s) AND NOT forgotten ORDER BY stream_ordering
        """,
        (user_id, list(memberships)),
    )
    return [LocalMembership(*row) for row in txn.rows()]


def _waiting_in(txn: Transaction, room_ids: list[str]) -> dict[str, list[LocalMember]]:
    txn.execute(
        """
        SELECT room_id, user_id, event_id FROM local_memberships WHERE room_id = ANY(%s) AND membership = ANY(%s)
        LIMIT 500
        """,
        (room_ids, [Membership.INVITE, Membership.KNOCK]),
    )
    found: dict[str, list[LocalMember]] = {}
    for room_id, user_id, event_id in txn.rows():
        found.setdefault(room_id, []).append(LocalMember(user_id, event_id))
    return found


def _entered(txn: Transaction, room_ids: list[str]) -> dict[str, str]:
    txn.execute(
        """
        SELECT room_id, room_version FROM rooms r WHERE room_id = ANY(%s) AND EXISTS (
            SELECT FROM local_memberships l WHERE l.room_id = r.room_id AND l.membership = %s
        )
        """,
        (room_ids, Membership.JOIN),
    )
    return dict(txn.rows())


def _joined_any(txn: Transaction, user_id: str, room_ids: list[str]) -> bool:
    txn.execute(
        "SELECT 1 FROM local_memberships WHERE user_id = %s AND membership = %s AND room_id = ANY(%s) LIMIT 1",
        (user_id, Membership.JOIN, room_ids),
    )
    return txn.one_or_none() is not None


def _other_joined_any(txn: Transaction, user_id: str, room_ids: list[str]) -> bool:
    txn.execute(
        """
        SELECT 1 FROM current_state c WHERE c.room_id = ANY(%s) AND c.type = %s AND c.state_key = %s
            AND c.membership = %s
            AND EXISTS (SELECT FROM local_memberships l WHERE l.room_id = c.room_id AND l.membership = %s)
        LIMIT 1
        """,
        (room_ids, EventTypes.MEMBER, user_id, Membership.JOIN, Membership.JOIN),
    )
    return txn.one_or_none() is not None


def _any_here(txn: Transaction, room_ids: list[str]) -> bool:
    txn.execute(
        "SELECT 1 FROM local_memberships WHERE membership = %s AND room_id = ANY(%s) LIMIT 1",
        (Membership.JOIN, room_ids),
    )
    return txn.one_or_none() is not None


def _joined_of_server(txn: Transaction, room_id: str, server_name: str) -> str | None:
    txn.execute(
        """
        SELECT state_key FROM current_state WHERE room_id = %s AND type = %s AND membership = %s
            AND right(state_key, length(%s)) = %s
        LIMIT 1
        """,
        (room_id, EventTypes.MEMBER, Membership.JOIN, f":{server_name}", f":{server_name}"),
    )
    row = txn.one_or_none()
    return None if row is None else row[0]


def _banned(txn: Transaction, room_id: str, limit: int) -> list[str]:
    txn.execute(
        """
        SELECT event_id FROM current_state WHERE room_id = %s AND type = %s AND membership = %s
        ORDER BY stream_ordering DESC LIMIT %s
        """,
        (room_id, EventTypes.MEMBER, Membership.BAN, limit),
    )
    return [event_id for (event_id,) in txn.rows()]


def _joined_local(txn: Transaction, room_id: str) -> tuple[dict[str, str | None], int]:
    txn.execute(
        """
        SELECT l.user_id, m.display_name, s.joined_members FROM room_stats s
        LEFT JOIN local_memberships l ON l.room_id = s.room_id AND l.membership = 'join'
        LEFT JOIN memberships m ON m.event_id = l.event_id
        WHERE s.room_id = %s
        """,
        (room_id,),
    )
    rows = txn.rows()
    local = {user_id: display_name for user_id, display_name, _count in rows if user_id is not None}
    return local, rows[0][2] if rows else 0


def _forget(txn: Transaction, user_id: str, room_id: str) -> bool:
    txn.execute(
        """
        UPDATE local_memberships SET forgotten = true
        WHERE user_id = %s AND room_id = %s AND membership IN ('leave', 'ban')
        """,
        (user_id, room_id),
    )
    return txn.affected > 0
