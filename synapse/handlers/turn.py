"""Credentials for TURN servers, which carry the calls of clients that cannot reach each other.

With a shared secret each user gets a password of its own that expires (the mechanism that coturn calls
`use-auth-secret`); with a fixed user name everybody gets the same.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING, Any

from synapse.api.errors import guest_access_forbidden

if TYPE_CHECKING:
    from synapse.config.sections import VoipConfig
    from synapse.util.clock import Clock


class Turn:
    """Makes credentials for `GET /voip/turnServer`."""

    def __init__(self, config: VoipConfig, clock: Clock) -> None:
        self._config = config
        self._clock = clock

    def credentials(self, user_id: str, is_guest: bool) -> dict[str, Any]:
        """`{}` where no server is configured; raises 403 M_GUEST_ACCESS_FORBIDDEN."""
        config = self._config
        if is_guest and not config.turn_allow_guests:
            raise guest_access_forbidden()
        lifetime = config.turn_user_lifetime // 1000
        if config.turn_uris and config.turn_shared_secret:
            username = f"{int(self._clock.seconds()) + lifetime}:{user_id}"
            password = _password(config.turn_shared_secret, username)
        elif config.turn_uris and config.turn_username and config.turn_password:
            username, password = config.turn_username, str(config.turn_password)
        else:
            return {}
        return {"username": username, "password": password, "ttl": lifetime, "uris": list(config.turn_uris)}


def _password(secret: str, username: str) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), username.encode(), "sha1")).decode()
