"""The section of a configuration about logging in by SAML 2, and pysaml2's own configuration that is made of it."""

from __future__ import annotations

import importlib.util
import runpy
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn

from synapse.config.errors import ConfigError
from synapse.config.options import Doc, Duration, Path, Section

if TYPE_CHECKING:
    from synapse.config.root import Config

Place = Callable[[str | None], str]

METADATA_PATH: Final = "/_synapse/client/saml2/metadata.xml"
RESPONSE_PATH: Final = "/_synapse/client/saml2/authn_response"
_MINUTE: Final = 60_000
_PACKAGES: Final = ("saml2", "xmlsec", "lxml")
_SIGNED: Final = {
    "want_response_signed": True,
    "want_assertions_signed": False,
    "want_assertions_or_response_signed": False,
}


class SamlMapping(Section, frozen=True, kw_only=True):
    """How users of the provider are called here."""

    mxid_source_attribute: Annotated[str, Doc("The attribute that user names are made from.")] = "uid"
    mxid_mapping: Annotated[
        Literal["hexencode", "dotreplace"],
        Doc("What becomes of characters that user names cannot have: `=` and their number, or a dot."),
    ] = "hexencode"


class SamlMappingProvider(Section, frozen=True, kw_only=True):
    """What makes users of this server from those of the provider."""

    config: Annotated[SamlMapping, Doc("Its options.", example={"mxid_source_attribute": "displayName"})] = (
        SamlMapping()
    )


class SamlRequirement(Section, frozen=True, kw_only=True):
    """An attribute that users must have to log in."""

    attribute: Annotated[str, Doc("The attribute.")]
    value: Annotated[str | None, Doc("The value that it must have.")] = None
    one_of: Annotated[tuple[str, ...], Doc("The values of which it must have one.")] = ()


class SamlConfig(Section, frozen=True, kw_only=True):
    """Single sign-on by a SAML 2 identity provider (`saml2_config:`); docs/saml.md tells more."""

    enabled: Annotated[bool, Doc("Whether people can log in by it, once `sp_config` or `config_path` is set.")] = True
    sp_config: Annotated[
        dict[str, Any],
        Doc(
            "The configuration of pysaml2, as its documentation has it; entity id and endpoints are those of this "
            "server unless they are given.",
            example={"metadata": {"remote": [{"url": "https://idp.example.org/metadata.xml"}]}},
        ),
    ] = {}  # noqa: RUF012  # msgspec copies it
    config_path: Annotated[
        Path | None,
        Doc("A Python file whose CONFIG is such a configuration; `sp_config` goes before it.", example="sp_conf.py"),
    ] = None
    saml_session_lifetime: Annotated[Duration, Doc("How long people may take to log in at the provider.")] = (
        15 * _MINUTE
    )
    user_mapping_provider: Annotated[
        SamlMappingProvider,
        Doc("How users of the provider are called here.", example={"config": {"mxid_mapping": "dotreplace"}}),
    ] = SamlMappingProvider()
    grandfathered_mxid_source_attribute: Annotated[
        str | None,
        Doc(
            "The attribute by which users are known who had accounts before they logged in by SAML: whoever has it is "
            "the owner of the account of that name."
        ),
    ] = "upn"
    attribute_requirements: Annotated[
        tuple[SamlRequirement, ...],
        Doc("What users must have to log in.", example=[{"attribute": "userGroup", "value": "staff"}]),
    ] = ()
    idp_entityid: Annotated[
        str | None,
        Doc("The entity id of the provider, where the metadata has several.", example="https://idp.example.org/"),
    ] = None
    idp_name: Annotated[str, Doc("What users are shown as its name.")] = "SAML"
    idp_icon: Annotated[str | None, Doc("The mxc URI of its icon.", example="mxc://example.org/abc")] = None
    idp_brand: Annotated[str | None, Doc("By which clients may know how its button looks.", example="saml")] = None

    @property
    def is_on(self) -> bool:
        """Whether people can log in by it."""
        return self.enabled and bool(self.sp_config or self.config_path)

    def pysaml2_settings(self, base_url: str) -> dict[str, Any]:
        """All of pysaml2's configuration. Raises whatever the file of `config_path` raises."""
        settings = self._defaults(base_url)
        if self.config_path is not None:
            settings = _merged(settings, runpy.run_path(self.config_path)["CONFIG"])
        return _merged(settings, self.sp_config)

    def _defaults(self, base_url: str) -> dict[str, Any]:
        """What the provider is told of this server: where it answers, and which attributes it needs to know."""
        post = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
        needed = {"uid", self.user_mapping_provider.config.mxid_source_attribute}
        needed.update(requirement.attribute for requirement in self.attribute_requirements)
        useful = {"displayName", "mail", "email"}
        if self.grandfathered_mxid_source_attribute is not None:
            useful.add(self.grandfathered_mxid_source_attribute)
        return {
            "entityid": base_url + METADATA_PATH,
            "allow_unknown_attributes": True,
            "service": {
                "sp": {
                    "endpoints": {"assertion_consumer_service": [(base_url + RESPONSE_PATH, post)]},
                    "required_attributes": sorted(needed),
                    "optional_attributes": sorted(useful - needed),
                }
            },
        }


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` goes before `below`, mapping by mapping."""
    found = deepcopy(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = _merged(found[name], value) if both else deepcopy(value)
    return found


def check_saml(config: Config, place: Place) -> Iterator[str]:
    """Raises `ConfigError` for what nobody could log in by, or everybody."""
    saml = config.saml2_config
    if not saml.is_on:
        return
    if config.server.public_baseurl is None:
        remedy = "write the URL under which browsers reach this server"
        _fail(place, "public_baseurl", "is missing, but `saml2_config` has people sent back to it", remedy)
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        problem = f"needs Python packages that are not installed ({', '.join(missing)})"
        _fail(place, "saml2_config", problem, "install them: pip install pysaml2 xmlsec, or this server with [saml2]")
    try:
        settings = saml.pysaml2_settings(config.client_baseurl)
    except Exception as error:  # it is a program of the administrator's
        _fail(place, "saml2_config.config_path", f"cannot be read: {error}", "name a Python file that sets CONFIG")
    if not settings.get("metadata"):
        remedy = "name the provider's metadata: `local`, `inline` or `remote`"
        _fail(place, "saml2_config.sp_config", "has no `metadata`, so there is no identity provider", remedy)
    service = settings["service"]["sp"]
    if not any(service.get(name, default) for name, default in _SIGNED.items()):
        problem = "has people logged in by messages that nobody has signed"
        _fail(place, "saml2_config.sp_config", problem, f"set one of {', '.join(_SIGNED)} in `service.sp`")
    if settings.get("only_use_keys_in_metadata") is False:
        yield (
            f"{place('saml2_config')}: `only_use_keys_in_metadata` is always true: keys that come with a message "
            "prove nothing."
        )


def _fail(place: Place, option: str, problem: str, remedy: str) -> NoReturn:
    raise ConfigError(place(option.partition(".")[0]), option, problem, remedy)
