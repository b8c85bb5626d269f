"""What clients are told of an OAuth 2.0 authorization server that the administrator has named.

That is its metadata, fetched and kept for a while. What its tokens are worth is `synapse.handlers.oauth`'s matter.

Client-server API, `GET /auth_metadata`; RFC 8414.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from synapse.api.errors import MatrixError, unknown, unrecognized
from synapse.http.client import ClientError
from synapse.util.concurrency import Linearizer

if TYPE_CHECKING:
    from synapse.http.outside import OutsideClient
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

KEPT: Final = 3600  # seconds
_AGAIN: Final = 30.0  # seconds after which one that could not be had is asked for again
_WITHIN: Final = 10.0
_MAX_ANSWER: Final = 256 * 1024
_URLS: Final = ("authorization_endpoint", "token_endpoint", "revocation_endpoint", "registration_endpoint")
# What the specification needs to be among the values of a list.
_LISTS: Final = {
    "response_types_supported": {"code"},
    "grant_types_supported": {"authorization_code", "refresh_token"},
    "response_modes_supported": {"query", "fragment"},
    "code_challenge_methods_supported": {"S256"},
}
_DEFAULTS: Final[dict[str, Any]] = {"response_modes_supported": ["query", "fragment"]}  # RFC 8414, 2


class OAuthMetadata:
    """Fetches and keeps the metadata.

    :param issuer: the server's identifier; None where there is none.
    :param client: for requests to it, made when it is needed.
    """

    def __init__(self, issuer: str | None, client: Callable[[], OutsideClient], clock: Clock) -> None:
        self._issuer = issuer
        self._client = client
        self._clock = clock
        self._found: dict[str, Any] | None = None
        self._next_look = 0.0
        self._turns: Linearizer[str] = Linearizer()

    async def get(self) -> dict[str, Any]:
        """Raises 404 M_UNRECOGNIZED where no such server is named; 502 M_UNKNOWN where it was never reached."""
        if self._issuer is None:
            raise unrecognized("This server has no OAuth 2.0 API; log in by the ways that GET /login tells.")
        if self._clock.seconds() >= self._next_look:
            async with self._turns.queue(self._issuer):  # who waits here finds it done
                if self._clock.seconds() >= self._next_look:
                    await self._look(self._issuer)
        if self._found is None:
            raise _unavailable()
        return self._found

    @property
    def account_management_uri(self) -> str | None:
        """The page on which users manage their accounts, as far as the metadata has been fetched and says so."""
        url = None if self._found is None else self._found.get("account_management_uri")
        return url if isinstance(url, str) and url.startswith(("https://", "http://")) else None

    async def _look(self, issuer: str) -> None:
        fetched = await self._fetch(issuer)
        if fetched is not None:
            self._found = fetched
        self._next_look = self._clock.seconds() + (KEPT if fetched is not None else _AGAIN)

    async def _fetch(self, issuer: str) -> dict[str, Any] | None:
        for url in _places(issuer):
            try:
                answer = await self._client().request("GET", url, within=_WITHIN, max_answer=_MAX_ANSWER)
            except ClientError as error:
                logger.warning("The OAuth 2.0 authorization server cannot be asked: %s", error)
                return None
            if answer.code == 200:
                found = {**_DEFAULTS, **answer.json_object()}
                problem = _problem(found, issuer)
                if problem is None:
                    return found
                logger.warning("What %s says of itself cannot be used: %s", url, problem)
        return None


def _places(issuer: str) -> tuple[str, str]:
    """Where the metadata may be: as RFC 8414 has it, and as OpenID Connect Discovery has it."""
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    return (
        f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
        f"{parts.scheme}://{parts.netloc}{path}/.well-known/openid-configuration",
    )


def _problem(found: dict[str, Any], issuer: str) -> str | None:
    if found.get("issuer") != issuer:
        return "it is another issuer"
    for name in _URLS:
        if not isinstance(found.get(name), str):
            return f"'{name}' is missing"
    for name, needed in _LISTS.items():
        values = found.get(name)
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            return f"'{name}' is missing"
        if not needed <= set(values):
            return f"'{name}' lacks {', '.join(sorted(needed - set(values)))}"
    return None


def _unavailable() -> MatrixError:
    return unknown("The OAuth 2.0 authorization server cannot be reached just now; please try again later.", 502)
