"""Tokens of lists that are given out page by page: a few plain values, packed so that clients see no sense in them.

They are no secret and prove nothing: whoever unpacks one checks what it means.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import orjson

MAX_LENGTH = 2_000


def pack(*values: Any) -> str:
    """A token of values that JSON knows."""
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def unpack(token: str, *kinds: type | tuple[type, ...]) -> list[Any] | None:
    """The values of a token, if it has one of each of these kinds; None for anything else.

    Whole numbers are within 64 bits; a text has no NUL. `bool` is not taken for `int`.
    """
    if len(token) > MAX_LENGTH or not token.isascii():
        return None
    try:
        values = orjson.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        return None
    if not isinstance(values, list) or len(values) != len(kinds):
        return None
    return values if all(map(_is_of, values, kinds)) else None


def _is_of(value: Any, kinds: type | tuple[type, ...]) -> bool:
    allowed = kinds if isinstance(kinds, tuple) else (kinds,)
    if type(value) not in allowed:
        return False
    if isinstance(value, int):
        return abs(value) < 2**63
    return not isinstance(value, str) or "\x00" not in value
