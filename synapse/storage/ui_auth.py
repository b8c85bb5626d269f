"""Sessions of user-interactive authentication, in the database because their steps may land on different processes.

What the steps are and when they are passed is `synapse.handlers.ui_auth`'s matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


MAX_SESSIONS: Final = 20
"""Of a user who is logged in: with more, the oldest are forgotten. Others are held off by rate limits."""


@dataclass(frozen=True, slots=True)
class UiAuthSession:
    """A session in progress.

    `client_dict` is the request, as the steps until now have made it, without `auth`; `server_dict` what we remember on
    behalf of the operation (the password's hash, say, never the password); `completed` maps stages passed to what they
    proved.
    """

    session_id: str
    created_ts: int
    client_dict: dict[str, Any]
    uri: str
    method: str
    server_dict: dict[str, Any]
    completed: dict[str, Any]
    user_id: str | None = None  # whose it is: who was logged in, or whom a stage has proven
    description: str = ""  # what it is for, for people


class UiAuthStore:
    """Reads and writes sessions, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, session: UiAuthSession, description: str, expired_before: int) -> None:
        """Stores a new session and, while at it, drops those created before `expired_before` (milliseconds)."""
        await self._db.write("ui_auth.create", _create, session, description, expired_before)

    async def get(self, session_id: str) -> UiAuthSession | None:
        return await self._db.read("ui_auth.get", _get, session_id)

    async def complete(self, session_id: str, stage: str, result: object, user_id: str | None) -> None:
        """Notes that a stage is passed, and by whom; nothing if the session is gone."""
        await self._db.write("ui_auth.complete", _complete, session_id, {stage: result}, user_id)

    async def grow(self, session: UiAuthSession, client_dict: dict[str, Any], server_dict: dict[str, Any]) -> bool:
        """Replaces what the request is; False if somebody else has, since `session` was read, or it is gone."""
        return await self._db.write("ui_auth.grow", _grow, session, client_dict, server_dict)

    async def delete(self, session_id: str) -> bool:
        """False if somebody else deleted it first: a session authorises one operation only."""
        return await self._db.write("ui_auth.delete", _delete, session_id)

    async def note_freshness(self, device: tuple[str, str], now: int, stale_before: int) -> None:
        """Somebody proved at `now` to be the user of a device; what is older than `stale_before` is dropped."""
        await self._db.write("ui_auth.note_freshness", _note_freshness, device, now, stale_before)

    async def is_fresh(self, device: tuple[str, str], since: int) -> bool:
        """Whether the user of the device proved to be so after `since`."""
        return await self._db.read("ui_auth.is_fresh", _is_fresh, device, since)


def _create(txn: Transaction, session: UiAuthSession, description: str, expired_before: int) -> None:
    txn.later("DELETE FROM ui_auth_sessions WHERE created_ts < %s", (expired_before,))
    if session.user_id is not None:
        txn.later(
            """
            DELETE FROM ui_auth_sessions WHERE session_id IN (
                SELECT session_id FROM ui_auth_sessions WHERE user_id = %s ORDER BY created_ts DESC OFFSET %s
            )
            """,
            (session.user_id, MAX_SESSIONS - 1),
        )
    client_dict, server_dict = orjson.dumps(session.client_dict).decode(), orjson.dumps(session.server_dict).decode()
    txn.execute(
        """
        INSERT INTO ui_auth_sessions
            (session_id, created_ts, client_dict, uri, method, description, server_dict, user_id)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            session.session_id,
            session.created_ts,
            client_dict,
            session.uri,
            session.method,
            description,
            server_dict,
            session.user_id,
        ),
    )


def _get(txn: Transaction, session_id: str) -> UiAuthSession | None:
    txn.execute(
        """
        SELECT session_id, created_ts, client_dict, uri, method, server_dict, completed, user_id, description
        FROM ui_auth_sessions WHERE session_id = %s
        """,
        (session_id,),
    )
    row = txn.one_or_none()
    if row is None:
        return None
    session_id, created_ts, client_dict, uri, method, server_dict, completed, user_id, description = row
    return UiAuthSession(
        session_id,
        created_ts,
        orjson.loads(client_dict),
        uri,
        method,
        orjson.loads(server_dict),
        orjson.loads(completed),
        user_id,
        description,
    )


def _complete(txn: Transaction, session_id: str, values: dict[str, Any], user_id: str | None) -> None:
    txn.execute(
        """
        UPDATE ui_auth_sessions SET completed = completed || %s::jsonb, user_id = coalesce(user_id, %s)
        WHERE session_id = %s
        """,
        (orjson.dumps(values).decode(), user_id, session_id),
    )


def _grow(txn: Transaction, session: UiAuthSession, client_dict: dict[str, Any], server_dict: dict[str, Any]) -> bool:
    values = [
        orjson.dumps(value).decode() for value in (client_dict, server_dict, session.client_dict, session.server_dict)
    ]
    txn.execute(
        """
        UPDATE ui_auth_sessions SET client_dict = %s, server_dict = %s
        WHERE client_dict = %s AND server_dict = %s AND session_id = %s RETURNING true
        """,
        (*values, session.session_id),
    )
    return txn.one_or_none() is not None


def _delete(txn: Transaction, session_id: str) -> bool:
    txn.execute("DELETE FROM ui_auth_sessions WHERE session_id = %s RETURNING true", (session_id,))
    return txn.one_or_none() is not None


def _note_freshness(txn: Transaction, device: tuple[str, str], now: int, stale_before: int) -> None:
    txn.later("DELETE FROM fresh_authentications WHERE proven_ts < %s", (stale_before,))
    txn.execute(
        """
        INSERT INTO fresh_authentications (user_id, device_id, proven_ts) VALUES (%s, %s, %s)
        ON CONFLICT (user_id, device_id) DO UPDATE SET proven_ts = EXCLUDED.proven_ts
        """,
        (*device, now),
    )


def _is_fresh(txn: Transaction, device: tuple[str, str], since: int) -> bool:
    txn.execute(
        "SELECT true FROM fresh_authentications WHERE user_id = %s AND device_id = %s AND proven_ts > %s",
        (*device, since),
    )
    return txn.one_or_none() is not None
