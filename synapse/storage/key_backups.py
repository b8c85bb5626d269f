"""Key backups: the encrypted room keys that a user's devices leave with the server, by version, room and session.

A backup's etag counts its changes; count and size are kept beside it, so that nobody has to count rows. Every change
first locks the row of its backup, and is one transaction of a constant number of statements. Versions count up from 1.
The row of a deleted backup stays until there is a later one, so that its version is never given out again. Formats and
limits are the handler's matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from synapse.storage.database import Database, Transaction


class Backup(NamedTuple):
    """A version of a user's backup. `auth_data` is JSON text; its `keys` have `size` bytes of session data."""

    version: int
    algorithm: str
    auth_data: str
    etag: int
    keys: int
    size: int


class Session(NamedTuple):
    """The backed-up key of a megolm session; `session_data` is JSON text."""

    room_id: str
    session_id: str
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    session_data: str


class Place(NamedTuple):
    """Which keys of a backup are meant: all, those of a room, or that of a session."""

    room_id: str | None = None
    session_id: str | None = None


class Stored(NamedTuple):
    """What a backup holds now."""

    etag: int
    keys: int


class WrongVersion(Exception):
    """Keys were meant for a backup that is not the latest; the argument is the latest version, None where none is."""

    def __init__(self, latest: int | None) -> None:
        super().__init__(latest)
        self.latest = latest


class TooMuch(Exception):
    """A user would have more backups, or a backup more in it, than is allowed."""


_COLUMNS: Final = "version, algorithm, auth_data, etag, key_count, key_bytes"
# The database writes the JSON: a backup may have 100,000 keys, and other requests want the interpreter.
_KEY: Final = """(
    '{"first_message_index":' || first_message_index || ',"forwarded_count":' || forwarded_count
    || ',"is_verified":' || is_verified || ',"session_data":' || session_data || '}'
)"""
# Client-server API, "Server-side key backups": verified before unverified, then the lower index, then less forwarded.
_IS_BETTER: Final = """
    (NOT EXCLUDED.is_verified, EXCLUDED.first_message_index, EXCLUDED.forwarded_count)
    < (NOT s.is_verified, s.first_message_index, s.forwarded_count)
"""


class KeyBackupStore:
    """Reads and writes backups."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, user_id: str, algorithm: str, auth_data: str, limit: int) -> int:
        """The version of a new backup. Raises `TooMuch` for a user who has `limit` backups."""
        return await self._db.write("key_backups.create", _create, user_id, algorithm, auth_data, limit)

    async def get(self, user_id: str, version: int | None) -> Backup | None:
        """A backup, or the latest (`version` None); None where there is none, or it is deleted."""
        return await self._db.read("key_backups.get", _get, user_id, version)

    async def set_auth_data(self, user_id: str, version: int, auth_data: str) -> None:
        await self._db.write_idempotent("key_backups.set_auth_data", _set_auth_data, user_id, version, auth_data)

    async def delete(self, user_id: str, version: int) -> bool:
        """Deletes a backup with all its keys; False if there never was one of that version."""
        return await self._db.write_idempotent("key_backups.delete", _delete, user_id, version)

    async def put(self, user_id: str, version: int, sessions: list[Session], max_count: int, max_size: int) -> Stored:
        """Stores the keys that are better than those that are there. Each room and session is named once.

        Raises `WrongVersion`, and `TooMuch` (nothing is stored then) beyond so many keys or bytes of session data.
        """
        return await self._db.write_idempotent("key_backups.put", _put, user_id, version, sessions, max_count, max_size)

    async def rooms(self, user_id: str, version: int, room_id: str | None) -> list[tuple[str, str]] | None:
        """The keys of a backup, or of one room of it: (room id, `{"session": {key}, …}`), both as JSON text.

        None where there is no such backup.
        """
        return await self._db.snapshot("key_backups.rooms", _rooms, user_id, version, room_id)

    async def session(self, user_id: str, version: int, room_id: str, session_id: str) -> str | None:
        """The key of a session, as JSON text; None where there is no such key, or backup."""
        return await self._db.read("key_backups.session", _session, user_id, version, room_id, session_id)

    async def remove(self, user_id: str, version: int, place: Place) -> Stored | None:
        """Deletes the keys of a place; None where there is no such backup."""
        return await self._db.write_idempotent("key_backups.remove", _remove, user_id, version, place)


def _create(txn: Transaction, user_id: str, algorithm: str, auth_data: str, limit: int) -> int:
    txn.execute(
        """
        INSERT INTO key_backups (user_id, version, algorithm, auth_data)
        SELECT %s, COALESCE(MAX(version), 0) + 1, %s, %s FROM key_backups WHERE user_id = %s
        HAVING COUNT(*) FILTER (WHERE NOT deleted) < %s RETURNING version
        """,
        (user_id, algorithm, auth_data, user_id, limit),
    )
    row = txn.one_or_none()
    if row is None:
        raise TooMuch
    txn.later("DELETE FROM key_backups WHERE user_id = %s AND deleted", (user_id,))
    return int(row[0])


def _get(txn: Transaction, user_id: str, version: int | None) -> Backup | None:
    txn.execute(
        f"""
        SELECT {_COLUMNS} FROM key_backups WHERE user_id = %s AND NOT deleted AND version = COALESCE(%s, version)
        ORDER BY version DESC LIMIT 1
        """,
        (user_id, version),
    )
    row = txn.one_or_none()
    return None if row is None else Backup(*row)


def _set_auth_data(txn: Transaction, user_id: str, version: int, auth_data: str) -> None:
    txn.execute(
        "UPDATE key_backups SET auth_data = %s WHERE user_id = %s AND version = %s AND NOT deleted",
        (auth_data, user_id, version),
    )


def _delete(txn: Transaction, user_id: str, version: int) -> bool:
    txn.execute(
        """
        UPDATE key_backups SET deleted = true, auth_data = 'null', key_count = 0, key_bytes = 0
        WHERE user_id = %s AND version = %s RETURNING true
        """,
        (user_id, version),
    )
    if txn.one_or_none() is None:
        # Up to the latest, there has been one of each version.
        txn.execute("SELECT %s BETWEEN 1 AND MAX(version) FROM key_backups WHERE user_id = %s", (version, user_id))
        return bool(txn.one()[0])
    txn.later("DELETE FROM key_backup_sessions WHERE user_id = %s AND version = %s", (user_id, version))
    return True


def _put(
    txn: Transaction, user_id: str, version: int, sessions: list[Session], max_count: int, max_size: int
) -> Stored:
    backup = _locked_latest(txn, user_id)
    if backup is None or backup.version != version:
        raise WrongVersion(None if backup is None else backup.version)
    changed, added, grown = _upsert(txn, user_id, version, sessions) if sessions else (0, 0, 0)
    if grown > 0 and (backup.keys + added > max_count or backup.size + grown > max_size):
        raise TooMuch
    return _changed(txn, user_id, backup, added, grown) if changed else Stored(backup.etag, backup.keys)


def _locked_latest(txn: Transaction, user_id: str) -> Backup | None:
    txn.execute(
        f"""
        SELECT {_COLUMNS} FROM key_backups WHERE user_id = %s AND NOT deleted
        ORDER BY version DESC LIMIT 1 FOR UPDATE
        """,
        (user_id,),
    )
    row = txn.one_or_none()
    return None if row is None else Backup(*row)


def _upsert(txn: Transaction, user_id: str, version: int, sessions: list[Session]) -> tuple[int, int, int]:
    """How many keys were stored, how many of them are of sessions that had none, and by how many bytes it all grew."""
    # Each is looked up by itself: a planner that does not know how large the backup is would read all of it.
    room_ids, session_ids, indexes, forwarded, verified, data = map(list, zip(*sessions, strict=True))
    txn.execute(
        f"""
        WITH given AS (
            SELECT * FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[], %s::boolean[], %s::text[])
            AS g (room_id, session_id, first_message_index, forwarded_count, is_verified, session_data)
        ), old AS (
            SELECT g.room_id, g.session_id, s.bytes FROM given g CROSS JOIN LATERAL (
                SELECT octet_length(session_data) AS bytes FROM key_backup_sessions
                WHERE user_id = %s AND version = %s AND room_id = g.room_id AND session_id = g.session_id LIMIT 1
            ) AS s
        ), stored AS (
            INSERT INTO key_backup_sessions AS s (user_id, version, room_id, session_id, first_message_index,
                forwarded_count, is_verified, session_data)
            SELECT %s, %s, given.* FROM given
            ON CONFLICT (user_id, version, room_id, session_id) DO UPDATE SET
                first_message_index = EXCLUDED.first_message_index, forwarded_count = EXCLUDED.forwarded_count,
                is_verified = EXCLUDED.is_verified, session_data = EXCLUDED.session_data
            WHERE {_IS_BETTER}
            RETURNING room_id, session_id, octet_length(session_data) AS bytes
        )
        SELECT count(*), count(*) - count(old.room_id), COALESCE(sum(stored.bytes - COALESCE(old.bytes, 0)), 0)
        FROM stored LEFT JOIN old USING (room_id, session_id)
        """,
        (room_ids, session_ids, indexes, forwarded, verified, data, user_id, version, user_id, version),
    )
    changed, added, grown = txn.one()
    return changed, added, int(grown)


def _changed(txn: Transaction, user_id: str, backup: Backup, added: int, grown: int) -> Stored:
    """Writes down that a locked backup has changed."""
    stored = Stored(backup.etag + 1, backup.keys + added)
    txn.later(
        "UPDATE key_backups SET etag = %s, key_count = %s, key_bytes = %s WHERE user_id = %s AND version = %s",
        (stored.etag, stored.keys, backup.size + grown, user_id, backup.version),
    )
    return stored


def _rooms(txn: Transaction, user_id: str, version: int, room_id: str | None) -> list[tuple[str, str]] | None:
    if _get(txn, user_id, version) is None:
        return None
    where, params = _where(user_id, version, Place(room_id))
    txn.execute(
        f"""
        SELECT to_json(room_id)::text, '{{' || string_agg(to_json(session_id)::text || ':' || {_KEY}, ',') || '}}'
        FROM key_backup_sessions WHERE {where} GROUP BY room_id
        """,
        params,
    )
    return [(room, sessions) for room, sessions in txn.rows()]


def _session(txn: Transaction, user_id: str, version: int, room_id: str, session_id: str) -> str | None:
    txn.execute(
        f"""
        SELECT {_KEY} FROM key_backup_sessions JOIN key_backups USING (user_id, version)
        WHERE user_id = %s AND version = %s AND room_id = %s AND session_id = %s AND NOT deleted
        """,
        (user_id, version, room_id, session_id),
    )
    row = txn.one_or_none()
    return None if row is None else str(row[0])


def _remove(txn: Transaction, user_id: str, version: int, place: Place) -> Stored | None:
    txn.execute(
        f"SELECT {_COLUMNS} FROM key_backups WHERE user_id = %s AND version = %s AND NOT deleted FOR UPDATE",
        (user_id, version),
    )
    row = txn.one_or_none()
    if row is None:
        return None
    backup = Backup(*row)
    where, params = _where(user_id, version, place)
    txn.execute(
        f"""
        WITH gone AS (DELETE FROM key_backup_sessions WHERE {where} RETURNING octet_length(session_data) AS bytes)
        SELECT count(*), COALESCE(sum(bytes), 0) FROM gone
        """,
        params,
    )
    count, size = txn.one()
    return _changed(txn, user_id, backup, -count, -int(size)) if count else Stored(backup.etag, backup.keys)


def _where(user_id: str, version: int, place: Place) -> tuple[str, list[object]]:
    given = {"user_id": user_id, "version": version, "room_id": place.room_id, "session_id": place.session_id}
    named = {column: value for column, value in given.items() if value is not None}
    return " AND ".join(f"{column} = %s" for column in named), list(named.values())
