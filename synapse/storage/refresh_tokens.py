"""Refresh tokens: a chain for each session, of which the last link counts, and the one before until the last is used.

Each refresh token was given out with an access token, which names it (`access_tokens.refresh_token_id`), and it names
the one that it was exchanged for (`next_token_id`). It is `used` once it or its access token has been: then the one
before is worth nothing any more. That one is kept, with its access token as an expired one, until the next exchange, so
that a client which still uses it is told that its session lives on. What is older is deleted.

Only SHA-256 hashes are stored. Client-server API, "Refreshing access tokens".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class NewRefreshToken(NamedTuple):
    """A refresh token to be stored. Times are milliseconds since the epoch; None: never."""

    token_hash: bytes
    expires_ts: int | None
    session_expires_ts: int | None  # when the session ends, however often it is refreshed


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A row of `refresh_tokens`, and the standing of its user."""

    id: int
    user_id: str
    device_id: str
    expires_ts: int | None
    session_expires_ts: int | None
    used_up: bool  # what it was exchanged for has been used
    locked: bool


class Exchange(NamedTuple):
    """A refresh token that is exchanged, and the tokens that are given out for it."""

    token_id: int
    refresh: NewRefreshToken
    access_token_hash: bytes
    access_expires_ts: int | None
    now: int


class RefreshTokenStore:
    """Reads and writes refresh tokens, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, token_hash: bytes) -> RefreshToken | None:
        return await self._db.read("refresh_tokens.get", _get, token_hash)

    async def exchange(self, exchange: Exchange) -> list[bytes] | None:
        """Stores the new tokens; the hashes of access tokens that are worth nothing any more.

        None, and nothing done, if the token is gone or used up meanwhile.
        """
        return await self._db.write("refresh_tokens.exchange", _exchange, exchange)

    async def mark_used(self, token_id: int, now: int) -> list[bytes]:
        """The token's access token is used for the first time; the hashes of those that thereby expire."""
        return await self._db.write("refresh_tokens.mark_used", _mark_used, token_id, now)


def _get(txn: Transaction, token_hash: bytes) -> RefreshToken | None:
    txn.execute(
        """
        SELECT r.id, r.user_id, r.device_id, r.expires_ts, r.session_expires_ts, COALESCE(n.used, false), u.locked
        FROM refresh_tokens r JOIN users u USING (user_id) LEFT JOIN refresh_tokens n ON n.id = r.next_token_id
        WHERE r.token_hash = %s
        """,
        (token_hash,),
    )
    row = txn.one_or_none()
    return None if row is None else RefreshToken(*row)


def _exchange(txn: Transaction, exchange: Exchange) -> list[bytes] | None:
    txn.execute(
        "SELECT user_id, device_id, next_token_id FROM refresh_tokens WHERE id = %s FOR UPDATE", (exchange.token_id,)
    )
    row = txn.one_or_none()
    if row is None:
        return None
    user_id, device_id, earlier = row
    gone: list[bytes] = []
    if earlier is not None:
        # Exchanged before, by a client that has not used what it got; perhaps the answer was lost.
        txn.execute("DELETE FROM refresh_tokens WHERE id = %s AND NOT used RETURNING id", (earlier,))
        if txn.one_or_none() is None:
            return None
        gone += _delete_access_tokens(txn, [earlier])
    gone += _mark_used(txn, exchange.token_id, exchange.now)
    refresh = exchange.refresh
    txn.execute(
        """
        WITH made AS (
            INSERT INTO refresh_tokens (token_hash, user_id, device_id, expires_ts, session_expires_ts)
            VALUES (%s, %s, %s, %s, %s) RETURNING id
        ), linked AS (
            UPDATE refresh_tokens SET next_token_id = made.id FROM made WHERE refresh_tokens.id = %s
        )
        INSERT INTO access_tokens (token_hash, user_id, device_id, created_ts, expires_ts, refresh_token_id)
        SELECT %s, %s, %s, %s, %s, id FROM made
        """,
        (
            *(refresh.token_hash, user_id, device_id, refresh.expires_ts, refresh.session_expires_ts),
            exchange.token_id,
            *(exchange.access_token_hash, user_id, device_id, exchange.now, exchange.access_expires_ts),
        ),
    )
    return gone


def _mark_used(txn: Transaction, token_id: int, now: int) -> list[bytes]:
    txn.execute(
        """
        WITH marked AS (
            UPDATE refresh_tokens SET used = true WHERE id = %s AND NOT used RETURNING id
        ), before AS (
            SELECT b.id FROM refresh_tokens b JOIN marked ON b.next_token_id = marked.id
        ), older AS (
            DELETE FROM refresh_tokens o USING before WHERE o.next_token_id = before.id RETURNING o.id
        ), gone AS (
            DELETE FROM access_tokens a USING older WHERE a.refresh_token_id = older.id RETURNING a.token_hash
        ), expired AS (
            UPDATE access_tokens a SET expires_ts = %s FROM before WHERE a.refresh_token_id = before.id
            RETURNING a.token_hash
        )
        SELECT token_hash FROM gone UNION ALL SELECT token_hash FROM expired
        """,
        (token_id, now),
    )
    return [bytes(token_hash) for (token_hash,) in txn.rows()]


def _delete_access_tokens(txn: Transaction, token_ids: list[int]) -> list[bytes]:
    if not token_ids:
        return []
    txn.execute("DELETE FROM access_tokens WHERE refresh_token_id = ANY(%s) RETURNING token_hash", (token_ids,))
    return [bytes(token_hash) for (token_hash,) in txn.rows()]


def delete_of_devices(txn: Transaction, user_id: str, device_ids: list[str] | None) -> None:
    """The devices' sessions end; None: all of the user's. For stores that do it in a transaction of their own."""
    if device_ids is None:
        txn.later("DELETE FROM refresh_tokens WHERE user_id = %s", (user_id,))
    else:
        txn.later("DELETE FROM refresh_tokens WHERE user_id = %s AND device_id = ANY(%s)", (user_id, device_ids))
