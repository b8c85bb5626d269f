"""The sections of a configuration that are about OpenID Connect providers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

from synapse.config.errors import ConfigError
from synapse.config.options import Doc, Secret, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse.config.root import Config

Place = Callable[[str | None], str]

SIGNED: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
"""Algorithms by which a provider signs with a key of its own."""
SHARED: Final = ("HS256", "HS384", "HS512")
"""Those by which it signs with the client's secret."""


class OidcMapping(Section, frozen=True, kw_only=True):
    """What becomes of a provider's claims: Jinja2 templates over `user`, which has the claims."""

    subject_template: Annotated[
        str | None, Doc("What tells users apart, and never changes; by default the claim that `subject_claim` names.")
    ] = None
    subject_claim: Annotated[str, Doc("The claim with that, where there is no template.")] = "sub"
    localpart_template: Annotated[
        str | None,
        Doc(
            "The localpart of a new user. Without it, or where it is empty, users choose one.",
            example="{{ user.preferred_username }}",
        ),
    ] = None
    confirm_localpart: Annotated[bool, Doc("Whether users may choose another than the template's.")] = False
    display_name_template: Annotated[str | None, Doc("The display name.", example="{{ user.name }}")] = None
    email_template: Annotated[str | None, Doc("An e-mail address that is the user's.", example="{{ user.email }}")] = (
        None
    )
    picture_template: Annotated[str, Doc("The URL of a picture.")] = "{{ user.picture }}"


class OidcMappingProvider(Section, frozen=True, kw_only=True):
    """How users of a provider become users of this server."""

    module: Annotated[str | None, Doc("Must not be set: other mappings than the templates' are not supported.")] = None
    config: Annotated[
        OidcMapping,
        Doc("The templates.", example={"localpart_template": "{{ user.preferred_username }}"}),
    ] = OidcMapping()


class OidcRequirement(Section, frozen=True, kw_only=True):
    """A claim that users must have, in order to log in."""

    attribute: Annotated[str, Doc("The claim.")]
    value: Annotated[str | None, Doc("A value that it must be, or have in its list; without, any will do.")] = None
    one_of: Annotated[tuple[str, ...], Doc("Or values one of which it must be, or have.")] = ()


class OidcProviderConfig(Section, frozen=True, kw_only=True):
    """An OpenID Connect (or OAuth 2.0) provider."""

    idp_id: Annotated[
        str, Doc("By which clients and the database know it, after `oidc-`. It must never change.", example="example")
    ]
    idp_name: Annotated[str, Doc("What users are shown as its name.", example="Example")]
    idp_icon: Annotated[str | None, Doc("The mxc URI of its icon.", example="mxc://example.org/abc")] = None
    idp_brand: Annotated[str | None, Doc("By which clients know how its button looks.", example="github")] = None
    discover: Annotated[
        bool, Doc("Whether its endpoints and keys are looked up at `/.well-known/openid-configuration`.")
    ] = True
    issuer: Annotated[str, Doc("Its issuer identifier, to the letter.", example="https://accounts.example.org/")]
    client_id: Annotated[str, Doc("The identifier of this server there.")]
    client_secret: Annotated[Secret | None, Doc("The secret of this server there.")] = None
    client_auth_method: Annotated[
        Literal["client_secret_basic", "client_secret_post", "none"], Doc("How this server proves to be itself there.")
    ] = "client_secret_basic"
    pkce_method: Annotated[
        Literal["auto", "always", "never"],
        Doc("Whether PKCE (S256) is used; `auto` for where the provider says that it knows it."),
    ] = "auto"
    scopes: Annotated[
        tuple[str, ...],
        Doc("What is asked for. Without `openid`, it is plain OAuth 2.0, and the userinfo endpoint tells who it is."),
    ] = ("openid",)
    authorization_endpoint: Annotated[str | None, Doc("Where browsers are sent, if that is not looked up.")] = None
    token_endpoint: Annotated[str | None, Doc("Where codes are redeemed, likewise.")] = None
    userinfo_endpoint: Annotated[str | None, Doc("Where users are described, likewise.")] = None
    jwks_uri: Annotated[str | None, Doc("Where the keys are, likewise.")] = None
    id_token_signing_alg_values_supported: Annotated[
        tuple[str, ...],
        Doc(
            "The algorithms by which it may sign ID tokens, if not those that it says it knows. Those with a shared "
            f"secret ({', '.join(SHARED)}) have to be listed here to be taken.",
            example=["RS256"],
        ),
    ] = ()
    skip_verification: Annotated[
        bool, Doc("Take URLs without https, and an issuer other than `issuer`, from the provider. For tests.")
    ] = False
    user_profile_method: Annotated[
        Literal["auto", "userinfo_endpoint"],
        Doc("`userinfo_endpoint` to ask it for claims even where there is an ID token."),
    ] = "auto"
    allow_existing_users: Annotated[
        bool, Doc("Whether users whose localpart an account has already are its owners.")
    ] = False
    enable_registration: Annotated[bool, Doc("Whether those get an account who have none.")] = True
    backchannel_logout_enabled: Annotated[
        bool, Doc("Whether it may log its users' devices out, at /_synapse/client/oidc/backchannel_logout.")
    ] = False
    backchannel_logout_ignore_sub: Annotated[
        bool,
        Doc("Whether the session alone says which; for where users are not known by the claim `sub`."),
    ] = False
    additional_authorization_parameters: Annotated[
        dict[str, str], Doc("Parameters with which browsers are sent there.", example={"acr_values": "2fa"})
    ] = {}  # noqa: RUF012  # msgspec copies it
    attribute_requirements: Annotated[
        tuple[OidcRequirement, ...],
        Doc("Claims that users must have.", example=[{"attribute": "groups", "value": "staff"}]),
    ] = ()
    user_mapping_provider: Annotated[
        OidcMappingProvider, Doc("How its users become users of this server.", example={"config": {}})
    ] = OidcMappingProvider()


class OidcSingleConfig(OidcProviderConfig, frozen=True, kw_only=True):
    """The one provider of old; its users are known under the provider `oidc`."""

    enabled: Annotated[bool, Doc("Whether people can log in by it.")] = False
    idp_id: Annotated[str, Doc("Has no meaning here: it is `oidc`.")] = "oidc"
    idp_name: Annotated[str, Doc("What users are shown as its name.")] = "OIDC"


class OidcConfig(Section, frozen=True, kw_only=True):
    """Single sign-on by OpenID Connect; docs/sso.md tells more."""

    oidc_providers: Annotated[
        tuple[OidcProviderConfig, ...],
        Doc(
            "The providers.",
            example=[
                {
                    "idp_id": "example",
                    "idp_name": "Example",
                    "issuer": "https://accounts.example.org/",
                    "client_id": "matrix",
                    "client_secret_path": "/etc/synapse/oidc_secret",
                    "scopes": ["openid", "profile"],
                    "user_mapping_provider": {"config": {"localpart_template": "{{ user.preferred_username }}"}},
                }
            ],
        ),
    ] = ()
    oidc_config: Annotated[
        OidcSingleConfig | None, Doc("One provider, as it was written before there could be several.")
    ] = None

    def providers(self) -> Iterator[tuple[str, str, OidcProviderConfig]]:
        """Each with the option that it stands in, and the id by which it is known."""
        if self.oidc_config is not None and self.oidc_config.enabled:
            yield "oidc_config", "oidc", self.oidc_config
        for index, provider in enumerate(self.oidc_providers):
            yield f"oidc_providers[{index}]", f"oidc-{provider.idp_id}", provider


def check_oidc(config: Config, place: Place) -> None:
    """Raises `ConfigError` for what nobody could log in by."""
    seen: set[str] = set()
    for option, name, provider in config.oidc.providers():
        if name in seen:
            _fail(place, f"{option}.idp_id", f"is {provider.idp_id!r}, as another's", "give each provider its own")
        seen.add(name)
        if not provider.idp_id or len(provider.idp_id) > 250 or not _is_opaque(provider.idp_id):
            remedy = "write at most 250 of the characters A-Z, a-z, 0-9, and ._~-"
            _fail(place, f"{option}.idp_id", "is no identifier", remedy)
        _endpoints(option, provider, place)
        _client(option, provider, place)
        if config.is_main:  # the others need not load what reads templates
            _mapping(option, provider, place)


def _is_opaque(text: str) -> bool:
    return text.isascii() and all(char.isalnum() or char in "._~-" for char in text)


def _endpoints(option: str, provider: OidcProviderConfig, place: Place) -> None:
    names = ["authorization_endpoint", "token_endpoint"]
    names.append("jwks_uri" if "openid" in provider.scopes else "userinfo_endpoint")
    for name in ("issuer", "authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri"):
        url = getattr(provider, name)
        if url is None:
            if name in names and not provider.discover and not _is_shared(name, provider):
                _fail(place, f"{option}.{name}", "is missing, and not looked up", "add it, or set discover: true")
        elif not url.startswith("https://") and not (provider.skip_verification and url.startswith("http://")):
            _fail(place, f"{option}.{name}", f"is {url!r}, which is no https URL", "begin it with https://")


def _is_shared(name: str, provider: OidcProviderConfig) -> bool:
    """Whether no keys are needed, since it is the secret that is signed with."""
    return (
        name == "jwks_uri"
        and bool(provider.id_token_signing_alg_values_supported)
        and all(algorithm in SHARED for algorithm in provider.id_token_signing_alg_values_supported)
    )


def _client(option: str, provider: OidcProviderConfig, place: Place) -> None:
    if provider.client_secret is None and provider.client_auth_method != "none":
        remedy = "set client_secret or client_secret_path, or client_auth_method: none"
        _fail(place, f"{option}.client_secret", "is missing", remedy)
    for algorithm in provider.id_token_signing_alg_values_supported:
        if algorithm not in (*SIGNED, *SHARED):
            remedy = f"use some of {', '.join((*SIGNED, *SHARED))}"
            _fail(place, f"{option}.id_token_signing_alg_values_supported", f"has {algorithm!r}", remedy)
        if algorithm in SHARED and provider.client_secret is None:
            _fail(place, f"{option}.client_secret", f"is missing, but {algorithm} needs it", "set it")


def _mapping(option: str, provider: OidcProviderConfig, place: Place) -> None:
    mapping = provider.user_mapping_provider
    if mapping.module is not None and not mapping.module.endswith("JinjaOidcMappingProvider"):
        problem = f"is {mapping.module!r}, but only mapping by templates is supported"
        _fail(place, f"{option}.user_mapping_provider.module", problem, "remove it, and write templates below `config`")
    from jinja2 import Environment, TemplateError

    environment: Any = Environment()
    environment.filters |= dict.fromkeys(("localpart_from_email", "strip_domain"), str)
    for name in mapping.config.__struct_fields__:
        text = getattr(mapping.config, name)
        if name.endswith("_template") and text is not None:
            try:
                environment.compile(text)
            except TemplateError as error:
                where = f"{option}.user_mapping_provider.config.{name}"
                _fail(place, where, f"is no template that can be read ({error.message})", "see docs/sso.md")


def _fail(place: Place, option: str, problem: str, remedy: str) -> NoReturn:
    raise ConfigError(place(option), option, problem, remedy)
