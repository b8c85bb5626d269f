"""What handlers answer with, and how that becomes bytes."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any, BinaryIO, Final

import msgspec

from synapse.api.errors import MatrixError

JSON_TYPE: Final = "application/json"

_encoder = msgspec.json.Encoder()
encode_json = _encoder.encode

Headers = tuple[tuple[str, str], ...]


class Answer:
    """A status, a body and headers. `content_type` None: no such header."""

    __slots__ = ("body", "code", "content_type", "headers")

    def __init__(
        self, code: int, body: bytes = b"", headers: Headers = (), content_type: str | None = JSON_TYPE
    ) -> None:
        self.code = code
        self.body = body
        self.headers = headers
        self.content_type = content_type

    @property
    def length(self) -> int:
        return len(self.body)

    def __repr__(self) -> str:
        return f"Answer({self.code}, {self.body[:200]!r}, {self.headers!r})"


class RawJson(Answer):
    """A body that is JSON already, with status 200."""

    __slots__ = ()

    def __init__(self, body: bytes, code: int = 200, headers: Headers = ()) -> None:
        super().__init__(code, body, headers)


class FileAnswer(Answer):
    """A file, sent from where it stands, in pieces, without being held in memory. The server closes it.

    `length` is how many bytes are sent; without it, all that follow.
    """

    __slots__ = ("_length", "file")

    def __init__(
        self,
        file: BinaryIO,
        content_type: str,
        headers: Headers = (),
        *,
        length: int | None = None,
        code: int = 200,
    ) -> None:
        super().__init__(code, b"", headers, content_type)
        self.file = file
        self._length = os.fstat(file.fileno()).st_size - file.tell() if length is None else length

    @property
    def length(self) -> int:
        return self._length


Json = dict[str, Any] | list[Any] | msgspec.Struct | Answer


def as_answer(result: Json) -> Answer:
    """What a handler returned, as an answer. Raises TypeError for what cannot be JSON."""
    return result if isinstance(result, Answer) else Answer(200, encode_json(result))


def error_answer(error: MatrixError) -> Answer:
    """The spec's standard error response ("Standard error response", and "Rate limiting" for Retry-After)."""
    headers: Headers = ()
    retry = error.fields.get("retry_after_ms")
    if isinstance(retry, int):
        headers = (("Retry-After", str(-(-retry // 1000))),)
    return Answer(error.code, encode_json(error.body()), headers)


def redirect(location: str, code: int = 302, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    return Answer(code, b"", (("Location", location), *headers), None)
