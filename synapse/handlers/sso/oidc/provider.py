"""The way to an OpenID Connect provider and back: a browser goes there with a state, a nonce and half of a secret, and
comes back with a code, which we redeem with the other half.

OpenID Connect Core 1.0, "Authentication using the Authorization Code Flow"; RFC 7636; RFC 9207.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from synapse.config.oidc import SIGNED
from synapse.handlers.sso.oidc import id_token
from synapse.handlers.sso.oidc.claims import Claims
from synapse.handlers.sso.oidc.metadata import Metadata, misconfigured, unreachable
from synapse.handlers.sso.sessions import new_secret
from synapse.handlers.sso.types import Departure, Purpose, RemoteIdentity, SsoRefused, ToLogIn
from synapse.http.credentials import FORM, basic

if TYPE_CHECKING:
    from synapse.config.oidc import OidcProviderConfig
    from synapse.handlers.sso.oidc.metadata import Key
    from synapse.handlers.sso.sessions import Away
    from synapse.http.outside import OutsideClient
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

CALLBACK: Final = "/_synapse/client/oidc/callback"
_VERIFIER_LETTERS: Final = 64
_MAX_SHOWN: Final = 300


class OidcProvider:
    """An identity provider.

    :param provider_id: by which it is known here: `oidc-github`.
    :param client: for requests to it, made when it is needed.
    :param in_thread: runs a function elsewhere.
    :param base_url: under which browsers reach this server.
    """

    posts_back: bool = False

    def __init__(
        self,
        provider_id: str,
        options: OidcProviderConfig,
        client: Callable[[], OutsideClient],
        clock: Clock,
        in_thread: Callable[..., Awaitable[Any]],
        base_url: str,
    ) -> None:
        self.id = provider_id
        self.name = options.idp_name
        self.icon = options.idp_icon
        self.brand = options.idp_brand
        self.allow_existing_users = options.allow_existing_users
        self.enable_registration = options.enable_registration
        self.logs_out = options.backchannel_logout_enabled
        self._options = options
        self._clock = clock
        self._in_thread = in_thread
        self._is_loaded = False
        self._callback = base_url + CALLBACK
        self._metadata = Metadata(options, client, clock)
        self._claims = Claims(provider_id, options)

    async def _load(self) -> None:
        if not self._is_loaded:
            await self._in_thread(id_token.load)
            self._is_loaded = True

    # -- there -------------------------------------------------------------------------------------------------------

    async def begin(self, state: str, purpose: Purpose) -> Departure:
        await self._load()
        metadata = await self._metadata.load()
        remembered = {"nonce": new_secret()}
        query = {
            **self._options.additional_authorization_parameters,
            "response_type": "code",
            "client_id": self._options.client_id,
            "redirect_uri": self._callback,
            "scope": " ".join(self._options.scopes),
            "state": state,
            "nonce": remembered["nonce"],
        }
        if (
            isinstance(purpose, ToLogIn)
            and purpose.registers
            and "create" in _listed(metadata, "prompt_values_supported")
        ):
            query["prompt"] = "create"  # "Initiating User Registration via OpenID Connect 1.0"
        if self._uses_pkce(metadata):
            from authlib.common.security import generate_token
            from authlib.oauth2.rfc7636 import create_s256_code_challenge

            remembered["verifier"] = generate_token(_VERIFIER_LETTERS)
            query["code_challenge"] = create_s256_code_challenge(remembered["verifier"])
            query["code_challenge_method"] = "S256"
        url = self._metadata.url(metadata, "authorization_endpoint")
        return Departure(f"{url}{'&' if '?' in url else '?'}{urlencode(query)}", remembered)

    def _uses_pkce(self, metadata: dict[str, Any]) -> bool:
        if self._options.pkce_method != "auto":
            return self._options.pkce_method == "always"
        return "S256" in _listed(metadata, "code_challenge_methods_supported")

    # -- and back ----------------------------------------------------------------------------------------------------

    async def identity_of(self, code: str, away: Away, issuer: str | None) -> RemoteIdentity:
        """Whom the provider sends back with the code. Raises `SsoRefused`.

        :param issuer: the parameter `iss` of the answer, where there was one.
        """
        await self._load()
        metadata = await self._metadata.load()
        self._check_issuer(metadata, issuer)
        tokens = await self._redeem(metadata, code, away.remembered.get("verifier"))
        claims: dict[str, Any] = {}
        if "openid" in self._options.scopes:
            claims = await self._believed(metadata, tokens, away.remembered["nonce"])
        if "openid" not in self._options.scopes or self._options.user_profile_method == "userinfo_endpoint":
            claims = await self._described(metadata, tokens, claims)
        return self._claims.identity(claims)

    def _check_issuer(self, metadata: dict[str, Any], issuer: str | None) -> None:
        """RFC 9207: the answer must come from whom the browser was sent to."""
        needed = metadata.get("authorization_response_iss_parameter_supported") is True
        if issuer != metadata["issuer"] and (needed or issuer is not None):
            logger.warning("An answer for %s came from another issuer", self.id)
            raise _not_confirmed()

    async def _redeem(self, metadata: dict[str, Any], code: str, verifier: str | None) -> dict[str, Any]:
        """The tokens that the code is good for."""
        options = self._options
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": self._callback}
        if verifier is not None:
            form["code_verifier"] = verifier
        headers: tuple[tuple[str, str], ...] = (FORM,)
        if options.client_auth_method == "client_secret_basic":
            headers = (*headers, ("Authorization", basic(options.client_id, options.client_secret or "")))
        else:
            form["client_id"] = options.client_id
        if options.client_auth_method == "client_secret_post":
            form["client_secret"] = options.client_secret or ""
        url = self._metadata.url(metadata, "token_endpoint")
        answer = await self._metadata.ask("POST", url, urlencode(form).encode(), headers)
        tokens = answer.json_object()
        if answer.code >= 500:
            logger.warning("%s answered %d when a code was redeemed", self.id, answer.code)
            raise unreachable()
        if answer.code != 200 or "error" in tokens or not isinstance(tokens.get("access_token"), str):
            logger.warning("%s takes no code: %d %s", self.id, answer.code, str(tokens.get("error"))[:80])
            raise _not_confirmed()
        return tokens

    async def _believed(self, metadata: dict[str, Any], tokens: dict[str, Any], nonce: str) -> dict[str, Any]:
        """The claims of the ID token."""
        options, token = self._options, tokens.get("id_token")
        if not isinstance(token, str):
            logger.warning("%s sends no ID token", self.id)
            raise misconfigured()
        expected = id_token.Expected(metadata["issuer"], options.client_id, nonce, tokens["access_token"])
        try:
            allowed, keys = await self._signers(metadata, token)
            now = int(self._clock.seconds())
            return id_token.check(token, allowed, keys, options.client_secret, expected, now)
        except id_token.BadToken as bad:
            logger.warning("An ID token of %s is not believed: %s", self.id, bad)
            raise _not_confirmed() from None

    async def _signers(self, metadata: dict[str, Any], token: str) -> tuple[tuple[str, ...], list[Key]]:
        """The algorithms that a token may be signed by, and the keys that this one may be signed with."""
        announced = metadata.get("id_token_signing_alg_values_supported")
        allowed = id_token.algorithms(self._options.id_token_signing_alg_values_supported, announced)
        header = id_token.header_of(token)
        wanted = header.algorithm in allowed and header.algorithm in SIGNED
        return allowed, await self._metadata.keys(metadata, header.key_id) if wanted else []

    # -- logging out there -------------------------------------------------------------------------------------------

    async def logged_out(self, token: str) -> tuple[str, str | None] | None:
        """The session that a logout token says has ended, and whose it was; None for a token of somebody else.

        Raises `SsoRefused` for one that is not to be believed.
        """
        await self._load()
        options = self._options
        try:
            # Nothing is asked of the provider for what does not even say to be of it.
            if id_token.unverified_issuer(token) not in (options.issuer, self._metadata.issuer):
                return None
            metadata = await self._metadata.load()
            allowed, keys = await self._signers(metadata, token)
            secret, issuer, now = options.client_secret, metadata["issuer"], int(self._clock.seconds())
            claims = id_token.check_logout(token, allowed, keys, secret, issuer, options.client_id, now)
        except id_token.BadToken as bad:
            raise SsoRefused(str(bad)) from None
        subject = claims.get("sub")
        return claims["sid"], None if options.backchannel_logout_ignore_sub or subject is None else str(subject)

    async def _described(
        self, metadata: dict[str, Any], tokens: dict[str, Any], believed: dict[str, Any]
    ) -> dict[str, Any]:
        """The claims with those of the userinfo endpoint, which must speak of the same user."""
        url = self._metadata.url(metadata, "userinfo_endpoint")
        headers = (("Authorization", f"Bearer {tokens['access_token']}"),)
        answer = await self._metadata.ask("GET", url, None, headers)
        found = answer.json_object()
        if answer.code != 200 or not found:
            logger.warning("%s answered %d when it was asked about a user", self.id, answer.code)
            raise unreachable() if answer.code >= 500 else _not_confirmed()
        if believed and found.get("sub") != believed["sub"]:
            logger.warning("%s describes another user than it has vouched for", self.id)
            raise _not_confirmed()
        return {**believed, **found}


def _listed(metadata: dict[str, Any], name: str) -> list[Any]:
    found = metadata.get(name)
    return found if isinstance(found, list) else []


def refused_there(error: str, description: str | None) -> SsoRefused:
    """For an answer of the provider that says no (RFC 6749, 4.1.2.1)."""
    shown = f"{error[:80]}: {description[:_MAX_SHOWN]}" if description else error[:80]
    return SsoRefused(f"The identity provider has refused: {shown}", code=403)


def _not_confirmed() -> SsoRefused:
    return SsoRefused(
        "The identity provider does not confirm who you are. Please go back to your client and begin again.", code=403
    )
