"""The section of a configuration about an OAuth 2.0 authorization server whose access tokens are taken here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

from synapse.config.errors import ConfigError
from synapse.config.options import Doc, Secret, Section

if TYPE_CHECKING:
    from synapse.config.root import Config

Place = Callable[[str | None], str]


class OAuthConfig(Section, frozen=True, kw_only=True):
    """OAuth 2.0: an authorization server that clients log in at (`oauth:`); docs/sso.md tells more."""

    issuer: Annotated[
        str | None,
        Doc("Its issuer identifier; its metadata is told to clients.", example="https://account.example.org/"),
    ] = None
    client_id: Annotated[
        str | None,
        Doc("The identifier of this server there. With it and the secret, access tokens are taken.", example="matrix"),
    ] = None
    client_secret: Annotated[Secret | None, Doc("The secret of this server there.")] = None
    client_auth_method: Annotated[
        Literal["client_secret_basic", "client_secret_post"], Doc("How this server proves to be itself there.")
    ] = "client_secret_basic"
    introspection_endpoint: Annotated[
        str | None,
        Doc(
            "The URL at which it is asked about access tokens, where that is not the one in its metadata.",
            example="http://10.0.0.2:8080/oauth2/introspect",
        ),
    ] = None
    localpart_claim: Annotated[
        str, Doc("What of its answers about a token has the name that a new user gets here.")
    ] = "username"
    enable_registration: Annotated[bool, Doc("Whether those get an account who have none.")] = True

    @property
    def takes_tokens(self) -> bool:
        """Whether access tokens of the authorization server are taken."""
        return self.client_id is not None


def check_oauth(config: Config, place: Place) -> None:
    """Raises `ConfigError` for what nobody could log in by."""
    oauth = config.oauth
    issuer = oauth.issuer
    if issuer is not None and (not issuer.startswith("https://") or "?" in issuer or "#" in issuer):
        _fail(place, "oauth.issuer", f"is {issuer!r}, which is no issuer", "write an https URL without query")
    if (oauth.client_id is None) != (oauth.client_secret is None):
        missing = "client_id" if oauth.client_id is None else "client_secret"
        remedy = "set both, as the authorization server knows them, or neither"
        _fail(place, f"oauth.{missing}", "is missing, but the other half of the credentials is there", remedy)
    if oauth.takes_tokens and issuer is None:
        _fail(place, "oauth.issuer", "is missing, but tokens are to be taken", "write the issuer identifier")
    endpoint = oauth.introspection_endpoint
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        _fail(place, "oauth.introspection_endpoint", "is no URL", "write the URL of the endpoint")
    if endpoint is not None and not oauth.takes_tokens:
        _fail(place, "oauth.client_id", "is missing, without which nobody is asked", "set client_id and client_secret")


def _fail(place: Place, option: str, problem: str, remedy: str) -> NoReturn:
    raise ConfigError(place(option), option, problem, remedy)
