"""Asking the authorization server about access tokens: RFC 7662."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from synapse.api.errors import MatrixError, unknown
from synapse.http.client import ClientError
from synapse.http.credentials import FORM, basic

if TYPE_CHECKING:
    from synapse.config.oauth import OAuthConfig
    from synapse.handlers.oauth_metadata import OAuthMetadata
    from synapse.http.outside import OutsideClient

logger = logging.getLogger(__name__)

WITHIN: Final = 10.0  # seconds
AT_ONCE: Final = 100
_MAX_ANSWER: Final = 64 * 1024
_ENDPOINT: Final = "introspection_endpoint"


class Introspection:
    """Asks; the caller sees to it that it is not asked too often.

    :param client: for requests to the server, made when it is needed.
    """

    def __init__(self, options: OAuthConfig, metadata: OAuthMetadata, client: Callable[[], OutsideClient]) -> None:
        self._options = options
        self._metadata = metadata
        self._client = client
        self._asking = 0

    async def ask(self, token: str) -> dict[str, Any]:
        """What the server says of the token; `active` is a boolean. Raises 503 M_UNKNOWN where it does not say."""
        if self._asking >= AT_ONCE:
            raise away()
        self._asking += 1
        try:
            return await self._ask(token)
        finally:
            self._asking -= 1

    async def _ask(self, token: str) -> dict[str, Any]:
        url = self._options.introspection_endpoint or await self._announced()
        form = {"token": token, "token_type_hint": "access_token"}
        headers: tuple[tuple[str, str], ...] = (FORM, ("Accept", "application/json"))
        client_id, secret = self._options.client_id or "", self._options.client_secret or ""
        if self._options.client_auth_method == "client_secret_basic":
            headers = (*headers, ("Authorization", basic(client_id, secret)))
        else:
            form |= {"client_id": client_id, "client_secret": secret}
        body = urlencode(form).encode()
        try:
            answer = await self._client().request("POST", url, body, headers, within=WITHIN, max_answer=_MAX_ANSWER)
        except ClientError as error:
            logger.warning("The OAuth 2.0 authorization server cannot be asked about tokens: %s", error)
            raise away() from None
        said = answer.json_object()
        if answer.code != 200 or not isinstance(said.get("active"), bool):
            logger.warning("The OAuth 2.0 authorization server does not tell about tokens: status %d", answer.code)
            raise away()
        return said

    async def _announced(self) -> str:
        """The endpoint that the metadata names; this server's secret is sent there."""
        try:
            url = (await self._metadata.get()).get(_ENDPOINT)
        except MatrixError:
            raise away() from None
        if not isinstance(url, str) or not url.startswith("https://"):
            logger.warning("The OAuth 2.0 authorization server's metadata has no https URL as '%s'", _ENDPOINT)
            raise away()
        return url


def away() -> MatrixError:
    """Not a 401: clients would take themselves to be logged out."""
    sentence = "The authorization server cannot be asked about the access token just now; please try again later."
    return unknown(sentence, 503)
