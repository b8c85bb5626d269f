"""Tokens of `m.login.token`: whose they are, until somebody logs in with them or their time is over.

Only the SHA-256 of a token is stored. Making and checking them is `synapse.handlers.login_tokens`' matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class LoginToken(NamedTuple):
    """A token as it is kept. `expires_ts` is milliseconds; the provider is the one that the user logged in by, if any.

    `provider_session` is what the provider calls the session at its side.
    """

    token_hash: bytes
    user_id: str
    expires_ts: int
    auth_provider: str | None = None
    provider_session: str | None = None


class LoginTokenStore:
    """Written and taken in whichever process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, token: LoginToken, now: int) -> None:
        """Stores a new token and, while at it, drops those that have expired at `now` (milliseconds)."""
        await self._db.write_idempotent("login_tokens.add", _add, token, now)

    async def take(self, token_hash: bytes, now: int) -> LoginToken | None:
        """The token, which is gone then: of all who ask, one gets it. None if there is none, or it has expired."""
        return await self._db.write("login_tokens.take", _take, token_hash, now)


def _add(txn: Transaction, token: LoginToken, now: int) -> None:
    txn.later("DELETE FROM login_tokens WHERE expires_ts <= %s", (now,))
    txn.execute(
        """
        INSERT INTO login_tokens (token_hash, user_id, expires_ts, auth_provider, provider_session)
        VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
        """,
        token,
    )


def _take(txn: Transaction, token_hash: bytes, now: int) -> LoginToken | None:
    txn.execute(
        """
        DELETE FROM login_tokens WHERE token_hash = %s
        RETURNING token_hash, user_id, expires_ts, auth_provider, provider_session
        """,
        (token_hash,),
    )
    row = txn.one_or_none()
    if row is None or row[2] <= now:
        return None
    return LoginToken(bytes(row[0]), *row[1:])
