"""Registration tokens: who knows one may register, as often and as long as it says.

How often a token is in use just now ("pending") is not counted but looked up: it is in the sessions of interactive
authentication that have passed the stage and not ended. `use` counts a registration, in its transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class RegistrationToken:
    """A token; `uses_allowed` None is any number, `expiry_ts` (milliseconds) None never."""

    token: str
    uses_allowed: int | None
    expiry_ts: int | None
    completed: int = 0
    pending: int = 0

    def is_valid(self, now: int) -> bool:
        """Whether somebody may begin to register with it."""
        is_left = self.uses_allowed is None or self.completed + self.pending < self.uses_allowed
        return is_left and (self.expiry_ts is None or self.expiry_ts > now)


# The expression and the condition are those of an index.
_TOKENS = """
    SELECT token, uses_allowed, expiry_ts, registration_tokens.completed, (
        SELECT count(*) FROM ui_auth_sessions s
        WHERE (s.completed ->> 'm.login.registration_token') = token
            AND s.created_ts > %s AND NOT s.server_dict ? 'registered'
    ) FROM registration_tokens
"""


class RegistrationTokenStore:
    """Reads and writes tokens, in any process.

    `since` (milliseconds): sessions that began earlier have expired, and use no token any more.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, token: str, since: int) -> RegistrationToken | None:
        return await self._db.read("registration_tokens.get", _get, token, since)

    async def all(self, since: int) -> list[RegistrationToken]:
        return await self._db.read("registration_tokens.all", _all, since)

    async def create(self, token: RegistrationToken) -> bool:
        """False, and nothing done, if there is such a token."""
        return await self._db.write("registration_tokens.create", _create, token)

    async def update(self, token: RegistrationToken) -> None:
        """Gives a token other limits."""
        await self._db.write_idempotent("registration_tokens.update", _update, token)

    async def delete(self, token: str) -> bool:
        """False if there was none."""
        return await self._db.write("registration_tokens.delete", _delete, token)


def use(txn: Transaction, token: str) -> bool:
    """Counts a registration; False, and nothing done, if the token is gone or used up."""
    txn.execute(
        """
        UPDATE registration_tokens SET completed = completed + 1
        WHERE token = %s AND (uses_allowed IS NULL OR completed < uses_allowed) RETURNING true
        """,
        (token,),
    )
    return txn.one_or_none() is not None


def _get(txn: Transaction, token: str, since: int) -> RegistrationToken | None:
    txn.execute(f"{_TOKENS} WHERE token = %s", (since, token))
    row = txn.one_or_none()
    return None if row is None else RegistrationToken(*row)


def _all(txn: Transaction, since: int) -> list[RegistrationToken]:
    txn.execute(f"{_TOKENS} ORDER BY token", (since,))
    return [RegistrationToken(*row) for row in txn.rows()]


def _create(txn: Transaction, token: RegistrationToken) -> bool:
    txn.execute(
        """
        INSERT INTO registration_tokens (token, uses_allowed, expiry_ts) VALUES (%s, %s, %s)
        ON CONFLICT (token) DO NOTHING RETURNING true
        """,
        (token.token, token.uses_allowed, token.expiry_ts),
    )
    return txn.one_or_none() is not None


def _update(txn: Transaction, token: RegistrationToken) -> None:
    txn.execute(
        "UPDATE registration_tokens SET uses_allowed = %s, expiry_ts = %s WHERE token = %s",
        (token.uses_allowed, token.expiry_ts, token.token),
    )


def _delete(txn: Transaction, token: str) -> bool:
    txn.execute("DELETE FROM registration_tokens WHERE token = %s RETURNING true", (token,))
    return txn.one_or_none() is not None
