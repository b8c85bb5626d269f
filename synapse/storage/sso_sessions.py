"""Log-ins by single sign-on that are under way, in the database because their steps may land on different processes.

Neither a session's id nor the secret of the browser that it belongs to is stored, but their SHA-256. What a session
holds is `synapse.handlers.sso.sessions`' matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class SsoSessionStore:
    """Written and taken in whichever process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(self, session: bytes, browser: bytes, content: str, expires_ts: int, now: int) -> None:
        """Stores a session (JSON text), in place of an earlier one of that id and browser; drops expired ones."""
        await self._db.write_idempotent("sso_sessions.put", _put, session, browser, content, expires_ts, now)

    async def get(self, session: bytes, browser: bytes, now: int) -> str | None:
        """None if there is none, it is another browser's, or it has expired."""
        return await self._db.read("sso_sessions.get", _get, session, browser, now)

    async def take(self, session: bytes, browser: bytes, now: int) -> str | None:
        """Like `get`, and the session is gone: of all who ask, one gets it."""
        return await self._db.write("sso_sessions.take", _take, session, browser, now)


def _put(txn: Transaction, session: bytes, browser: bytes, content: str, expires_ts: int, now: int) -> None:
    txn.later("DELETE FROM sso_sessions WHERE expires_ts <= %s", (now,))
    txn.execute(
        """
        INSERT INTO sso_sessions (session_hash, browser_hash, expires_ts, content) VALUES (%s, %s, %s, %s)
        ON CONFLICT (session_hash, browser_hash)
        DO UPDATE SET expires_ts = EXCLUDED.expires_ts, content = EXCLUDED.content
        """,
        (session, browser, expires_ts, content),
    )


def _get(txn: Transaction, session: bytes, browser: bytes, now: int) -> str | None:
    txn.execute(
        "SELECT content FROM sso_sessions WHERE session_hash = %s AND browser_hash = %s AND expires_ts > %s",
        (session, browser, now),
    )
    row = txn.one_or_none()
    return None if row is None else row[0]


def _take(txn: Transaction, session: bytes, browser: bytes, now: int) -> str | None:
    txn.execute(
        """
        DELETE FROM sso_sessions WHERE session_hash = %s AND browser_hash = %s AND expires_ts > %s RETURNING content
        """,
        (session, browser, now),
    )
    row = txn.one_or_none()
    return None if row is None else row[0]
