"""Access and refresh tokens as text: making them, and telling at a glance what cannot be one of ours.

A token reads `syt_<unpadded base64 of the localpart>_<20 random letters>_<6 characters of CRC>`. A proxy can take the
user from it to choose a worker; a scanner can recognise it in a leaked file; its secret are the 20 letters (114 bits).
The CRC is over all that stands before it. A refresh token reads the same, but for its beginning `syr_`.
"""

from __future__ import annotations

import base64
import hashlib
import string
import zlib
from typing import Final

from synapse.api.identifiers import localpart_of, random_letters

ACCESS: Final = "syt_"
REFRESH: Final = "syr_"
MAX_TOKEN: Final = 512
_DIGITS: Final = string.digits + string.ascii_letters


def make_token(user_id: str, prefix: str = ACCESS) -> str:
    """A new access token for the user, or (`REFRESH`) a new refresh token."""
    localpart = base64.b64encode(localpart_of(user_id).encode()).decode().rstrip("=")
    body = f"{prefix}{localpart}_{random_letters(20)}"
    return f"{body}_{_crc(body)}"


def hash_token(token: str) -> bytes:
    """What is stored in place of the token: its SHA-256."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def is_plausible(token: str, prefix: str = ACCESS) -> bool:
    """False for what we cannot have issued, so that no database needs to be asked."""
    if not token.startswith(prefix) or len(token) > MAX_TOKEN:
        return False
    body, _, crc = token.rpartition("_")
    return crc == _crc(body)


def _crc(text: str) -> str:
    number = zlib.crc32(text.encode("utf-8", "surrogatepass"))
    digits = []
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))
