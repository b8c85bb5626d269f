"""Until when accounts are valid, and what their users were told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse.storage.access_tokens import hashes, hashes_of

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Changed(NamedTuple):
    """An account whose validity ends at another time now, and the tokens for which that has to be forgotten."""

    user_id: str
    valid_until_ts: int
    tokens: list[bytes]


class Expiring(NamedTuple):
    """An account that expires soon, or has."""

    user_id: str
    valid_until_ts: int


class AccountValidityStore:
    """Reads and writes. Times are milliseconds since the epoch."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, now: int, period: int, max_delta: int, most: int) -> list[bytes] | None:
        """Gives accounts an end that have none: new ones after the period, older ones up to `max_delta` before that, so
        that they do not all end together. The tokens for which that has to be forgotten; None if there were none."""
        return await self._db.write("account_validity.begin", _begin, now, period, max_delta, most)

    async def set(self, user_id: str, valid_until_ts: int) -> Changed | None:
        """None where there is no such user."""
        return await self._db.write_idempotent("account_validity.set", _set, user_id, valid_until_ts)

    async def to_tell(self, before: int, most: int) -> list[Expiring]:
        """Accounts that expire before that time, whose users have not been told."""
        return await self._db.read("account_validity.to_tell", _to_tell, before, most)

    async def offer(self, user_id: str, token_hash: bytes) -> None:
        """By this token, and no other any more, the user can renew the account."""
        await self._db.write_idempotent("account_validity.offer", _offer, user_id, token_hash)

    async def told(self, user_id: str, valid_until_ts: int, token_hash: bytes) -> None:
        """The user was told of this end, or is not to be told of it; `token_hash` is used if there is none yet."""
        await self._db.write_idempotent("account_validity.told", _told, user_id, valid_until_ts, token_hash)

    async def renew(self, token_hash: bytes, now: int, valid_until_ts: int) -> Changed | None:
        """Renews the account of the token, once: used again, it changes nothing. None where the token is not known."""
        return await self._db.write_idempotent("account_validity.renew", _renew, token_hash, now, valid_until_ts)


def _begin(txn: Transaction, now: int, period: int, max_delta: int, most: int) -> list[bytes] | None:
    txn.see_the_latest()
    txn.execute(
        """
        UPDATE users SET valid_until_ts = CASE
            WHEN created_ts > %s THEN created_ts + %s ELSE %s + %s - floor(random() * %s)::bigint END
        WHERE user_id IN (
            SELECT user_id FROM users WHERE valid_until_ts IS NULL AND NOT deactivated AND NOT is_guest
                AND user_type IS NULL AND app_service_id IS NULL LIMIT %s
        ) RETURNING user_id
        """,
        (now - period // 2, period, now, period, max_delta, most),
    )
    user_ids = [user_id for (user_id,) in txn.rows()]
    if not user_ids:
        return None
    txn.execute("SELECT token_hash FROM access_tokens WHERE user_id = ANY(%s)", (user_ids,))
    return hashes(txn)


def _set(txn: Transaction, user_id: str, valid_until_ts: int) -> Changed | None:
    txn.see_the_latest()
    return _end_at(txn, user_id, valid_until_ts)


def _end_at(txn: Transaction, user_id: str, valid_until_ts: int) -> Changed | None:
    txn.execute("UPDATE users SET valid_until_ts = %s WHERE user_id = %s RETURNING true", (valid_until_ts, user_id))
    if txn.one_or_none() is None:
        return None
    return Changed(user_id, valid_until_ts, hashes_of(txn, user_id))


def _to_tell(txn: Transaction, before: int, most: int) -> list[Expiring]:
    txn.execute(
        """
        SELECT u.user_id, u.valid_until_ts FROM users u LEFT JOIN account_renewals r USING (user_id)
        WHERE u.valid_until_ts <= %s AND NOT u.deactivated AND r.told_until_ts IS DISTINCT FROM u.valid_until_ts
        ORDER BY u.valid_until_ts LIMIT %s
        """,
        (before, most),
    )
    return [Expiring(*row) for row in txn.rows()]


def _offer(txn: Transaction, user_id: str, token_hash: bytes) -> None:
    txn.execute(
        """
        INSERT INTO account_renewals (user_id, told_until_ts, token_hash) VALUES (%s, 0, %s)
        ON CONFLICT (user_id) DO UPDATE SET token_hash = EXCLUDED.token_hash, used_ts = NULL
        """,
        (user_id, token_hash),
    )


def _told(txn: Transaction, user_id: str, valid_until_ts: int, token_hash: bytes) -> None:
    txn.execute(
        """
        INSERT INTO account_renewals (user_id, told_until_ts, token_hash) VALUES (%s, %s, %s)
        ON CONFLICT (user_id) DO UPDATE SET told_until_ts = EXCLUDED.told_until_ts
        """,
        (user_id, valid_until_ts, token_hash),
    )


def _renew(txn: Transaction, token_hash: bytes, now: int, valid_until_ts: int) -> Changed | None:
    txn.see_the_latest()
    txn.execute(
        """
        UPDATE account_renewals SET used_ts = %s WHERE token_hash = %s AND used_ts IS NULL RETURNING user_id
        """,
        (now, token_hash),
    )
    row = txn.one_or_none()
    if row is not None:
        return _end_at(txn, row[0], valid_until_ts)
    txn.execute(
        """
        SELECT user_id, valid_until_ts FROM account_renewals JOIN users USING (user_id)
        WHERE token_hash = %s AND used_ts IS NOT NULL
        """,
        (token_hash,),
    )
    row = txn.one_or_none()
    return None if row is None else Changed(row[0], row[1], hashes_of(txn, row[0]))
