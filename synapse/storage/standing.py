"""How accounts stand: locked, suspended. Whatever changes it tells which tokens have to be forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from synapse.storage.access_tokens import hashes_of

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction

Mark = Literal["locked", "suspended"]


class StandingStore:
    """Writes what is decided about accounts, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def mark(self, user_id: str, mark: Mark, value: bool) -> list[bytes]:
        """Locks or suspends an account, or ends that; the hashes of the tokens for which that now holds."""
        return await self._db.write_idempotent("standing.mark", _mark, user_id, mark, value)

    async def consent(self, user_id: str, version: str, now: int) -> list[bytes] | None:
        """Notes that the user agreed to a version of the policy, at `now` (milliseconds); which tokens have to be
        forgotten. None, and nothing done, where there is no such user."""
        return await self._db.write_idempotent("standing.consent", _consent, user_id, version, now)


def _consent(txn: Transaction, user_id: str, version: str, now: int) -> list[bytes] | None:
    txn.see_the_latest()
    txn.execute(
        """
        UPDATE users SET consent_version = %s, consent_ts = %s WHERE user_id = %s AND NOT deactivated RETURNING true
        """,
        (version, now, user_id),
    )
    if txn.one_or_none() is None:
        return None
    return hashes_of(txn, user_id)


def _mark(txn: Transaction, user_id: str, mark: Mark, value: bool) -> list[bytes]:
    txn.see_the_latest()
    txn.execute(f"UPDATE users SET {mark} = %s WHERE user_id = %s", (value, user_id))
    return hashes_of(txn, user_id)
