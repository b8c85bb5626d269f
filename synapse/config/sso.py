"""The sections of a configuration that are about logging in by other means than a password: tokens, single sign-on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

from synapse.config.errors import ConfigError
from synapse.config.oauth import check_oauth
from synapse.config.oidc import check_oidc
from synapse.config.options import Doc, Duration, Section

if TYPE_CHECKING:
    from synapse.config.root import Config

Place = Callable[[str | None], str]

_MINUTE: Final = 60_000


class ExistingSessionConfig(Section, frozen=True, kw_only=True):
    """Logging in another device: what logged-in clients may get a login token for (`login_via_existing_session:`)."""

    enabled: Annotated[bool, Doc("Whether they may get one at all, through POST /login/get_token.")] = False
    require_ui_auth: Annotated[
        bool, Doc("Whether the user has to prove again to be themselves. Only turn it off if you know why.")
    ] = True
    token_timeout: Annotated[Duration, Doc("How long such a token is good.")] = 5 * _MINUTE


class SsoConfig(Section, frozen=True, kw_only=True):
    """Single sign-on: what holds for all identity providers (`sso:`); docs/sso.md tells more."""

    client_whitelist: Annotated[
        tuple[str, ...],
        Doc(
            "Clients to which people are sent back without being asked: beginnings of URLs. End each with a slash.",
            example=["https://app.element.io/", "im.example.app:/"],
        ),
    ] = ()
    update_profile_information: Annotated[
        bool, Doc("Whether names and pictures are brought to what the provider says, at every log-in.")
    ] = False


class CasConfig(Section, frozen=True, kw_only=True):
    """Single sign-on by a CAS server (`cas_config:`)."""

    enabled: Annotated[bool, Doc("Whether people can log in by it, where `server_url` is set.")] = True
    server_url: Annotated[str | None, Doc("The URL of the server.", example="https://cas.example.org/cas")] = None
    protocol_version: Annotated[
        Literal[1, 2, 3],
        Doc("The version of the protocol. With 1, which has no attributes, a user's name is all that is known."),
    ] = 2
    displayname_attribute: Annotated[
        str | None, Doc("The attribute that has users' display names.", example="name")
    ] = None
    required_attributes: Annotated[
        dict[str, Any],
        Doc(
            "Attributes that users must have, with their values; any value will do where none is given here.",
            example={"userGroup": "staff", "department": None},
        ),
    ] = {}  # noqa: RUF012  # msgspec copies it
    enable_registration: Annotated[bool, Doc("Whether those get an account who have none.")] = True
    allow_numeric_ids: Annotated[
        bool, Doc("Whether users whose name there consists of digits alone can log in, after a prefix.")
    ] = False
    numeric_ids_prefix: Annotated[str, Doc("The prefix of their names here.")] = "u"
    idp_name: Annotated[str, Doc("What users are shown as its name.")] = "CAS"
    idp_icon: Annotated[str | None, Doc("The mxc URI of its icon.", example="mxc://example.org/abc")] = None
    idp_brand: Annotated[str | None, Doc("By which clients may know how its button looks.", example="cas")] = None


def check_sso(config: Config, place: Place) -> None:
    """Raises `ConfigError` for what nobody could log in by."""
    cas = config.cas_config
    if cas.enabled and cas.server_url is not None:
        _needs_public_url(config, place, "cas_config")
        if not cas.server_url.startswith(("http://", "https://")):
            _fail(place, "cas_config.server_url", "is no URL", "write the URL of the CAS server")
    for option, _, _ in config.oidc.providers():
        _needs_public_url(config, place, option)
    check_oidc(config, place)
    if config.login_via_existing_session.token_timeout == 0:
        option = "login_via_existing_session.token_timeout"
        _fail(place, option, "is zero, so that no token could be used", "write a duration such as 5m")
    _icons(config, place)
    check_oauth(config, place)


def _icons(config: Config, place: Place) -> None:
    icons = {f"{option}.idp_icon": provider.idp_icon for option, _, provider in config.oidc.providers()}
    icons |= {"cas_config.idp_icon": config.cas_config.idp_icon, "saml2_config.idp_icon": config.saml2_config.idp_icon}
    for option, icon in icons.items():
        if icon is not None and not icon.startswith("mxc://"):
            remedy = "upload the picture to this server, and write the URI that the answer names"
            _fail(place, option, f"is {icon!r}, which is no mxc: URI", remedy)


def _needs_public_url(config: Config, place: Place, option: str) -> None:
    if config.server.public_baseurl is None:
        remedy = "write the URL under which browsers reach this server"
        _fail(place, "public_baseurl", f"is missing, but `{option}` has people sent back to it", remedy)


def _fail(place: Place, option: str, problem: str, remedy: str) -> NoReturn:
    raise ConfigError(place(option), option, problem, remedy)
