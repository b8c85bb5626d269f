"""Endpoints of the content repository: upload, download and thumbnails, under their old and their authenticated paths.

Client-server API, "Content repository".
"""

from __future__ import annotations

from typing import Any, Final

from synapse.api.errors import Codes, MatrixError, invalid_param
from synapse.handlers.media import File, Media
from synapse.http.server import Answer, FileAnswer, Request, serves
from synapse.media import thumbnails
from synapse.media.headers import byte_range, checked_name, media_headers

_DEFAULT_WAIT_MS: Final = 20_000


class MediaContent:
    """Files in and out."""

    def __init__(self, media: Media) -> None:
        self._media = media

    @serves("media_config", "media_config_authenticated")
    async def config(self, request: Request) -> dict[str, Any]:
        return {"m.upload.size": self._media.max_upload}

    @serves("media_upload")
    async def upload(self, request: Request) -> dict[str, Any]:
        uri = await self._media.upload(
            request.user.user_id, request.stream, request.headers.get("content-type"), request.arg("filename")
        )
        return {"content_uri": uri}

    @serves("media_create")
    async def create(self, request: Request) -> dict[str, Any]:
        return await self._media.reserve(request.user.user_id)

    @serves("media_upload_to")
    async def upload_to(self, request: Request, server_name: str, media_id: str) -> dict[str, Any]:
        await self._media.upload_to(
            request.user.user_id,
            server_name,
            media_id,
            request.stream,
            request.headers.get("content-type"),
            request.arg("filename"),
        )
        return {}

    @serves("media_download", "media_download_authenticated")
    async def download(self, request: Request, server_name: str, media_id: str, file_name: str) -> Answer:
        file = await self._media.download(server_name, media_id, _wait(request))
        return _answer(request, file._replace(name=checked_name(file_name) or file.name))

    @serves("media_thumbnail", "media_thumbnail_authenticated")
    async def thumbnail(self, request: Request, server_name: str, media_id: str) -> Answer:
        width, height = (request.int_arg(name, minimum=1) for name in ("width", "height"))
        if width is None or height is None:
            raise invalid_param("The parameters 'width' and 'height' are needed.")
        method = request.choice_arg("method", thumbnails.METHODS, thumbnails.SCALE)
        request.bool_arg("animated")  # checked and then passed over, as the specification allows: ours stand still
        size = thumbnails.choose(width, height, method)
        return _answer(request, await self._media.thumbnail(server_name, media_id, size, _wait(request)))


def _wait(request: Request) -> int:
    return request.int_arg("timeout_ms", _DEFAULT_WAIT_MS)


def _answer(request: Request, file: File) -> Answer:
    """The file, or the part of it that was asked for."""
    headers = media_headers(file.media_type, file.name)
    whole = FileAnswer(file.file, file.media_type, headers)
    try:
        part = byte_range(request.headers.get("range"), whole.length)
    except ValueError:
        file.file.close()
        raise MatrixError(
            416, Codes.INVALID_PARAM, f"The file has {whole.length} bytes, the range none of them."
        ) from None
    if part is None:
        return whole
    first, last = part
    file.file.seek(first)
    content_range = ("Content-Range", f"bytes {first}-{last}/{whole.length}")
    return FileAnswer(file.file, file.media_type, (*headers, content_range), length=last - first + 1, code=206)
