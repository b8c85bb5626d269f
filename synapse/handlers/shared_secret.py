"""Registration by whoever knows the server's registration secret, administrators' accounts included.

The secret itself is never sent: a request proves that its sender knows it, by a MAC over a nonce of ours and over what
is asked for. A nonce is good for one request, and for a minute.
"""

from __future__ import annotations

import hmac
import secrets
from typing import TYPE_CHECKING, Final

from synapse.api.errors import MatrixError, forbidden, unknown

if TYPE_CHECKING:
    from synapse.util.clock import Clock

NONCE_SECONDS: Final = 60
MAX_NONCES: Final = 10_000


class SharedSecret:
    """Hands out nonces and checks MACs.

    :param secret: None where none is configured; then everything is refused.
    """

    def __init__(self, secret: str | None, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock
        self._nonces: dict[str, float] = {}  # oldest first

    def new_nonce(self) -> str:
        """Raises 400 M_UNKNOWN where no secret is configured."""
        self._need_secret()
        self._forget_old()
        nonce = secrets.token_hex(64)
        self._nonces[nonce] = self._clock.seconds()
        return nonce

    def check(self, nonce: str, mac: str, username: str, password: str, admin: bool, user_type: str | None) -> None:
        """Raises 400 M_UNKNOWN for a nonce that is not good, 403 M_FORBIDDEN for a wrong MAC."""
        secret = self._need_secret()
        self._forget_old()
        if self._nonces.pop(nonce, None) is None:
            raise unknown("The nonce is not known or too old; please get a new one.")
        parts = [nonce, username, password, "admin" if admin else "notadmin"]
        if user_type is not None:
            parts.append(user_type)
        expected = hmac.new(secret.encode(), "\x00".join(parts).encode("utf-8", "surrogatepass"), "sha1").hexdigest()
        if not hmac.compare_digest(expected.encode(), mac.lower().encode("utf-8", "replace")):
            raise forbidden("The MAC is wrong.")

    def _need_secret(self) -> str:
        if not self._secret:
            raise no_secret()
        return self._secret

    def _forget_old(self) -> None:
        oldest = self._clock.seconds() - NONCE_SECONDS
        keep = [(nonce, at) for nonce, at in self._nonces.items() if at > oldest]
        self._nonces = dict(keep[-MAX_NONCES:])


def no_secret() -> MatrixError:
    return unknown("Registration by shared secret is not configured (`registration_shared_secret`).")
