"""The headers that media go out with: never may a file that somebody uploaded act as a page of this server.

Client-server API, "Content repository", "Serving inline content".
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

OCTET_STREAM: Final = "application/octet-stream"
MAX_NAME: Final = 255

INLINE_TYPES: Final = frozenset(
    (
        *("text/css", "text/plain", "text/csv", "application/json", "application/ld+json"),
        *("image/jpeg", "image/gif", "image/png", "image/apng", "image/webp", "image/avif"),
        *("video/mp4", "video/webm", "video/ogg", "video/quicktime"),
        *("audio/mp4", "audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave", "audio/wav"),
        *("audio/x-wav", "audio/x-pn-wav", "audio/flac", "audio/x-flac"),
    )
)

# The policy that the specification recommends.
_POLICY: Final = (
    "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
    "style-src 'unsafe-inline'; object-src 'self';"
)
_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:\s*;[\x20-\x7e]*)?", re.ASCII)
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9 !#$&+.^_`|~(){}@=,'-]+", re.ASCII)
_RANGE: Final = re.compile(r"bytes=(\d{0,15})-(\d{0,15})", re.ASCII)


def checked_type(header: str | None) -> str:
    """The type to remember of an upload: what was given, if it is a media type at all."""
    given = (header or "").strip()
    return given if len(given) <= MAX_NAME and _TYPE.fullmatch(given) else OCTET_STREAM


def checked_name(name: str | None) -> str | None:
    """The file name to remember: without control characters (they could end a header) and of bounded length."""
    clean = "".join(char for char in name or "" if char.isprintable())[:MAX_NAME]
    return clean or None


def media_headers(media_type: str, name: str | None) -> tuple[tuple[str, str], ...]:
    """All headers of an answer with media, but its type and length."""
    return (
        ("Content-Disposition", disposition(media_type, name)),
        ("Content-Security-Policy", _POLICY),
        ("Cross-Origin-Resource-Policy", "cross-origin"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", "private, max-age=86400, immutable"),
        ("Accept-Ranges", "bytes"),
    )


def disposition(media_type: str, name: str | None) -> str:
    """`inline` for types that browsers show without danger, with the file name in a form that every client reads."""
    essence = media_type.partition(";")[0].strip().lower()
    kind = "inline" if essence in INLINE_TYPES else "attachment"
    if name is None:
        return kind
    if _PLAIN_NAME.fullmatch(name):
        return f'{kind}; filename="{name}"'
    return f"{kind}; filename*=utf-8''{quote(name, safe='')}"


def byte_range(header: str | None, length: int) -> tuple[int, int] | None:
    """First and last byte that a `Range` asks for; None where the whole file is to be sent.

    Raises `ValueError` if the range lies beyond the file. Several ranges at once are answered with the whole.
    """
    match = _RANGE.fullmatch(header or "")
    if match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        first, last = max(0, length - int(match[2])), length - 1
    else:
        first, last = int(match[1]), min(int(match[2] or length - 1), length - 1)
    if first >= length or (match[2] != "" and match[1] != "" and int(match[2]) < int(match[1])):
        raise ValueError("the range lies beyond the file")
    return first, last
