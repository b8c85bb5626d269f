"""Passwords: hashing them, and checking one against a hash; on threads, of which only some may be busy with it.

Who may log in is not decided here, nor how a hash is made (`synapse.handlers.password_hashes`). What is hashed is an
HMAC of the password with the configured pepper: so neither long passwords nor long peppers are cut off, and a copy of
the database alone lets nobody guess.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import DeferredSemaphore

from synapse.api.errors import Codes, MatrixError, limit_exceeded
from synapse.handlers import password_hashes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.handlers.password_hashes import Algorithm

MAX_PASSWORD: Final = 512
"""In characters: enough for every password manager."""

MAX_WAITING: Final = 100
"""Passwords that wait for their turn at most; whoever comes then is asked to come again."""


class Passwords:
    """Hashes and checks passwords.

    :param pepper: a secret outside the database that goes into every hash.
    :param algorithm: that new hashes are made by.
    :param at_once: how many hashes this process makes and checks at the same time.
    :param in_thread: runs a function on a pool thread.
    """

    def __init__(
        self, pepper: str, algorithm: Algorithm, at_once: int, in_thread: Callable[..., Awaitable[Any]]
    ) -> None:
        self._pepper = pepper.encode()
        self._algorithm = algorithm
        self._turns = DeferredSemaphore(at_once)
        self._in_thread = in_thread
        self._nobodys_hash: str | None = None

    async def hash(self, password: str) -> str:
        """The text to store. Raises 400 M_INVALID_PARAM or M_WEAK_PASSWORD for what cannot be a password, 429."""
        check_acceptable(password)
        return await self._new_hash(password)

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Whether this is the password of the hash. Without one the answer is no, after the same time. Raises 429."""
        if len(password) > MAX_PASSWORD:
            return False
        nobodys_hash = await self._hash_of_nobody()  # made by whoever comes first, whether or not that is somebody
        stored = password_hash or nobodys_hash
        fits: bool = await self._at_its_turn(password_hashes.check, self._digest(password), stored)
        return fits and password_hash is not None

    async def renewed(self, password: str, password_hash: str) -> str | None:
        """Another hash of the same password, where this one was not made as hashes are made now."""
        return None if self._algorithm.is_current(password_hash) else await self._new_hash(password)

    async def _new_hash(self, password: str) -> str:
        made: str = await self._at_its_turn(self._algorithm.hash, self._digest(password))
        return made

    async def _hash_of_nobody(self) -> str:
        """What the password of an unknown user is compared with, so that the time taken does not tell who exists."""
        if self._nobodys_hash is None:
            self._nobodys_hash = await self._new_hash("nobody's password")
        return self._nobodys_hash

    async def _at_its_turn(self, function: Callable[..., Any], *args: object) -> Any:
        if len(self._turns.waiting) >= MAX_WAITING:
            raise limit_exceeded(2000, "Too many people are logging in at this moment.")
        await self._turns.acquire()
        try:
            return await self._in_thread(function, *args)
        finally:
            self._turns.release()

    def _digest(self, password: str) -> bytes:
        normal = unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
        return base64.b64encode(hmac.digest(self._pepper, normal, hashlib.sha256))


def check_acceptable(password: str) -> None:
    """Raises 400 for a password that nobody could have or that is none."""
    if not password:
        raise MatrixError(400, Codes.WEAK_PASSWORD, "The password may not be empty.")
    if len(password) > MAX_PASSWORD:
        raise MatrixError(400, Codes.INVALID_PARAM, f"A password has at most {MAX_PASSWORD} characters.")
