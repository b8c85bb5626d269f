"""Checks that need more than one option, or a look at the world (a key's file).

Each check takes the configuration and a function that tells where an option stands; it raises `ConfigError` for what a
process cannot start with, and yields sentences about what is odd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final, NoReturn

from synapse.api.route_table.types import App
from synapse.config import checks_conduct, checks_files
from synapse.config.app_services import read_app_services
from synapse.config.auto_join import check_auto_join
from synapse.config.contacts import check_contacts
from synapse.config.errors import ConfigError
from synapse.config.federation import check_federation
from synapse.config.jwt import check_jwt
from synapse.config.listeners import Listener, bracketed, is_loopback
from synapse.config.options import nearest, options_of
from synapse.config.policy import check_policy_server
from synapse.config.proving import check_signing_up
from synapse.config.saml import check_saml
from synapse.config.sso import check_sso

if TYPE_CHECKING:
    from synapse.config.root import Config

Place = Callable[[str | None], str]


class Worker:
    """What an application needs to be told, and the option that takes its duty from the main process."""

    def __init__(self, needs: tuple[str, ...] = (), duty: str | None = None) -> None:
        self.needs = needs
        self.duty = duty


WORKER_APPS: Final[dict[str, Worker]] = {
    App.APPSERVICE: Worker(duty="notify_appservices"),
    App.CLIENT_READER: Worker(),
    App.EVENT_CREATOR: Worker(needs=("worker_replication_http_port",)),
    App.FEDERATION_READER: Worker(needs=("worker_replication_http_port",)),
    App.FEDERATION_SENDER: Worker(duty="send_federation"),
    App.FRONTEND_PROXY: Worker(needs=("worker_main_http_uri",)),
    App.GENERIC_WORKER: Worker(),
    App.MEDIA_REPOSITORY: Worker(duty="enable_media_repo"),
    App.PUSHER: Worker(duty="start_pushers"),
    App.SYNCHROTRON: Worker(),
    App.USER_DIR: Worker(duty="update_user_directory"),
}
APPS: Final = (str(App.HOMESERVER), *WORKER_APPS)

# The sections that a worker's file may have something of its own to say about.
_OF_ONE_PROCESS: Final = (
    *("server", "tls", "database", "logging", "media", "duties", "workers", "metrics", "caches", "ratelimiting"),
)
_LONGEST_PASSWORD: Final = 512  # as synapse.handlers.passwords takes them
_NEEDED_BY_ALL: Final = ("worker_replication_host", "worker_replication_port")
_EXAMPLES: Final = {
    "worker_replication_host": "worker_replication_host: 127.0.0.1",
    "worker_replication_port": "worker_replication_port: 9092",
    "worker_replication_http_port": "worker_replication_http_port: 9093",
    "worker_main_http_uri": "worker_main_http_uri: http://127.0.0.1:8008",
}


def check(config: Config, place: Place) -> Iterator[str]:
    """All checks, the first obstacle raised, what is odd yielded."""
    _server(config, place)
    yield from _application(config, place)
    yield from _database(config, place)
    _signing_key(config, place)
    yield from _listeners(config, place)
    _registration(config, place)
    yield from _sessions(config, place)
    _voip(config, place)
    _outgoing(config, place)
    yield from check_federation(config, place)
    yield from _discovery(config, place)
    yield from check_jwt(config, place)
    yield from check_saml(config, place)
    yield from check_contacts(config, place)
    check_sso(config, place)
    yield from _duties(config, place)
    yield from _disagreements(config, place)
    yield from checks_conduct.check(config, place)
    checks_files.check(config, place)
    check_policy_server(config, place)


def _fail(place: Place, option: str, problem: str, remedy: str) -> NoReturn:
    raise ConfigError(place(option), option, problem, remedy)


def _server(config: Config, place: Place) -> None:
    from synapse.api.identifiers import is_server_name
    from synapse.api.room_versions import ROOM_VERSIONS

    name, version = config.server.server_name, config.server.default_room_version
    if not is_server_name(name):
        _fail(
            place,
            "server_name",
            f"is {name!r}, which is no host name with or without a port",
            "write a domain such as example.org",
        )
    if version not in ROOM_VERSIONS:
        _fail(
            place,
            "default_room_version",
            f"is {version!r}, which is unknown",
            f"use one of {', '.join(ROOM_VERSIONS)}, in quotes",
        )
    if len(config.server.gc_thresholds) != 3:
        _fail(
            place, "gc_thresholds", f"has {len(config.server.gc_thresholds)} numbers", "write three, one a generation"
        )
    for option, url in (
        ("public_baseurl", config.server.public_baseurl),
        ("worker_main_http_uri", config.workers.worker_main_http_uri),
    ):
        if url is not None and not url.startswith(("http://", "https://")):
            _fail(place, option, f"is {url!r}, which is no URL", "begin it with http:// or https://")


def _application(config: Config, place: Place) -> Iterator[str]:
    app = config.app
    if app not in APPS:
        near = nearest(app, list(APPS)) or nearest(f"synapse.app.{app}", list(APPS))
        remedy = (
            f"did you mean {near}".join(("write the name in full: ", "")) if near else f"use one of {', '.join(APPS)}"
        )
        _fail(place, "worker_app", f"is {app!r}, which is no application", remedy)
    if config.is_main:
        return
    for option in (*_NEEDED_BY_ALL, *WORKER_APPS[app].needs):
        if getattr(config.workers, option) is None:
            _fail(
                place,
                option,
                f"is missing, and {app} needs it",
                f"add it to the worker's file, such as `{_EXAMPLES[option]}`",
            )
    if config.workers.worker_replication_http_port is None:
        option = "worker_replication_http_port"
        yield (
            f"{place(option)}: `{option}` is missing; whatever {config.instance_name} would have to ask of the main "
            "process will fail."
        )
    if config.workers.worker_duties and app != App.GENERIC_WORKER:
        _fail(
            place,
            "worker_duties",
            f"has no meaning for {app}",
            "remove it, or make the worker a synapse.app.generic_worker",
        )


def _database(config: Config, place: Place) -> Iterator[str]:
    database = config.database
    if database.name not in ("psycopg2", "embedded"):
        remedy = "write `name: psycopg2` and how to connect to a PostgreSQL server, or `name: embedded`"
        _fail(place, "database.name", f"is {database.name!r}, but PostgreSQL is the only database there is", remedy)
    if database.is_embedded and database.data_directory is None:
        _fail(place, "database.data_directory", "is missing", "name the directory for the embedded PostgreSQL's files")
    for key in ("cp_min", "cp_max"):
        value = database.args.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            _fail(
                place, f"database.args.{key}", "must be a whole number from 1 up", "write such a number, without quotes"
            )
    if database.pool_min > database.pool_max:
        _fail(place, "database.args.cp_min", "is greater than `cp_max`", "make it the smaller of the two")
    if database.is_embedded and set(database.args) - {"cp_min", "cp_max"}:
        yield (
            f"{place('database')}: `database.args` is ignored but for cp_min and cp_max, because the database is "
            "embedded."
        )


def _signing_key(config: Config, place: Place) -> None:
    option, path = "signing_key_path", config.keys.signing_key_path
    make = "make one by starting synapse.app.homeserver with --generate-keys"
    if path is None:
        _fail(place, option, "is missing", f"name the signing key's file, or {make}")
    try:
        keys = config.keys.read_signing_keys()
    except OSError as error:
        _fail(place, option, f"names {path}, which cannot be read ({error.strerror})", f"make it readable, or {make}")
    except ValueError as error:
        reason = "it is not text" if isinstance(error, UnicodeDecodeError) else error
        _fail(place, option, f"names {path}, which holds no signing key ({reason})", f"restore it, or {make}")
    if not keys:
        _fail(place, option, f"names {path}, which is empty", f"restore it, or {make}")
    for key_id in (key.key_id for key in keys):
        if key_id in config.federating.old_signing_keys:
            problem = f"is out of use, and in use: {path} has it too"
            _fail(place, f"old_signing_keys.{key_id}", problem, "remove it from one of the two")


# -- listeners -------------------------------------------------------------------------------------------------------


def _listeners(config: Config, place: Place) -> Iterator[str]:
    taken: dict[tuple[str, int | str], str] = {}
    for index, listener in enumerate(config.listeners):
        option = f"{config.listeners_option}[{index}]"
        _place_of_listener(listener, option, place)
        _contents(config, listener, option, place)
        _privacy(config, listener, option, place)
        _twice(listener, option, place, taken)
        if "metrics" in listener.names and not config.metrics.enable_metrics:
            yield f"{place(option)}: `{option}` offers metrics, but none are told as long as `enable_metrics` is false."


def _place_of_listener(listener: Listener, option: str, place: Place) -> None:
    if (listener.port is None) == (listener.path is None):
        problem = "has neither port nor path" if listener.port is None else "has both port and path"
        _fail(place, option, problem, "give it a `port`, or the `path` of a unix socket")
    if listener.bind_address and listener.bind_addresses is not None:
        _fail(place, f"{option}.bind_address", "and `bind_addresses` are both set", "keep one of them")
    if listener.bind_addresses == ():
        _fail(place, f"{option}.bind_addresses", "is empty", "name an address, or remove the listener")
    for address in listener.addresses:
        if not _is_address(address):
            _fail(
                place,
                f"{option}.bind_addresses",
                f"has {address!r}, which is no IP address",
                "write an address of this machine, such as 127.0.0.1 or '::'",
            )


def _is_address(address: str) -> bool:
    import socket

    if address == "localhost":
        return True
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address)
        except OSError:
            continue
        return True
    return False


def _contents(config: Config, listener: Listener, option: str, place: Place) -> None:
    if listener.type == "http" and not listener.names:
        _fail(
            place,
            f"{option}.resources",
            "is missing or empty",
            "name what is served, such as `resources: [{names: [client]}]`",
        )
    if listener.type != "http" and listener.resources:
        _fail(
            place,
            f"{option}.resources",
            f"has no meaning for a listener of type {listener.type}",
            "remove it, or make the type http",
        )
    if not config.is_main and (listener.type == "replication" or "replication" in listener.names):
        _fail(
            place,
            option,
            "offers replication, which only the main process does",
            "move it to `listeners` of the main configuration",
        )
    if listener.type == "manhole" and config.server.manhole_password is None:
        _fail(place, "manhole_password", f"is missing, but {option} is a manhole", "set it, or remove the listener")
    if listener.tls and listener.type != "http":
        _fail(place, f"{option}.tls", f"has no meaning for a listener of type {listener.type}", "remove it")
    for name in ("tls_certificate_path", "tls_private_key_path") if listener.tls else ():
        if getattr(config.tls, name) is None:
            _fail(place, name, f"is missing, but {option} has `tls: true`", "name the file, or remove `tls: true`")


def _privacy(config: Config, listener: Listener, option: str, place: Place) -> None:
    if listener.path is not None or all(is_loopback(address) for address in listener.addresses):
        return
    where = f"{option}.bind_addresses" if listener.bind_addresses is not None else f"{option}.bind_address"
    if listener.type == "manhole":
        _fail(place, where, "lets other machines reach a manhole", "write 127.0.0.1")
    offers_replication = listener.type == "replication" or "replication" in listener.names
    if offers_replication and config.workers.worker_replication_secret is None:
        _fail(
            place,
            where,
            "lets other machines reach replication, without a secret",
            "write 127.0.0.1, or set worker_replication_secret for all processes",
        )


def _twice(listener: Listener, option: str, place: Place, taken: dict[tuple[str, int | str], str]) -> None:
    if listener.path is not None:
        keys: list[tuple[str, int | str]] = [("", listener.path)]
    else:
        keys = [(address, listener.port or 0) for address in listener.addresses]
    for address, end in keys:
        clash = taken.get((address, end)) or _overlap(address, end, taken)
        if clash:
            what = "path" if listener.path is not None else "port"
            _fail(
                place,
                f"{option}.{what}",
                f"is {end}{f' on {bracketed(address)}' if address else ''}, as {clash} is",
                "give each listener its own",
            )
    taken.update(dict.fromkeys(keys, option))


def _overlap(address: str, end: int | str, taken: dict[tuple[str, int | str], str]) -> str | None:
    """Another listener on the same port, one of the two on all addresses."""
    for (other, other_end), option in taken.items():
        if other_end == end and (address in ("::", "0.0.0.0") or other in ("::", "0.0.0.0")):
            return option
    return None


# -- the rest ----------------------------------------------------------------------------------------------------------


def _registration(config: Config, place: Place) -> None:
    options = config.registration
    if not 4 <= options.bcrypt_rounds <= 31:
        _fail(place, "bcrypt_rounds", f"is {options.bcrypt_rounds}", "write a number from 4 to 31")
    argon2 = options.password_config.argon2
    if not 8192 * argon2.parallelism <= argon2.memory_cost <= 4 << 30:
        option = "password_config.argon2.memory_cost"
        _fail(place, option, f"is {argon2.memory_cost} bytes", "write a size from 8K for each lane to 4G, such as 64M")
    shortest = options.password_config.policy.minimum_length
    if shortest > _LONGEST_PASSWORD:
        option = "password_config.policy.minimum_length"
        _fail(place, option, f"is {shortest}, and no password may be so long", f"write at most {_LONGEST_PASSWORD}")
    check_signing_up(config, place)
    check_auto_join(config, place)


def _sessions(config: Config, place: Place) -> Iterator[str]:
    options = config.sessions
    longest = options.session_lifetime
    for option in (
        "refreshable_access_token_lifetime",
        "nonrefreshable_access_token_lifetime",
        "refresh_token_lifetime",
    ):
        lifetime = getattr(options, option)
        if lifetime == 0:
            _fail(place, option, "is zero, so that nobody could stay logged in", "write a duration such as 1h")
        # What nobody set is cut to the session's length.
        given = option in config.origin.options
        if longest is not None and given and lifetime is not None and lifetime > longest:
            _fail(place, option, "is longer than `session_lifetime`, with which all ends", "make it the shorter one")
    if longest == 0:
        _fail(place, "session_lifetime", "is zero, so that nobody could stay logged in", "write a duration such as 90d")
    refresh, access = options.refresh_token_lifetime, options.refreshable_access_token_lifetime
    if refresh is not None and refresh < access:
        option = "refresh_token_lifetime"
        yield (
            f"{place(option)}: `{option}` is shorter than `refreshable_access_token_lifetime`: refresh tokens expire "
            "before clients have a reason to use them."
        )


def _outgoing(config: Config, place: Place) -> None:
    for option in ("ip_range_blacklist", "ip_range_whitelist"):
        for network in getattr(config.outgoing, option):
            try:
                ip_network(network)
            except ValueError:
                remedy = "write networks such as 10.0.0.0/8, whose last bits are zero"
                _fail(place, option, f"names {network!r}, which is no network", remedy)


def _voip(config: Config, place: Place) -> None:
    voip = config.voip
    if not voip.turn_uris or voip.turn_shared_secret is not None:
        return
    if voip.turn_username is None or voip.turn_password is None:
        _fail(
            place,
            "turn_uris",
            "is set without a way to log in to these servers",
            "set turn_shared_secret, or turn_username and turn_password",
        )


def _duties(config: Config, place: Place) -> Iterator[str]:
    read_app_services(config)
    duty = None if config.is_main else WORKER_APPS[config.app].duty
    if duty is not None:
        section = config.media if duty == "enable_media_repo" else config.duties
        if getattr(section, duty):
            yield (
                f"{place(duty)}: `{duty}` is true although {config.app} is there for it; the process "
                f"that starts first does it and the other "
                f"stands by; set {duty}: false in the shared configuration."
            )


def _disagreements(config: Config, place: Place) -> Iterator[str]:
    """A worker that hashes, signs or trusts otherwise than the others goes wrong where nobody looks for it."""
    from synapse.config.root import NESTED, SECTIONS

    shared = [section for section in SECTIONS if section not in _OF_ONE_PROCESS]
    names = {
        name for section in shared for name in ((section,) if section in NESTED else options_of(SECTIONS[section]))
    }
    for option in config.origin.of_worker():
        if {option, option.removesuffix("_path")} & names:
            main = config.files[0]
            yield f"{place(option)}: `{option}` holds for this process alone, but all have to agree; set it in {main}."


def _discovery(config: Config, place: Place) -> Iterator[str]:
    from synapse.api.identifiers import is_user_id

    discovery = config.discovery
    for option in ("default_identity_server", "support_page"):
        url = getattr(discovery, option)
        if url is not None and not url.startswith(("http://", "https://")):
            _fail(place, option, f"is {url!r}, which is no URL", "begin it with http:// or https://")
    for contact in discovery.support_contacts:
        if contact.matrix_id is None and contact.email_address is None:
            _fail(place, "support_contacts", "has somebody who cannot be reached", "write matrix_id or email_address")
        if contact.matrix_id is not None and not is_user_id(contact.matrix_id):
            problem = f"has the matrix_id {contact.matrix_id!r}, which is none"
            _fail(place, "support_contacts", problem, "write it like @admin:example.org")
    if "m.homeserver" in discovery.extra_well_known_client_content:
        yield (
            f"{place('extra_well_known_client_content')}: `m.homeserver` is what `public_baseurl` says; "
            "what stands here is ignored."
        )
