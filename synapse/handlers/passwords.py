"""Passwords: hashing them, and checking one against a hash; on threads, since both take their time on purpose.

Who may log in is not decided here. The hash is bcrypt over an HMAC of the password with the configured pepper: bcrypt
alone looks at 72 bytes only, and would forget the pepper behind a long password.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import unicodedata
from typing import TYPE_CHECKING, Final

from synapse.api.errors import Codes, MatrixError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MAX_PASSWORD: Final = 512
"""In characters: enough for every password manager."""


class Passwords:
    """Hashes and checks passwords.

    :param pepper: a secret outside the database that goes into every hash.
    :param rounds: bcrypt's cost; each one more doubles the time.
    :param in_thread: runs a function on a pool thread.
    """

    def __init__(self, pepper: str, rounds: int, in_thread: Callable[..., Awaitable[object]]) -> None:
        self._pepper = pepper.encode()
        self._rounds = rounds
        self._in_thread = in_thread
        self._nobodys_hash: str | None = None

    async def hash(self, password: str) -> str:
        """The text to store. Raises 400 M_INVALID_PARAM or M_WEAK_PASSWORD for what cannot be a password."""
        check_acceptable(password)
        return str(await self._in_thread(_hash, self._digest(password), self._rounds))

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Whether this is the password of the hash. Without a hash the answer is no, after the same time."""
        if len(password) > MAX_PASSWORD:
            return False
        stored = password_hash or await self._hash_of_nobody()
        fits = await self._in_thread(_check, self._digest(password), stored)
        return bool(fits) and password_hash is not None

    async def _hash_of_nobody(self) -> str:
        """What the password of an unknown user is compared with, so that the time taken does not tell who exists."""
        if self._nobodys_hash is None:
            self._nobodys_hash = str(await self._in_thread(_hash, self._digest("nobody's password"), self._rounds))
        return self._nobodys_hash

    def _digest(self, password: str) -> bytes:
        normal = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
        return base64.b64encode(hmac.digest(self._pepper, normal, hashlib.sha256))


def check_acceptable(password: str) -> None:
    """Raises 400 for a password that nobody could have or that is none."""
    if not password:
        raise MatrixError(400, Codes.WEAK_PASSWORD, "The password may not be empty.")
    if len(password) > MAX_PASSWORD:
        raise MatrixError(400, Codes.INVALID_PARAM, f"A password has at most {MAX_PASSWORD} characters.")


def _hash(digest: bytes, rounds: int) -> str:
    import bcrypt

    return bcrypt.hashpw(digest, bcrypt.gensalt(rounds)).decode()


def _check(digest: bytes, stored: str) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(digest, stored.encode())
    except ValueError:  # not a bcrypt hash: nobody can have that password
        return False
