"""Sessions in which somebody proves to have an e-mail address or phone number: what was sent, and what came back.

Client secrets and tokens are stored hashed (SHA-256), so that a copy of the database proves nothing. What a token is,
and how long it is good for, is `synapse.handlers.validations`' matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from synapse.storage.database import Database, Transaction
    from synapse.storage.transaction import Row

MAX_TOKENS = 10
"""So many of the mails of one session are good at the same time; older ones are not any more."""


class Wish(NamedTuple):
    """What a session is for: equal ones (the link aside) are one session."""

    purpose: str
    medium: str
    address: str
    client_secret_hash: bytes
    next_link: str | None = None


@dataclass(frozen=True, slots=True)
class ValidationSession:
    """A session. Times are milliseconds since the epoch.

    `last_send_attempt` is the client's number of the last message; `expires_ts` when the tokens sent become worthless;
    `remote_sid` the id of the session at the identity server that sends the messages in our place.
    """

    session_id: str
    purpose: str
    medium: str
    address: str
    client_secret_hash: bytes
    next_link: str | None
    last_send_attempt: int | None
    token_hashes: tuple[bytes, ...]
    attempts: int
    expires_ts: int
    validated_ts: int | None
    remote_sid: str | None


_COLUMNS = """
    session_id, purpose, medium, address, client_secret_hash, next_link, last_send_attempt, token_hashes, attempts,
    expires_ts, validated_ts, remote_sid
"""


class ThreepidSessionStore:
    """Reads and writes sessions, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, session_id: str, wish: Wish, now: int, expires_ts: int) -> ValidationSession:
        """The session of that wish; a new one under `session_id` where there is none, or it has expired."""
        return await self._db.write_idempotent("threepid_sessions.begin", _begin, session_id, wish, now, expires_ts)

    async def get(self, session_id: str) -> ValidationSession | None:
        return await self._db.read("threepid_sessions.get", _get, session_id)

    async def reserve(self, session_id: str, send_attempt: int) -> bool:
        """Claims the sending of a message; False where this attempt, or a later one, was made already."""
        return await self._db.write("threepid_sessions.reserve", _reserve, session_id, send_attempt)

    async def release(self, session_id: str, send_attempt: int, before: int | None) -> None:
        """The message was not sent: the attempt may be made again."""
        await self._db.write_idempotent("threepid_sessions.release", _release, session_id, send_attempt, before)

    async def sent(self, session_id: str, token_hash: bytes, expires_ts: int, *, alone: bool) -> None:
        """A token is on its way; with `alone`, those sent before are worthless."""
        await self._db.write_idempotent("threepid_sessions.sent", _sent, session_id, token_hash, expires_ts, alone)

    async def sent_by(self, session_id: str, remote_sid: str, expires_ts: int) -> None:
        """An identity server has sent the message, in a session of its own."""
        await self._db.write_idempotent("threepid_sessions.sent_by", _sent_by, session_id, remote_sid, expires_ts)

    async def attempt(self, session_id: str, limit: int) -> bool:
        """Counts a token that is about to be looked at; False where `limit` have been since the last was sent.

        It is counted before, so that guesses made at the same time are as many as those made one by one.
        """
        return await self._db.write("threepid_sessions.attempt", _attempt, session_id, limit)

    async def validate(self, session_id: str, now: int, expires_ts: int) -> None:
        """The right token came; what was proved holds until `expires_ts`."""
        await self._db.write_idempotent("threepid_sessions.validate", _validate, session_id, now, expires_ts)

    async def delete(self, session_id: str) -> bool:
        """False where somebody else deleted it first: what a session proves is used once."""
        return await self._db.write("threepid_sessions.delete", _delete, session_id)

    async def forget(self, expired_before: int) -> None:
        """Deletes what has expired before then (milliseconds)."""
        await self._db.write_idempotent("threepid_sessions.forget", _forget, expired_before)


def _begin(txn: Transaction, session_id: str, wish: Wish, now: int, expires_ts: int) -> ValidationSession:
    txn.later(
        """
        DELETE FROM threepid_validation_sessions
        WHERE purpose = %s AND medium = %s AND address = %s AND client_secret_hash = %s AND expires_ts < %s
        """,
        (*wish[:4], now),
    )
    txn.execute(
        f"""
        INSERT INTO threepid_validation_sessions
            (session_id, purpose, medium, address, client_secret_hash, next_link, expires_ts)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (client_secret_hash, address, medium, purpose) DO UPDATE SET next_link = EXCLUDED.next_link
        RETURNING {_COLUMNS}
        """,
        (session_id, *wish[:4], wish.next_link, expires_ts),
    )
    return _session(txn.one())


def _get(txn: Transaction, session_id: str) -> ValidationSession | None:
    txn.execute(f"SELECT {_COLUMNS} FROM threepid_validation_sessions WHERE session_id = %s", (session_id,))
    row = txn.one_or_none()
    return None if row is None else _session(row)


def _session(row: Row) -> ValidationSession:
    """psycopg2 hands bytea out as memoryview."""
    session_id, purpose, medium, address, secret, next_link, last, tokens, *rest = row
    hashes = tuple(bytes(token) for token in tokens)
    return ValidationSession(session_id, purpose, medium, address, bytes(secret), next_link, last, hashes, *rest)


def _reserve(txn: Transaction, session_id: str, send_attempt: int) -> bool:
    txn.execute(
        """
        UPDATE threepid_validation_sessions SET last_send_attempt = %s
        WHERE session_id = %s AND (last_send_attempt IS NULL OR last_send_attempt < %s) RETURNING true
        """,
        (send_attempt, session_id, send_attempt),
    )
    return txn.one_or_none() is not None


def _release(txn: Transaction, session_id: str, send_attempt: int, before: int | None) -> None:
    txn.execute(
        """
        UPDATE threepid_validation_sessions SET last_send_attempt = %s
        WHERE session_id = %s AND last_send_attempt = %s
        """,
        (before, session_id, send_attempt),
    )


def _sent(txn: Transaction, session_id: str, token_hash: bytes, expires_ts: int, alone: bool) -> None:
    txn.execute(
        """
        UPDATE threepid_validation_sessions SET attempts = 0, expires_ts = greatest(expires_ts, %s), token_hashes =
            CASE WHEN %s THEN ARRAY[%s::bytea]
            ELSE (array_prepend(%s::bytea, array_remove(token_hashes, %s::bytea)))[1:%s] END
        WHERE session_id = %s
        """,
        (expires_ts, alone, token_hash, token_hash, token_hash, MAX_TOKENS, session_id),
    )


def _sent_by(txn: Transaction, session_id: str, remote_sid: str, expires_ts: int) -> None:
    txn.execute(
        """
        UPDATE threepid_validation_sessions SET attempts = 0, expires_ts = greatest(expires_ts, %s), remote_sid = %s
        WHERE session_id = %s
        """,
        (expires_ts, remote_sid, session_id),
    )


def _attempt(txn: Transaction, session_id: str, limit: int) -> bool:
    txn.execute(
        """
        UPDATE threepid_validation_sessions SET attempts = attempts + 1
        WHERE session_id = %s AND attempts < %s RETURNING true
        """,
        (session_id, limit),
    )
    return txn.one_or_none() is not None


def _validate(txn: Transaction, session_id: str, now: int, expires_ts: int) -> None:
    txn.execute(
        """
        UPDATE threepid_validation_sessions SET validated_ts = coalesce(validated_ts, %s), expires_ts = %s
        WHERE session_id = %s
        """,
        (now, expires_ts, session_id),
    )


def _delete(txn: Transaction, session_id: str) -> bool:
    txn.execute(
        "DELETE FROM threepid_validation_sessions WHERE session_id = %s RETURNING true",
        (session_id,),
    )
    return txn.one_or_none() is not None


def use(txn: Transaction, session_ids: Sequence[str]) -> bool:
    """Takes what sessions proved as used up, within a transaction of another store; False where one was already."""
    if not session_ids:
        return True
    txn.execute(
        "DELETE FROM threepid_validation_sessions WHERE session_id = ANY(%s) RETURNING true", (list(session_ids),)
    )
    return len(txn.rows()) == len(session_ids)


def _forget(txn: Transaction, expired_before: int) -> None:
    txn.execute("DELETE FROM threepid_validation_sessions WHERE expires_ts < %s", (expired_before,))
