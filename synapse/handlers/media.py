"""The content repository: taking files in, giving them out, and their thumbnails.

Bytes go straight between the network and the disk: a file is never in memory as a whole. A file is only announced to
anybody once it is on disk and in the database. Files of other servers come over federation, which is not done here.

Client-server API, "Content repository".
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from twisted.internet.defer import Deferred

from synapse.api.errors import Codes, MatrixError, forbidden, limit_exceeded, not_found, too_large
from synapse.api.identifiers import random_letters
from synapse.media import thumbnails
from synapse.media.filestore import is_media_id, open_file
from synapse.media.headers import checked_name, checked_type
from synapse.storage.media import Thumbnail, Upload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.http.request import BodyStream
    from synapse.media.filestore import FileStore, Incoming
    from synapse.storage.media import LocalMedia, MediaStore
    from synapse.util.clock import Clock

    InThread = Callable[..., Awaitable[Any]]
    _Store = Callable[[Upload, Callable[[], None]], Awaitable[bool]]

RESERVED_FOR_MS: Final = 24 * 3600 * 1000
MAX_RESERVED: Final = 50
"""Announced and not yet uploaded files that a user may have at a time."""

MAX_WAIT_MS: Final = 60_000
_POLL_SECONDS: Final = 1.0
_BATCH: Final = 1 << 18  # bytes gathered before a thread is bothered


class File(NamedTuple):
    """A file that is open for reading, and how it was called when it was uploaded."""

    file: BinaryIO
    media_type: str
    name: str | None


class Media:
    """Uploads, downloads, thumbnails.

    :param in_thread: runs a blocking function on a pool thread.
    :param max_upload: bytes.
    """

    def __init__(
        self,
        store: MediaStore,
        files: FileStore,
        clock: Clock,
        in_thread: InThread,
        server_name: str,
        max_upload: int,
    ) -> None:
        self._store = store
        self._files = files
        self._clock = clock
        self._in_thread = in_thread
        self._server_name = server_name
        self._waiters: dict[str, list[Deferred[None]]] = {}
        self._making: dict[tuple[str, thumbnails.Size], Deferred[None]] = {}
        self.max_upload = max_upload

    # -- taking in ------------------------------------------------------------------------------------------------

    async def upload(self, user_id: str, body: BodyStream, media_type: str | None, name: str | None) -> str:
        """Stores a new file; returns its mxc:// URI. Raises 413 M_TOO_LARGE."""
        media_id = random_letters(24)
        await self._receive(media_id, user_id, body, media_type, name, self._store.add_local)
        return self._uri(media_id)

    async def reserve(self, user_id: str) -> dict[str, Any]:
        """Announces a file that will be uploaded later. Raises 429 M_LIMIT_EXCEEDED."""
        media_id, now = random_letters(24), self._now()
        expires = now + RESERVED_FOR_MS
        if not await self._store.reserve(media_id, user_id, now, expires, MAX_RESERVED):
            raise limit_exceeded(60_000, f"You have {MAX_RESERVED} announced uploads to finish first.")
        return {"content_uri": self._uri(media_id), "unused_expires_at": expires}

    async def upload_to(
        self, user_id: str, server_name: str, media_id: str, body: BodyStream, media_type: str | None, name: str | None
    ) -> None:
        """Uploads what was announced. Raises 404 M_NOT_FOUND, 403 M_FORBIDDEN, 409 M_CANNOT_OVERWRITE_MEDIA, 413."""
        media = await self._local(media_id) if server_name == self._server_name else None
        if media is None:
            raise not_found("No upload of that ID was announced.")
        if media.user_id != user_id:
            raise forbidden("Only the user who announced this upload can make it.")
        if media.media_length is None and (media.unused_expires_ts or 0) <= self._now():
            raise not_found("The announced upload has expired; announce a new one.")
        if media.media_length is not None or not await self._receive(
            media_id, user_id, body, media_type, name, self._store.fill
        ):
            raise MatrixError(409, Codes.CANNOT_OVERWRITE_MEDIA, "This file has been uploaded already.")
        for waiter in self._waiters.pop(media_id, []):
            waiter.callback(None)

    async def _receive(
        self, media_id: str, user_id: str, body: BodyStream, media_type: str | None, name: str | None, store: _Store
    ) -> bool:
        """Takes the body in, and has `store` write it down and put the file in its place."""
        incoming = await self._read(body)
        try:
            digest = await self._in_thread(incoming.complete)
            kind, name = checked_type(media_type), checked_name(name)
            upload = Upload(media_id, user_id, kind, incoming.length, name, self._now(), digest)
            return await store(upload, partial(incoming.place, self._files.local(media_id)))
        finally:
            incoming.discard()

    async def _read(self, body: BodyStream) -> Incoming:
        """The whole body in a temporary file."""
        body.limit(self.max_upload)
        incoming: Incoming = await self._in_thread(self._files.begin)
        try:
            gathered = bytearray()
            while piece := await body.read():
                gathered += piece
                if incoming.length + len(gathered) > self.max_upload:
                    raise too_large(f"Files may have {self.max_upload} bytes at most.")
                if len(gathered) >= _BATCH:
                    await self._in_thread(incoming.write, bytes(gathered))
                    gathered.clear()
            await self._in_thread(incoming.write, bytes(gathered))
        except BaseException:
            incoming.discard()
            raise
        return incoming

    # -- giving out -----------------------------------------------------------------------------------------------

    async def download(self, server_name: str, media_id: str, timeout_ms: int) -> File:
        """Waits up to `timeout_ms` for a file that is announced. Raises 404 M_NOT_FOUND, 504 M_NOT_YET_UPLOADED."""
        media = await self._ready(server_name, media_id, timeout_ms)
        file = open_file(self._files.local(media_id))
        if file is None:
            raise not_found("The file is gone.")
        return File(file, media.media_type, media.upload_name)

    async def thumbnail(self, server_name: str, media_id: str, size: thumbnails.Size, timeout_ms: int) -> File:
        """The thumbnail of a size of ours. Raises like `download`, and 400 M_UNKNOWN or 413 M_TOO_LARGE."""
        media = await self._ready(server_name, media_id, timeout_ms)
        if media.media_type.partition(";")[0].strip().lower() not in thumbnails.TYPES:
            raise thumbnails.not_a_picture()
        path = self._files.local_thumbnail(media_id, *size)
        made = await self._store.thumbnail(media_id, *size)
        file = open_file(path) if made is not None else None
        if made is None or file is None:
            made = await self._made_once(media_id, size, path)
            file = open_file(path)
        if file is None:
            raise not_found("The thumbnail is gone.")
        return File(file, made.media_type, media.upload_name)

    async def _ready(self, server_name: str, media_id: str, timeout_ms: int) -> LocalMedia:
        if server_name != self._server_name:
            raise not_found("Files of other servers cannot be fetched.")
        until = self._now() + min(timeout_ms, MAX_WAIT_MS)
        while True:
            media = await self._local(media_id)
            if media is None or media.quarantined_by is not None:
                raise not_found("There is no such file.")
            if media.media_length is not None:
                return media
            if self._now() >= until or (media.unused_expires_ts or 0) <= self._now():
                raise MatrixError(504, Codes.NOT_YET_UPLOADED, "The file has not been uploaded yet.")
            await self._wait_for(media_id)

    async def _wait_for(self, media_id: str) -> None:
        """Until the file is uploaded here, or for a moment: it may be uploaded to another process."""
        waiter: Deferred[None] = Deferred()
        waiters = self._waiters.setdefault(media_id, [])
        waiters.append(waiter)
        timer = self._clock.callLater(_POLL_SECONDS, waiter.callback, None)
        try:
            await waiter
        finally:
            if timer.active():
                timer.cancel()
            if waiter in waiters:
                waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(media_id, None)

    async def _local(self, media_id: str) -> LocalMedia | None:
        return await self._store.get_local(media_id) if is_media_id(media_id) else None

    # -- thumbnails -----------------------------------------------------------------------------------------------

    async def _made_once(self, media_id: str, size: thumbnails.Size, path: str) -> Thumbnail:
        """Makes a thumbnail; whoever wants the same one at the time waits for it instead of making it too."""
        key = (media_id, size)
        while key in self._making:
            waiter: Deferred[None] = Deferred()
            self._making[key].chainDeferred(waiter)
            await waiter
            known = await self._store.thumbnail(media_id, *size)
            if known is not None:
                return known
        done = self._making[key] = Deferred()
        try:
            return await self._make(media_id, size, path)
        finally:
            del self._making[key]
            done.callback(None)

    async def _make(self, media_id: str, size: thumbnails.Size, path: str) -> Thumbnail:
        media_type, length = await self._in_thread(self._make_file, self._files.local(media_id), size, path)
        thumbnail = Thumbnail(media_id, *size, media_type, length)
        await self._store.add_thumbnail(thumbnail)
        return thumbnail

    def _make_file(self, source: str, size: thumbnails.Size, path: str) -> tuple[str, int]:
        made = thumbnails.make(source, size)
        incoming = self._files.begin()
        try:
            incoming.write(made.data)
            incoming.complete()
            incoming.place(path)
        finally:
            incoming.discard()
        return made.media_type, len(made.data)

    def _uri(self, media_id: str) -> str:
        return f"mxc://{self._server_name}/{media_id}"

    def _now(self) -> int:
        return int(self._clock.seconds() * 1000)
