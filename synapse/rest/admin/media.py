"""Administrators' endpoints for media: clearing the cache, listing a room's files, quarantine."""

from __future__ import annotations

from typing import Any

from synapse.api.errors import missing_param
from synapse.api.identifiers import parse_room_id
from synapse.handlers.media_admin import MediaAdmin
from synapse.http.server import Request, serves


class AdminMedia:
    """`/_synapse/admin/v1`: purge_media_cache, room/…/media, quarantine_media."""

    def __init__(self, media: MediaAdmin) -> None:
        self._media = media

    @serves("admin_purge_media_cache")
    async def purge_cache(self, request: Request) -> dict[str, Any]:
        before = request.int_arg("before_ts")
        if before is None:
            raise missing_param("before_ts")
        return {"deleted": await self._media.purge_remote(before)}

    @serves("admin_room_media")
    async def room_media(self, request: Request, room_id: str) -> dict[str, Any]:
        local, remote = await self._media.in_room(parse_room_id(room_id))
        return {"local": local, "remote": remote}

    @serves("admin_quarantine_room_media")
    async def quarantine_room(self, request: Request, room_id: str) -> dict[str, Any]:
        count = await self._media.quarantine_room(parse_room_id(room_id), request.user.user_id)
        return {"num_quarantined": count}
