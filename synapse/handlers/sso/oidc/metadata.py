"""Where a provider's endpoints are, and which keys it signs with: asked for when they are needed, and kept for a while.

What is configured goes before what is looked up. What cannot be looked up just now is asked for again at the next
log-in; what was known before is used meanwhile. OpenID Connect Discovery 1.0, RFC 7517.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from synapse.handlers.sso.types import SsoRefused
from synapse.http.client import ClientError

if TYPE_CHECKING:
    from synapse.config.oidc import OidcProviderConfig
    from synapse.http.client import ClientAnswer
    from synapse.http.outside import OutsideClient
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

_PATH: Final = ".well-known/openid-configuration"
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri")
_NEEDED: Final = ("authorization_endpoint", "token_endpoint")
_KEPT: Final = 3600.0  # seconds
_BETWEEN_LOOKS: Final = 10.0  # seconds between two looks for a key that is not there
_WITHIN: Final = 10.0
_MAX_KEYS: Final = 100

Key = dict[str, Any]


class Metadata:
    """A provider's.

    :param client: for requests to the provider, made when it is needed.
    """

    def __init__(self, options: OidcProviderConfig, client: Callable[[], OutsideClient], clock: Clock) -> None:
        self._options = options
        self._client = client
        self._clock = clock
        given = {
            "authorization_endpoint": options.authorization_endpoint,
            "token_endpoint": options.token_endpoint,
            "userinfo_endpoint": options.userinfo_endpoint,
            "jwks_uri": options.jwks_uri,
        }
        self._given = {name: url for name, url in given.items() if url is not None}
        self._found: dict[str, Any] = {}
        self._found_at: float | None = None
        self._keys: list[Key] = []
        self._keys_at: float | None = None

    @property
    def issuer(self) -> str:
        """As far as it is known without asking."""
        return str(self._found.get("issuer", self._options.issuer))

    async def load(self) -> dict[str, Any]:
        """Everything by its name in the discovery document; `issuer` and needed endpoints are checked to be there.

        Raises `SsoRefused` if the provider cannot be asked, or says something that cannot be.
        """
        known: dict[str, Any] = dict(self._given)
        if self._options.discover:
            known = {**await self._discovered(), **known}
        known.setdefault("issuer", self._options.issuer)
        for name in _NEEDED:
            self.url(known, name)
        return known

    def url(self, metadata: dict[str, Any], name: str) -> str:
        """One of the URLs. Raises `SsoRefused` if it is not there, or is none."""
        url = metadata.get(name)
        schemes = ("https://", "http://") if self._options.skip_verification else ("https://",)
        if not isinstance(url, str) or not url.isascii() or not url.startswith(schemes):
            logger.warning("%s has no proper %s", self._options.issuer, name)
            raise misconfigured()
        return url

    async def _discovered(self) -> dict[str, Any]:
        now = self._clock.seconds()
        if self._found_at is not None and now < self._found_at + _KEPT:
            return self._found
        try:
            found = await self._fetch(f"{self._options.issuer.rstrip('/')}/{_PATH}")
        except SsoRefused:
            if self._found_at is None:
                raise
            return self._found
        issuer = found.get("issuer")
        if not isinstance(issuer, str) or (issuer != self._options.issuer and not self._options.skip_verification):
            logger.warning("%s says to be another issuer", self._options.issuer)
            raise misconfigured()
        for name in _ENDPOINTS:  # what cannot be is not kept: the next log-in asks again
            if name in found or (name in _NEEDED and name not in self._given):
                self.url(found, name)
        self._found, self._found_at = found, now
        return found

    async def keys(self, metadata: dict[str, Any], key_id: str | None) -> list[Key]:
        """Public keys that may have been signed with: the one of that id, all where there is no id."""
        now = self._clock.seconds()
        found = self._matching(key_id)
        is_old = self._keys_at is None or now >= self._keys_at + _KEPT
        if is_old or (not found and self._keys_at is not None and now >= self._keys_at + _BETWEEN_LOOKS):
            try:
                listed = (await self._fetch(self.url(metadata, "jwks_uri"))).get("keys")
            except SsoRefused:
                if not found:
                    raise
                return found
            keys = listed if isinstance(listed, list) else []
            # A shared secret has no place there; and nobody shall make us take a public key for one.
            self._keys = [key for key in keys[:_MAX_KEYS] if isinstance(key, dict) and key.get("kty") != "oct"]
            self._keys_at = now
            found = self._matching(key_id)
        return found

    def _matching(self, key_id: str | None) -> list[Key]:
        return [key for key in self._keys if key_id is None or key.get("kid") == key_id]

    async def _fetch(self, url: str) -> dict[str, Any]:
        answer = await self.ask("GET", url)
        if answer.code != 200:
            logger.warning("%s answered %d", url, answer.code)
            raise unreachable()
        return answer.json_object()

    async def ask(
        self, method: str, url: str, body: bytes | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> ClientAnswer:
        """A request to the provider. Raises `SsoRefused` if it is not answered."""
        try:
            sent = (("Accept", "application/json"), *headers)
            return await self._client().request(method, url, body, sent, within=_WITHIN)
        except ClientError as error:
            logger.warning("An identity provider cannot be asked: %s", error)
            raise unreachable() from None


def unreachable() -> SsoRefused:
    return SsoRefused("The identity provider cannot be reached just now; please try again later.", code=502)


def misconfigured() -> SsoRefused:
    return SsoRefused(
        "The identity provider does not answer as it should; please tell the administrator of this server.", code=502
    )
