"""The algorithms by which passwords are hashed. Each takes its time on purpose, so all of it runs on threads.

What goes in is a digest of fixed length (`synapse.handlers.passwords`); what comes out is text that says which
algorithm made it, at which cost. So hashes of every kind can be checked at any time, and those are found that were made
by another algorithm than the configured one, or at another cost.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from argon2 import PasswordHasher

_ARGON2: Final = "$argon2"
_BCRYPT: Final = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}")


class Algorithm(Protocol):
    """Makes hashes."""

    def hash(self, digest: bytes) -> str:
        """With a new salt each time."""

    def is_current(self, stored: str) -> bool:
        """Whether this algorithm, at this cost, made the hash."""


class Bcrypt:
    """:param rounds: one more doubles the time."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def hash(self, digest: bytes) -> str:
        import bcrypt

        return bcrypt.hashpw(digest, bcrypt.gensalt(self._rounds)).decode()

    def is_current(self, stored: str) -> bool:
        return _BCRYPT.fullmatch(stored) is not None and int(stored[4:6]) == self._rounds


class Argon2:
    """Argon2id (RFC 9106).

    :param passes: over the memory; twice as many take twice the time.
    :param memory: in bytes.
    :param lanes: that a machine of as many processors could fill at the same time.
    """

    def __init__(self, passes: int, memory: int, lanes: int) -> None:
        self._costs = passes, memory // 1024, lanes

    @cached_property
    def _hasher(self) -> PasswordHasher:
        from argon2 import PasswordHasher

        return PasswordHasher(*self._costs)

    def hash(self, digest: bytes) -> str:
        return self._hasher.hash(digest)

    def is_current(self, stored: str) -> bool:
        from argon2.exceptions import InvalidHashError

        try:
            return not self._hasher.check_needs_rehash(stored)
        except InvalidHashError:
            return False


def check(digest: bytes, stored: str) -> bool:
    """Whether the hash, of whichever kind, is of this digest. What is no hash is of none."""
    return _check_argon2(digest, stored) if stored.startswith(_ARGON2) else _check_bcrypt(digest, stored)


def _check_bcrypt(digest: bytes, stored: str) -> bool:
    import bcrypt

    try:
        return bcrypt.checkpw(digest, stored.encode())
    except ValueError:
        return False


def _check_argon2(digest: bytes, stored: str) -> bool:
    from argon2 import PasswordHasher
    from argon2.exceptions import Argon2Error, InvalidHashError

    try:
        return PasswordHasher().verify(stored, digest)
    except (Argon2Error, InvalidHashError):
        return False
