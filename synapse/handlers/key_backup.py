"""Key backups, as clients make, fill, read and delete them.

The server keeps what it cannot read, and decides one thing: which of two keys for a session is the better one. Each
user's changes are made one after another, in the main process, so that uploads at the same time wait for each other
and not for the database to give up on one of them.

Older clients have `auth_data` and `session_data` that are strings; they are as opaque as objects are.

Client-server API, "Server-side key backups".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import orjson

from synapse.api.constants import MAX_ID_BYTES, MAX_INT
from synapse.api.errors import Codes, MatrixError, invalid_param, not_found, too_large
from synapse.api.identifiers import fits
from synapse.http.body import convert, decode_object
from synapse.storage.key_backups import Place, Session, Stored, TooMuch, WrongVersion
from synapse.util.concurrency import Linearizer
from synapse.util.storable import problem_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.storage.key_backups import Backup, KeyBackupStore

MAX_AUTH_DATA_BYTES: Final = 65_536
MAX_SESSION_DATA_BYTES: Final = 16_384
# Of one backup: a GET answers with all of it.
MAX_KEYS: Final = 500_000
MAX_BYTES: Final = 128 * 1024 * 1024
MAX_BACKUPS: Final = 100
LARGE_BODY: Final = 256 * 1024
_VERSION: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)

_Opaque = dict[str, Any] | str
_Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_INT)]


class NewBackup(msgspec.Struct, frozen=True):
    """The body of `POST /room_keys/version`."""

    algorithm: str
    auth_data: _Opaque


class ChangedBackup(msgspec.Struct, frozen=True):
    """The body of `PUT /room_keys/version/{version}`."""

    algorithm: str
    auth_data: _Opaque
    version: str | int | None = None  # a number from clients that take it for one


class KeyData(msgspec.Struct, frozen=True):
    """The key of a session."""

    first_message_index: _Index
    forwarded_count: _Index
    is_verified: bool
    session_data: _Opaque


class RoomKeys(msgspec.Struct, frozen=True):
    """The keys of a room, by session."""

    sessions: dict[str, KeyData]


class AllKeys(msgspec.Struct, frozen=True):
    """Keys by room."""

    rooms: dict[str, RoomKeys]


class KeyBackups:
    """The backups of the server's users; in the main process.

    :param in_thread: runs a function elsewhere.
    """

    def __init__(self, store: KeyBackupStore, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._store = store
        self._in_thread = in_thread
        self._queue: Linearizer[str] = Linearizer()

    # -- backups ------------------------------------------------------------------------------------------------------

    async def create(self, user_id: str, backup: NewBackup) -> dict[str, Any]:
        """A new backup, which is the latest from now on. Raises 400, 413 M_TOO_LARGE."""
        if not fits(backup.algorithm) or not backup.algorithm:
            raise invalid_param(f"The name of an algorithm has 1 to {MAX_ID_BYTES} bytes.")
        auth_data = _encoded("auth_data", backup.auth_data, MAX_AUTH_DATA_BYTES)
        async with self._queue.queue(user_id):
            try:
                version = await self._store.create(user_id, backup.algorithm, auth_data, MAX_BACKUPS)
            except TooMuch:
                raise too_large(f"You have {MAX_BACKUPS} key backups. Please delete one first.") from None
        return {"version": str(version)}

    async def info(self, user_id: str, version: str | None) -> dict[str, Any]:
        """What a backup is, or the latest (None). Raises 404 M_NOT_FOUND."""
        backup = await self._existing(user_id, version)
        return {
            "version": str(backup.version),
            "algorithm": backup.algorithm,
            "auth_data": msgspec.Raw(backup.auth_data.encode()),
            **_shown(Stored(backup.etag, backup.keys)),
        }

    async def update(self, user_id: str, version: str, change: ChangedBackup) -> None:
        """Replaces the auth_data of a backup. Raises 400 M_INVALID_PARAM, 404 M_NOT_FOUND, 413 M_TOO_LARGE."""
        if change.version is not None and str(change.version) != version:
            raise invalid_param("The version in the body is not the one in the path.")
        auth_data = _encoded("auth_data", change.auth_data, MAX_AUTH_DATA_BYTES)
        backup = await self._existing(user_id, version)
        if change.algorithm != backup.algorithm:
            raise invalid_param(f"The algorithm of this backup is '{backup.algorithm}', and cannot be changed.")
        async with self._queue.queue(user_id):
            await self._store.set_auth_data(user_id, backup.version, auth_data)

    async def delete(self, user_id: str, version: str) -> None:
        """Deletes a backup and its keys; what was deleted before is no error. Raises 404 M_NOT_FOUND."""
        async with self._queue.queue(user_id):
            if not await self._store.delete(user_id, _number(version)):
                raise _no_backup()

    # -- keys ---------------------------------------------------------------------------------------------------------

    async def put(self, user_id: str, version: str, place: Place, body: bytes) -> dict[str, Any]:
        """Stores the keys in a body (JSON) of the place's form, as far as they are better than those that are there.

        Raises 400, 403 M_WRONG_ROOM_KEYS_VERSION, 404 M_NOT_FOUND, 413 M_TOO_LARGE.
        """
        # Clients send a hundred keys at a time; who sends thousands shall not hold up everybody else.
        is_large = len(body) > LARGE_BODY
        sessions = await self._in_thread(_decoded_keys, place, body) if is_large else _decoded_keys(place, body)
        async with self._queue.queue(user_id):
            try:
                stored = await self._store.put(user_id, _number(version), sessions, MAX_KEYS, MAX_BYTES)
            except WrongVersion as wrong:
                raise _wrong_version(wrong.latest) from None
            except TooMuch:
                raise too_large(
                    f"A key backup has room for {MAX_KEYS} keys, and for {MAX_BYTES} bytes of session data."
                ) from None
        return _shown(stored)

    async def keys(self, user_id: str, version: str, place: Place) -> bytes:
        """The keys of a place, as JSON of the place's form. Raises 404 M_NOT_FOUND."""
        number = _number(version)
        if place.room_id is not None and place.session_id is not None:
            key = await self._store.session(user_id, number, place.room_id, place.session_id)
            if key is None:
                raise not_found("This key is not in the backup.")
            return key.encode()
        rooms = await self._store.rooms(user_id, number, place.room_id)
        if rooms is None:
            raise _no_backup()
        if place.room_id is None:
            named = ",".join(f'{room}:{{"sessions":{sessions}}}' for room, sessions in rooms)
            return f'{{"rooms":{{{named}}}}}'.encode()
        return f'{{"sessions":{rooms[0][1] if rooms else "{}"}}}'.encode()

    async def remove(self, user_id: str, version: str, place: Place) -> dict[str, Any]:
        """Deletes the keys of a place; that there are none is no error. Raises 404 M_NOT_FOUND."""
        async with self._queue.queue(user_id):
            stored = await self._store.remove(user_id, _number(version), place)
        if stored is None:
            raise _no_backup()
        return _shown(stored)

    async def _existing(self, user_id: str, version: str | None) -> Backup:
        backup = await self._store.get(user_id, None if version is None else _number(version))
        if backup is None:
            raise _no_backup()
        return backup


def _shown(stored: Stored) -> dict[str, Any]:
    return {"etag": str(stored.etag), "count": stored.keys}


def _number(version: str) -> int:
    """The version as it is kept; 0, which no backup has, for what we have never given out."""
    return int(version) if _VERSION.fullmatch(version) else 0


def _no_backup() -> MatrixError:
    return not_found("You have no key backup of this version.")


def _wrong_version(latest: int | None) -> MatrixError:
    if latest is None:
        return _no_backup()
    message = "Keys can only be stored in the latest backup, and this is not it."
    return MatrixError(403, Codes.WRONG_ROOM_KEYS_VERSION, message, current_version=str(latest))


# -- what clients send -------------------------------------------------------------------------------------------------


def _decoded_keys(place: Place, body: bytes) -> list[Session]:
    return checked_keys(place, decode_object(body))


def checked_keys(place: Place, body: dict[str, Any]) -> list[Session]:
    """The keys in the body of a PUT; raises 400 M_BAD_JSON, M_MISSING_PARAM, M_INVALID_PARAM; 413 M_TOO_LARGE."""
    if place.room_id is None:
        rooms = {room_id: keys.sessions for room_id, keys in convert(body, AllKeys).rooms.items()}
    elif place.session_id is None:
        rooms = {place.room_id: convert(body, RoomKeys).sessions}
    else:
        rooms = {place.room_id: {place.session_id: convert(body, KeyData)}}
    return [
        _checked_key(room_id, session_id, key) for room_id, keys in rooms.items() for session_id, key in keys.items()
    ]


def _checked_key(room_id: str, session_id: str, key: KeyData) -> Session:
    if not room_id.startswith("!"):
        raise invalid_param("Keys are stored by room, and a room ID begins with '!'.")
    for name, value in (("room", room_id), ("session", session_id)):
        if not value or not fits(value) or "\x00" in value:
            raise invalid_param(f"The ID of a {name} has 1 to {MAX_ID_BYTES} bytes, and no NUL character.")
    data = _encoded("session_data", key.session_data, MAX_SESSION_DATA_BYTES)
    return Session(room_id, session_id, key.first_message_index, key.forwarded_count, key.is_verified, data)


def _encoded(name: str, value: Any, limit: int) -> str:
    if (problem := problem_of(value)) is not None:
        raise invalid_param(f"'{name}' cannot be stored: {problem}.")
    text = orjson.dumps(value)
    if len(text) > limit:
        raise too_large(f"'{name}' has at most {limit} bytes.")
    return text.decode()
