"""In which rooms this server tells its users something, and what it has told them already."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from synapse.storage.database import Database, Transaction


class ServerNoticesStore:
    """Read in any process, written in the main process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def room_of(self, user_id: str) -> str | None:
        """The room with that user."""
        return await self._db.read("server_notices.room_of", _room_of, user_id)

    async def set_room(self, user_id: str, room_id: str) -> None:
        """There is a room with that user now."""
        await self._db.write_idempotent("server_notices.set_room", _set_room, user_id, room_id)

    async def to_ask_for_consent(self, among: Collection[str], version: str, guests: bool) -> list[str]:
        """Those of the users who have neither agreed to the version of the policy nor been asked to."""
        return await self._db.read("server_notices.to_ask", _to_ask, list(among), version, guests)

    async def asked_for_consent(self, user_id: str, version: str) -> None:
        """The user has been asked to agree to the version of the policy."""
        await self._db.write_idempotent("server_notices.asked", _asked, user_id, version)

    async def to_tell_of_limit(self, most: int) -> list[str]:
        """Active users who have not been told that the server is at its limit."""
        return await self._db.read("server_notices.to_tell", _to_tell, most)

    async def told_of_limit(self, most: int) -> list[str]:
        """Users who have been told that, and for whom it holds still."""
        return await self._db.read("server_notices.told", _told, most)

    async def set_told_of_limit(self, user_id: str, event_id: str | None) -> None:
        """The user has been told by this event ("": could not be told); None: it does not hold any more."""
        await self._db.write_idempotent("server_notices.set_told", _set_told, user_id, event_id)


def _room_of(txn: Transaction, user_id: str) -> str | None:
    txn.execute("SELECT room_id FROM server_notice_rooms WHERE user_id = %s", (user_id,))
    row = txn.one_or_none()
    return None if row is None else str(row[0])


def _set_room(txn: Transaction, user_id: str, room_id: str) -> None:
    txn.execute(
        """
        INSERT INTO server_notice_rooms (user_id, room_id) VALUES (%s, %s)
        ON CONFLICT (user_id) DO UPDATE SET room_id = EXCLUDED.room_id, limit_event_id = NULL
        """,
        (user_id, room_id),
    )


def _to_ask(txn: Transaction, user_ids: list[str], version: str, guests: bool) -> list[str]:
    txn.execute(
        """
        SELECT user_id FROM users
        WHERE user_id = ANY(%s) AND NOT deactivated AND (NOT is_guest OR %s) AND user_type IS NULL
            AND app_service_id IS NULL
            AND consent_version IS DISTINCT FROM %s AND consent_notice_sent IS DISTINCT FROM %s
        """,
        (user_ids, guests, version, version),
    )
    return [user_id for (user_id,) in txn.rows()]


def _asked(txn: Transaction, user_id: str, version: str) -> None:
    txn.execute("UPDATE users SET consent_notice_sent = %s WHERE user_id = %s", (version, user_id))


def _to_tell(txn: Transaction, most: int) -> list[str]:
    txn.execute(
        """
        SELECT m.user_id FROM monthly_active_users m LEFT JOIN server_notice_rooms r USING (user_id)
        WHERE r.limit_event_id IS NULL ORDER BY m.user_id LIMIT %s
        """,
        (most,),
    )
    return [user_id for (user_id,) in txn.rows()]


def _told(txn: Transaction, most: int) -> list[str]:
    txn.execute(
        "SELECT user_id FROM server_notice_rooms WHERE limit_event_id IS NOT NULL ORDER BY user_id LIMIT %s", (most,)
    )
    return [user_id for (user_id,) in txn.rows()]


def _set_told(txn: Transaction, user_id: str, event_id: str | None) -> None:
    txn.execute("UPDATE server_notice_rooms SET limit_event_id = %s WHERE user_id = %s", (event_id, user_id))
