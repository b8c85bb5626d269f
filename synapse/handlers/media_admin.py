"""What administrators do with media: dropping copies of other servers' files, and quarantine.

A file in quarantine is not served any more, and stays where it is as evidence.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import orjson

from synapse.api.identifiers import is_server_name
from synapse.media.filestore import is_media_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.media.filestore import FileStore
    from synapse.storage.media import MediaStore

_BATCH: Final = 100
_URI: Final = re.compile(r"mxc://([^/?#]+)/([^/?#]+)")


class MediaAdmin:
    """The administrators' operations on media."""

    def __init__(
        self, store: MediaStore, files: FileStore, in_thread: Callable[..., Awaitable[Any]], server_name: str
    ) -> None:
        self._store = store
        self._files = files
        self._in_thread = in_thread
        self._server_name = server_name

    async def purge_remote(self, before_ts: int) -> int:
        """Deletes copies that nobody has fetched since that time (milliseconds); returns how many."""
        count = 0
        while batch := await self._store.remote_unused_since(before_ts, _BATCH):
            for media in batch:
                await self._in_thread(self._files.delete_remote, media.filesystem_id)
            await self._store.delete_remote([(media.origin, media.media_id) for media in batch])
            count += len(batch)
        return count

    async def in_room(self, room_id: str) -> tuple[list[str], list[str]]:
        """The mxc:// URIs that a room's readable events mention: ours, and those of other servers."""
        found = await self._found_in(room_id)
        uris = {True: [], False: []}  # type: dict[bool, list[str]]
        for origin, media_id in found:
            uris[origin == self._server_name].append(f"mxc://{origin}/{media_id}")
        return uris[True], uris[False]

    async def quarantine_room(self, room_id: str, admin: str) -> int:
        """Quarantines all files that the room mentions; returns how many were not before."""
        found = await self._found_in(room_id)
        return await self._store.quarantine(found, self._server_name, admin) if found else 0

    async def _found_in(self, room_id: str) -> list[tuple[str, str]]:
        events = await self._store.events_with_urls(room_id)
        found = [item for event in events for item in media_in(orjson.loads(event).get("content"))]
        return list(dict.fromkeys(found))


def media_in(content: object) -> list[tuple[str, str]]:
    """The media that an event's content shows, as (origin, media id): the file itself and its thumbnail."""
    if not isinstance(content, dict):
        return []
    info = content["info"] if isinstance(content.get("info"), dict) else {}
    places = [content.get("url"), content.get("avatar_url"), info.get("thumbnail_url")]
    places += [file.get("url") for file in (content.get("file"), info.get("thumbnail_file")) if isinstance(file, dict)]
    matches = [_URI.fullmatch(place) for place in places if isinstance(place, str)]
    return [(m[1], m[2]) for m in matches if m is not None and is_server_name(m[1]) and is_media_id(m[2])]
