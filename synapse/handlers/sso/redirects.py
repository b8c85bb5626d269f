"""Where clients may want people to be sent when they have logged in, and the URL with the login token. Pure.

A redirect URL comes from whoever made the link that somebody followed. It must lead to a page or an application, and
not be a program by itself; and the person is asked, unless the administrator has listed it (`sso.client_whitelist`).

Client-server API, "Handling the callback from the Authentication server".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote_plus, urlsplit

from synapse.api.errors import invalid_param

MAX_URL: Final = 4096
_PARAMETER: Final = "loginToken"
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# Whatever a browser runs, or opens in the name of the page or of the user's machine, instead of going somewhere.
_FORBIDDEN: Final = frozenset(
    (
        *("javascript", "vbscript", "data", "blob", "file", "filesystem", "about", "view-source", "chrome", "resource"),
        *("jar", "intent", "mailto", "tel", "sms", "ws", "wss", "ftp", "urn", "cid", "mid", "moz-extension"),
        *("chrome-extension", "ms-appx", "feed", "res", "shell", "livescript", "mocha", "x-javascript"),
    )
)


def check_redirect_url(url: str) -> str:
    """The URL, as it may stand in a header. Raises 400 M_INVALID_PARAM for one that nobody can be sent to."""
    match = _SCHEME.match(url)
    if match is None or len(url) > MAX_URL or any(char <= " " or char in '\\\x7f<>"' for char in url):
        raise invalid_param("The 'redirectUrl' must be a whole URL: http, https, or the scheme of an application.")
    scheme = match[0][:-1].lower()
    if scheme in _FORBIDDEN:
        raise invalid_param(f"The 'redirectUrl' must not be a '{scheme}:' URL.")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise invalid_param("The 'redirectUrl' is no valid URL.") from None
    if scheme in ("http", "https") and (not host or "@" in parts.netloc):
        raise invalid_param("An http or https 'redirectUrl' needs a host, and must not have a user's name.")
    return "".join(char if char.isascii() else quote(char, errors="replace") for char in url)


def with_login_token(url: str, token: str) -> str:
    """The URL with the token in its query, in place of those that it has already."""
    # By hand: urllib's own functions would lose the slashes of `app://`.
    rest, hash_sign, fragment = url.partition("#")
    place, _, query = rest.partition("?")
    fields = [field for field in query.split("&") if field and not _is_token(field)]
    fields.append(f"{_PARAMETER}={quote(token, safe='')}")
    return f"{place}?{'&'.join(fields)}{hash_sign}{fragment}"


def _is_token(field: str) -> bool:
    return unquote_plus(field.partition("=")[0]) == _PARAMETER


def shown_url(url: str) -> str:
    """What a person needs to see of it: where it leads, without what it carries."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https"):
        return f"{parts.scheme}://{parts.netloc}{parts.path}"
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


def is_trusted(url: str, trusted: Iterable[str]) -> bool:
    """Whether it begins as one of the trusted ones, and ends or goes on with another part of the URL there."""
    return any(_begins_as(url, prefix) for prefix in trusted)


def _begins_as(url: str, prefix: str) -> bool:
    if not prefix or not url.startswith(prefix):
        return False
    # "https://example.org" must not let "https://example.org.evil.net" in, nor "https://example.org:1@evil.net".
    return len(url) == len(prefix) or prefix[-1] in "/?#&=:" or url[len(prefix)] in "/?#"
