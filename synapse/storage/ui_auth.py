"""Sessions of user-interactive authentication, in the database because their steps may land on different processes.

What the steps are and when they are passed is `synapse.handlers.ui_auth`'s matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class UiAuthSession:
    """A session in progress.

    `client_dict` is the request as it was first made, without `auth`; `server_dict` what we remember on behalf of the
    operation (the password's hash, say, never the password); `completed` maps stages passed to what they proved.
    """

    session_id: str
    created_ts: int
    client_dict: dict[str, Any]
    uri: str
    method: str
    server_dict: dict[str, Any]
    completed: dict[str, Any]


class UiAuthStore:
    """Reads and writes sessions, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, session: UiAuthSession, description: str, expired_before: int) -> None:
        """Stores a new session and, while at it, drops those created before `expired_before` (milliseconds)."""
        await self._db.write("ui_auth.create", _create, session, description, expired_before)

    async def get(self, session_id: str) -> UiAuthSession | None:
        return await self._db.read("ui_auth.get", _get, session_id)

    async def complete(self, session_id: str, stage: str, result: object) -> None:
        """Notes that a stage is passed; nothing if the session is gone."""
        await self._db.write("ui_auth.complete", _merge, session_id, "completed", {stage: result})

    async def remember(self, session_id: str, values: dict[str, Any]) -> None:
        await self._db.write("ui_auth.remember", _merge, session_id, "server_dict", values)

    async def delete(self, session_id: str) -> bool:
        """False if somebody else deleted it first: a session authorises one operation only."""
        return await self._db.write("ui_auth.delete", _delete, session_id)


def _create(txn: Transaction, session: UiAuthSession, description: str, expired_before: int) -> None:
    txn.later("DELETE FROM ui_auth_sessions WHERE created_ts < %s", (expired_before,))
    client_dict, server_dict = orjson.dumps(session.client_dict).decode(), orjson.dumps(session.server_dict).decode()
    txn.execute(
        """
        INSERT INTO ui_auth_sessions (session_id, created_ts, client_dict, uri, method, description, server_dict)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        (session.session_id, session.created_ts, client_dict, session.uri, session.method, description, server_dict),
    )


def _get(txn: Transaction, session_id: str) -> UiAuthSession | None:
    txn.execute(
        """
        SELECT session_id, created_ts, client_dict, uri, method, server_dict, completed
        FROM ui_auth_sessions WHERE session_id = %s
        """,
        (session_id,),
    )
    row = txn.one_or_none()
    if row is None:
        return None
    session_id, created_ts, client_dict, uri, method, server_dict, completed = row
    return UiAuthSession(
        session_id,
        created_ts,
        orjson.loads(client_dict),
        uri,
        method,
        orjson.loads(server_dict),
        orjson.loads(completed),
    )


def _merge(txn: Transaction, session_id: str, column: str, values: dict[str, Any]) -> None:
    txn.execute(
        f"UPDATE ui_auth_sessions SET {column} = {column} || %s::jsonb WHERE session_id = %s",
        (orjson.dumps(values).decode(), session_id),
    )


def _delete(txn: Transaction, session_id: str) -> bool:
    txn.execute("DELETE FROM ui_auth_sessions WHERE session_id = %s RETURNING true", (session_id,))
    return txn.one_or_none() is not None
