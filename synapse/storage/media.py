"""What we know of media: uploads of our users, their thumbnails, and copies of other servers' files.

The bytes are in the file store (`synapse.media.filestore`). A row without `media_length` is announced, not uploaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class LocalMedia:
    """A row of `local_media`; lengths in bytes, times in milliseconds since the epoch."""

    media_id: str
    user_id: str | None
    media_type: str
    media_length: int | None
    upload_name: str | None
    created_ts: int
    unused_expires_ts: int | None
    quarantined_by: str | None


class Upload(NamedTuple):
    """A finished upload."""

    media_id: str
    user_id: str
    media_type: str
    media_length: int
    upload_name: str | None
    created_ts: int
    sha256: bytes


class Thumbnail(NamedTuple):
    """A stored thumbnail; width and height in pixels are those that were asked for, not those of the picture."""

    media_id: str
    width: int
    height: int
    method: str
    media_type: str
    media_length: int


class RemoteMedia(NamedTuple):
    """A copy of another server's file; `filesystem_id` names the file in our store."""

    origin: str
    media_id: str
    media_type: str
    media_length: int
    upload_name: str | None
    filesystem_id: str
    quarantined_by: str | None


_LOCAL = "media_id, user_id, media_type, media_length, upload_name, created_ts, unused_expires_ts, quarantined_by"
_REMOTE = "origin, media_id, media_type, media_length, upload_name, filesystem_id, quarantined_by"


class MediaStore:
    """Reads and writes media rows, in any process."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get_local(self, media_id: str) -> LocalMedia | None:
        return await self._db.read("media.get_local", _get_local, media_id)

    async def reserve(self, media_id: str, user_id: str, now: int, expires_ts: int, limit: int) -> bool:
        """Announces an upload; False if the user has `limit` announced ones already that have not expired."""
        return await self._db.write("media.reserve", _reserve, media_id, user_id, now, expires_ts, limit)

    async def add_local(self, upload: Upload, place: Callable[[], None]) -> bool:
        """Writes a new upload down, and has `place` put the file where it belongs before that is final. Always True."""
        return await self._db.write("media.add_local", _add_local, upload, place)

    async def fill(self, upload: Upload, place: Callable[[], None]) -> bool:
        """Completes an announced upload like `add_local`; False, and no file placed, if somebody completed it first."""
        return await self._db.write("media.fill", _fill, upload, place)

    async def forget_expired(self, now: int) -> None:
        """Drops announcements of uploads that were never made."""
        await self._db.write("media.forget_expired", _forget_expired, now)

    async def thumbnail(self, media_id: str, width: int, height: int, method: str) -> Thumbnail | None:
        return await self._db.read("media.thumbnail", _thumbnail, media_id, width, height, method)

    async def add_thumbnail(self, thumbnail: Thumbnail) -> None:
        await self._db.write("media.add_thumbnail", _add_thumbnail, thumbnail)

    async def get_remote(self, origin: str, media_id: str) -> RemoteMedia | None:
        return await self._db.read("media.get_remote", _get_remote, origin, media_id)

    async def remote_unused_since(self, before: int, limit: int) -> list[RemoteMedia]:
        """Copies not fetched since that time (milliseconds) and not quarantined."""
        return await self._db.read("media.remote_unused_since", _remote_unused_since, before, limit)

    async def delete_remote(self, media: list[tuple[str, str]]) -> None:
        """Forgets copies, given as (origin, media id)."""
        await self._db.write("media.delete_remote", _delete_remote, media)

    async def quarantine(self, media: list[tuple[str, str]], server_name: str, admin: str) -> int:
        """Quarantines files, given as (origin, media id), and returns how many were not before."""
        return await self._db.write("media.quarantine", _quarantine, media, server_name, admin)

    async def events_with_urls(self, room_id: str) -> list[str]:
        """The JSON of the room's events that speak of a URL, for whoever looks for media in them."""
        return await self._db.read("media.events_with_urls", _events_with_urls, room_id)


def _get_local(txn: Transaction, media_id: str) -> LocalMedia | None:
    txn.execute(f"SELECT {_LOCAL} FROM local_media WHERE media_id = %s", (media_id,))
    row = txn.one_or_none()
    return None if row is None else LocalMedia(*row)


def _reserve(txn: Transaction, media_id: str, user_id: str, now: int, expires_ts: int, limit: int) -> bool:
    txn.execute(
        """
        SELECT COUNT(*) FROM local_media
        WHERE user_id = %s AND media_length IS NULL AND unused_expires_ts > %s
        """,
        (user_id, now),
    )
    if int(txn.one()[0]) >= limit:
        return False
    txn.execute(
        """
        INSERT INTO local_media (media_id, user_id, media_type, created_ts, unused_expires_ts)
        VALUES (%s, %s, 'application/octet-stream', %s, %s)
        """,
        (media_id, user_id, now, expires_ts),
    )
    return True


def _add_local(txn: Transaction, upload: Upload, place: Callable[[], None]) -> bool:
    txn.execute(
        """
        INSERT INTO local_media (media_id, user_id, media_type, media_length, upload_name, created_ts, sha256)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        upload,
    )
    place()
    return True


def _fill(txn: Transaction, upload: Upload, place: Callable[[], None]) -> bool:
    """Of two that upload at the same time, the other waits for the row, so the file is that of the one who gets it."""
    txn.execute(
        """
        UPDATE local_media SET media_type = %s, media_length = %s, upload_name = %s, sha256 = %s
        WHERE media_id = %s AND user_id = %s AND media_length IS NULL RETURNING true
        """,
        (
            upload.media_type,
            upload.media_length,
            upload.upload_name,
            upload.sha256,
            upload.media_id,
            upload.user_id,
        ),
    )
    if txn.one_or_none() is None:
        return False
    place()
    return True


def _forget_expired(txn: Transaction, now: int) -> None:
    txn.execute("DELETE FROM local_media WHERE media_length IS NULL AND unused_expires_ts <= %s", (now,))


def _thumbnail(txn: Transaction, media_id: str, width: int, height: int, method: str) -> Thumbnail | None:
    txn.execute(
        """
        SELECT media_id, width, height, method, media_type, media_length FROM local_media_thumbnails
        WHERE media_id = %s AND width = %s AND height = %s AND method = %s
        """,
        (media_id, width, height, method),
    )
    row = next(iter(txn.rows()), None)
    return None if row is None else Thumbnail(*row)


def _add_thumbnail(txn: Transaction, thumbnail: Thumbnail) -> None:
    txn.execute(
        """
        INSERT INTO local_media_thumbnails (media_id, width, height, method, media_type, media_length)
        VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
        """,
        thumbnail,
    )


def _get_remote(txn: Transaction, origin: str, media_id: str) -> RemoteMedia | None:
    txn.execute(f"SELECT {_REMOTE} FROM remote_media WHERE origin = %s AND media_id = %s", (origin, media_id))
    row = txn.one_or_none()
    return None if row is None else RemoteMedia(*row)


def _remote_unused_since(txn: Transaction, before: int, limit: int) -> list[RemoteMedia]:
    txn.execute(
        f"SELECT {_REMOTE} FROM remote_media WHERE last_access_ts < %s AND quarantined_by IS NULL LIMIT %s",
        (before, limit),
    )
    return [RemoteMedia(*row) for row in txn.rows()]


def _delete_remote(txn: Transaction, media: list[tuple[str, str]]) -> None:
    txn.execute("DELETE FROM remote_media WHERE (origin, media_id) IN %s", (tuple(media),))


def _quarantine(txn: Transaction, media: list[tuple[str, str]], server_name: str, admin: str) -> int:
    local = [media_id for origin, media_id in media if origin == server_name]
    remote = [item for item in media if item[0] != server_name]
    txn.execute(
        """
        UPDATE local_media SET quarantined_by = %s
        WHERE media_id = ANY(%s) AND quarantined_by IS NULL AND NOT safe_from_quarantine RETURNING 1
        """,
        (admin, local),
    )
    count = len(txn.rows())
    if remote:
        txn.execute(
            """
            UPDATE remote_media SET quarantined_by = %s
            WHERE (origin, media_id) IN %s AND quarantined_by IS NULL RETURNING 1
            """,
            (admin, tuple(remote)),
        )
        count += len(txn.rows())
    return count


def _events_with_urls(txn: Transaction, room_id: str) -> list[str]:
    txn.execute("SELECT json FROM events WHERE room_id = %s AND contains_url AND NOT outlier", (room_id,))
    return [json for (json,) in txn.rows()]
