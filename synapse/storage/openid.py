"""OpenID tokens, by which users prove to other services who they are. Only their SHA-256 is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class OpenIdStore:
    """Reads and writes tokens; times are milliseconds."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, user_id: str, token_hash: bytes, expires_ts: int, now: int, keep: int) -> None:
        """Stores a token, and drops those of the user that have expired or are more than the newest `keep`."""
        await self._db.write("openid.add", _add, user_id, token_hash, expires_ts, now, keep)

    async def owner(self, token_hash: bytes, now: int) -> str | None:
        """Whose token it is, if it has not expired, and neither is its owner locked out."""
        return await self._db.read("openid.owner", _owner, token_hash, now)

    async def forget(self, now: int) -> None:
        """Drops what has expired."""
        await self._db.write_idempotent("openid.forget", _forget, now)


def _add(txn: Transaction, user_id: str, token_hash: bytes, expires_ts: int, now: int, keep: int) -> None:
    txn.execute(
        """
        DELETE FROM openid_tokens WHERE user_id = %s AND (expires_ts <= %s OR token_hash IN (
            SELECT token_hash FROM openid_tokens WHERE user_id = %s ORDER BY expires_ts DESC OFFSET %s
        ))
        """,
        (user_id, now, user_id, keep - 1),
    )
    txn.execute(
        "INSERT INTO openid_tokens (token_hash, user_id, expires_ts) VALUES (%s, %s, %s)",
        (token_hash, user_id, expires_ts),
    )


def _owner(txn: Transaction, token_hash: bytes, now: int) -> str | None:
    txn.execute(
        """
        SELECT o.user_id FROM openid_tokens o JOIN users u USING (user_id)
        WHERE o.token_hash = %s AND o.expires_ts > %s AND NOT u.deactivated AND NOT u.locked
        """,
        (token_hash, now),
    )
    row = txn.one_or_none()
    return None if row is None else str(row[0])


def _forget(txn: Transaction, now: int) -> None:
    txn.execute("DELETE FROM openid_tokens WHERE expires_ts <= %s", (now,))
