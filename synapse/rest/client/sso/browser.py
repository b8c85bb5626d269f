"""The cookie by which a browser is known to be the one that a log-in was begun in.

It holds a random secret and nothing about the user; the log-ins themselves are in the database.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from synapse.handlers.sso.sessions import new_secret
from synapse.http.server import Request

_NAME: Final = "synapse_sso"
_SECONDS: Final = 3600
_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{16,64}", re.ASCII)


class Browser(NamedTuple):
    """A browser's secret, and the header that has it remember."""

    secret: str
    headers: tuple[tuple[str, str], ...]


class Browsers:
    """Knows browsers again.

    :param base_url: under which browsers reach this server. Over https, no other server, and no script, can set the
        cookie (`__Host-`), nor does it travel unencrypted.
    """

    def __init__(self, base_url: str) -> None:
        self._secure = base_url.startswith("https://")
        self._name = f"__Host-{_NAME}" if self._secure else _NAME

    def secret(self, request: Request) -> str | None:
        """The secret of the browser that sends the request, if it has one."""
        for cookie in request.headers.get("cookie", "").split(";"):
            name, _, value = cookie.strip().partition("=")
            if name == self._name and _SECRET.fullmatch(value):
                return value
        return None

    def of(self, request: Request, *, posted_back: bool = False) -> Browser:
        """The browser that sends the request, with a secret from now on if it had none.

        :param posted_back: whether it will come back by a form of another site, with which it would keep the cookie to
            itself otherwise. Browsers take that over https only.
        """
        secret = self.secret(request) or new_secret()
        cookie = f"{self._name}={secret}; Path=/; Max-Age={_SECONDS}; HttpOnly"
        if self._secure:
            cookie += "; Secure"
        cookie += "; SameSite=None" if posted_back and self._secure else "; SameSite=Lax"
        return Browser(secret, (("Set-Cookie", cookie),))
