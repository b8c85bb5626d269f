"""The configuration of one process as a whole: `Config`, and how it is read.

    config = load(["homeserver.yaml", "workers/synchrotron.yaml"])
    config.server.server_name, config.application, config.listeners, …

Worker files inherit the main file: the processes of a server are started with the main file first and their own file
after it. Nothing is changed after reading; a process that shall see other settings is restarted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from synapse.config import (
    accounts,
    auto_join,
    conduct,
    contacts,
    discovery,
    federation,
    jwt,
    limits,
    oauth,
    oidc,
    policy,
    profiles,
    proving,
    push,
    saml,
    sections,
    sessions,
    sso,
)
from synapse.config.errors import ConfigError
from synapse.config.files import Merged, read_files
from synapse.config.listeners import Listener
from synapse.config.options import Reader, Section, WrongValue, as_config_error, known_names, nearest, options_of

APP_PREFIX: Final = "synapse.app."
MAIN_APP: Final = "synapse.app.homeserver"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one process was told. The comments of a section's name say which of its options are meant."""

    server: sections.ServerConfig
    tls: sections.TlsConfig
    database: sections.DatabaseConfig
    logging: sections.LoggingConfig
    keys: sections.KeysConfig
    registration: accounts.RegistrationConfig
    signing_up: proving.SigningUpConfig
    auto_joining: auto_join.AutoJoinConfig
    ui_auth: proving.UiAuthConfig
    sessions: sessions.SessionsConfig
    templates: accounts.TemplatesConfig
    discovery: discovery.DiscoveryConfig
    email: contacts.EmailConfig
    profiles: profiles.ProfilesConfig
    sms: contacts.SmsConfig
    threepids: contacts.ThreepidsConfig
    jwt_config: jwt.JwtConfig
    saml2_config: saml.SamlConfig
    login_via_existing_session: sso.ExistingSessionConfig
    cas_config: sso.CasConfig
    oidc: oidc.OidcConfig
    oauth: oauth.OAuthConfig
    sso: sso.SsoConfig
    sightings: conduct.SightingsConfig
    telling: conduct.TellingConfig
    usage: conduct.UsageConfig
    validity: conduct.ValidityConfig
    outgoing: sections.OutgoingConfig
    policy_server: policy.PolicyServerConfig
    federating: federation.FederatingConfig
    federation: federation.FederationConfig
    ratelimiting: limits.RatelimitConfig
    media: sections.MediaConfig
    push: push.PushConfig
    duties: sections.DutiesConfig
    workers: sections.WorkersConfig
    metrics: sections.MetricsConfig
    caches: sections.CachesConfig
    user_directory: sections.UserDirectoryConfig
    room_directory: sections.RoomDirectoryConfig
    voip: sections.VoipConfig

    origin: Merged
    """Where it was read from."""
    warnings: tuple[str, ...] = ()
    """Sentences about what is odd, but no obstacle."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it was read from."""
        return self.origin.files

    def place(self, option: str) -> str:
        """The file, and line, where an option stands, for a `ConfigError`."""
        return self.origin.place(option)

    @property
    def listeners_option(self) -> str:
        """The option that `listeners` come from."""
        return "listeners" if self.is_main else "worker_listeners"

    @property
    def app(self) -> str:
        """The module of this process: `synapse.app.synchrotron`."""
        return self.workers.worker_app or MAIN_APP

    @property
    def application(self) -> str:
        """The application's short name: `homeserver`, `synchrotron`."""
        return self.app.removeprefix(APP_PREFIX)

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes the streams."""
        return self.app == MAIN_APP

    @property
    def instance_name(self) -> str:
        """How this process is called among the others: `main`, or worker_name, or the name of the worker's file."""
        if self.is_main:
            return "main"
        if self.workers.worker_name:
            return self.workers.worker_name
        return os.path.splitext(os.path.basename(self.files[-1]))[0]

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Where this process listens."""
        return self.server.listeners if self.is_main else self.workers.worker_listeners

    @property
    def use_presence(self) -> bool:
        """Whether presence is tracked."""
        presence = self.server.presence
        return self.server.use_presence if presence is None else presence.enabled

    @property
    def daemonize(self) -> bool:
        """Whether this process goes to the background."""
        return self.server.daemonize if self.is_main else self.workers.worker_daemonize

    @property
    def pid_file(self) -> str | None:
        """Where this process writes its process id."""
        return self.server.pid_file if self.is_main else self.workers.worker_pid_file

    @property
    def log_config(self) -> str | None:
        """The logging configuration of this process."""
        return (None if self.is_main else self.workers.worker_log_config) or self.logging.log_config

    @property
    def client_baseurl(self) -> str:
        """The URL that clients reach the server under, without a slash at its end."""
        return (self.server.public_baseurl or f"https://{self.server.server_name}").rstrip("/")


# Sections whose options stand in a block of the section's own name; the others' stand at the top level.
NESTED: Final = (
    "jwt_config",
    "saml2_config",
    "database",
    "caches",
    "user_directory",
    "templates",
    "email",
    "sms",
    "login_via_existing_session",
    "ui_auth",
    "sso",
    "oauth",
    "cas_config",
    "federation",
    "push",
    "policy_server",
)

SECTIONS: Final[dict[str, type[Section]]] = {
    field.name: field.type for field in msgspec.structs.fields(Config) if field.name not in ("origin", "warnings")
}


def load(paths: Sequence[str]) -> Config:
    """Read and check the configuration of a process. Raises `ConfigError`."""
    return from_merged(read_files(paths))


def load_unchecked(paths: Sequence[str]) -> Config:
    """Like `load`, without looking whether a process could start with it: for tools that stop or inspect one."""
    return _parse(read_files(paths))


def from_options(options: Mapping[str, Any], file: str = "homeserver.yaml") -> Config:
    """A configuration from options that stand in no file. Raises `ConfigError`."""
    return from_merged(Merged((file,), dict(options), {}))


def from_merged(merged: Merged) -> Config:
    """Check options against their declarations, and with one another. Raises `ConfigError`."""
    from synapse.config.checks import check

    config = _parse(merged)
    return msgspec.structs.replace(config, warnings=(*config.warnings, *check(config, merged.place)))


def _parse(merged: Merged) -> Config:
    reader = Reader()
    found = {}
    options = _with_defaults(merged)
    for name, section in SECTIONS.items():
        try:
            found[name] = _section(reader, name, section, options)
        except WrongValue as error:
            option = error.within(name) if name in NESTED else error
            raise as_config_error(option, merged.place(option.option)) from None
    unknown = [*_unknown_at_top(options), *reader.unknown]
    warnings = tuple(_unknown_warning(merged.place(option), option, near) for option, near in unknown)
    return Config(**found, origin=merged, warnings=warnings)


def _with_defaults(merged: Merged) -> dict[str, Any]:
    """The options, with those whose default depends on others; `databases`, another form, stands for `database`."""
    options = dict(merged.options)
    if options.get("signing_key_path") is None and isinstance(options.get("server_name"), str):
        options["signing_key_path"] = default_key_path(options["server_name"], os.path.dirname(merged.files[0]))
    if options.get("databases") is None:
        options.pop("databases", None)
        return options
    place = merged.place("databases")
    if options.get("database") is not None:
        raise ConfigError(place, "databases", "and `database` are both set", "keep one of them")
    databases = options.pop("databases")
    if not isinstance(databases, dict) or len(databases) != 1:
        problem = "must be a mapping with one database, since everything is kept in one"
        raise ConfigError(place, "databases", problem, "write `database` and the one database's options below it")
    (options["database"],) = databases.values()
    return options


def default_key_path(server_name: str, directory: str) -> str:
    """Where the signing key is unless `signing_key_path` says otherwise: beside the configuration."""
    return os.path.join(os.path.abspath(directory), f"{server_name}.signing.key")


def _section(reader: Reader, name: str, section: type[Any], options: dict[str, Any]) -> Any:
    if name not in NESTED:
        return reader.known(section, options)
    given = options.get(name)
    known = len(reader.unknown)
    found = reader.section(section, {} if given is None else given)
    reader.unknown[known:] = [(f"{name}.{option}", near) for option, near in reader.unknown[known:]]
    return found


def top_level_names() -> list[str]:
    """Every option that may stand at the top level of a file."""
    flat: list[type[Section]] = [section for name, section in SECTIONS.items() if name not in NESTED]
    return [*NESTED, *(option for section in flat for option in known_names(options_of(section)))]


def _unknown_at_top(options: dict[str, Any]) -> list[tuple[str, str | None]]:
    known = top_level_names()
    return [(str(name), nearest(str(name), known)) for name in options if name not in known]


def _unknown_warning(place: str, option: str, near: str | None) -> str:
    guess = f"; did you mean `{near}`?" if near else "; it is ignored."
    return f"{place}: `{option}` is no option of this server{guess}"
