"""The sections of a configuration: every option, its type, its default and what it is for.

Nothing is declared here that no code reads (a test holds it); the same goes the other way round: whatever an
administrator can set is here, or, as far as rate limits go, in `synapse.config.limits`. How declarations work is
described in `synapse.config.options`.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Final, Literal, NamedTuple

from synapse.config.listeners import Listener
from synapse.config.options import Doc, Duration, Path, Port, Secret, Section, Size

_SECOND: Final = 1000
_HOUR: Final = 3600 * _SECOND
_MIB: Final = 1 << 20


DutyName = Literal["pusher", "appservice", "federation_sender", "user_directory", "media_repository"]


PRIVATE_NETWORKS: Final = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4", "::/127", "fe80::/10", "fc00::/7", "2001:db8::/32", "ff00::/8", "fec0::/10"),
)
"""Networks that are not the public Internet: private, local, for documentation, for many at once, reserved."""


class PresenceOptions(Section, frozen=True, kw_only=True):
    """The same as `use_presence`, in the form of a block."""

    enabled: Annotated[bool, Doc("Whether presence is tracked.")] = True


class ServerConfig(Section, frozen=True, kw_only=True):
    """Server: its name, and where it is reached."""

    server_name: Annotated[
        str, Doc("The domain in user ids and room aliases. It cannot be changed later.", example="example.org")
    ]
    public_baseurl: Annotated[
        str | None,
        Doc(
            "The URL under which clients reach this server; by default https:// and the server name.",
            example="https://matrix.example.org/",
        ),
    ] = None
    pid_file: Annotated[Path | None, Doc("Where the main process writes its process id.", example="homeserver.pid")] = (
        None
    )
    daemonize: Annotated[bool, Doc("Whether the main process goes to the background by itself.")] = False
    listeners: Annotated[
        tuple[Listener, ...],
        Doc(
            "Where the main process listens.",
            example=[
                {
                    "port": 8008,
                    "type": "http",
                    "bind_addresses": ["127.0.0.1"],
                    "resources": [{"names": ["client", "federation"]}],
                }
            ],
        ),
    ] = ()
    manhole_password: Annotated[
        Secret | None, Doc("The password of listeners of type `manhole`; the user is `synapse`.")
    ] = None
    use_presence: Annotated[bool, Doc("Whether it is tracked, and told to others, who is online.")] = True
    presence: Annotated[
        PresenceOptions | None,
        Doc("Another way to write `use_presence`; it wins where both are given.", example={"enabled": True}),
    ] = None
    enable_search: Annotated[
        bool, Doc("Whether users can search messages. While it is false, new messages are not indexed.")
    ] = True
    filter_timeline_limit: Annotated[
        int,
        Doc("How many events of one room a sync tells at most, whatever its filter asks for; -1 for a thousand."),
    ] = 100
    default_room_version: Annotated[str, Doc("The version of new rooms, where their creator does not choose.")] = "12"
    encryption_enabled_by_default_for_room_type: Annotated[
        Literal["off", "invite", "all"],
        Doc(
            "Which new rooms are encrypted, unless their creator says how: none, those that one is invited to "
            "(the presets private_chat and trusted_private_chat), or all."
        ),
    ] = "off"
    report_stats: Annotated[
        bool | None,
        Doc(
            "Whether you would share statistics of use. This server sends none; the answer is kept for tools that ask."
        ),
    ] = None
    soft_file_limit: Annotated[
        int, Doc("How many files and connections a process may have open; 0 for as many as the system allows.")
    ] = 0
    gc_thresholds: Annotated[
        tuple[int, ...], Doc("Thresholds of Python's garbage collector, for its three generations.")
    ] = (10_000, 20, 20)


class TlsConfig(Section, frozen=True, kw_only=True):
    """TLS: for listeners with `tls: true`. Behind a reverse proxy it is not needed. SIGHUP reads both files again."""

    tls_certificate_path: Annotated[
        Path | None, Doc("The certificate and those of its issuers, PEM.", example="/etc/synapse/example.org.crt")
    ] = None
    tls_private_key_path: Annotated[
        Path | None, Doc("The private key of the certificate, PEM.", example="/etc/synapse/example.org.key")
    ] = None


class DatabaseConfig(Section, frozen=True, kw_only=True):
    """Database: PostgreSQL, your own or one that is started in a directory of this server."""

    name: Annotated[
        str,
        Doc(
            "`psycopg2` for a PostgreSQL server of your own, `embedded` for one that the main "
            "process starts by itself and that needs nothing installed."
        ),
    ] = "embedded"
    args: Annotated[
        dict[str, Any],
        Doc(
            "For `psycopg2`: how to connect, by the names of libpq (host, port, user, password, "
            "dbname, sslmode, …), and `cp_min`, `cp_max`.",
            example={
                "user": "synapse",
                "password": "…",
                "dbname": "synapse",
                "host": "localhost",
                "cp_min": 5,
                "cp_max": 10,
            },
        ),
    ] = {}  # noqa: RUF012  # msgspec copies it; the struct is frozen
    password: Annotated[Secret | None, Doc("The password, in place of `args.password`.")] = None
    data_directory: Annotated[Path | None, Doc("For `embedded`: where its files are.", example="postgres")] = None
    allow_unsafe_locale: Annotated[
        bool,
        Doc(
            "Whether to start on a database whose collation is not C. Indexes break silently when "
            "the system's locale data changes."
        ),
    ] = False

    @property
    def is_embedded(self) -> bool:
        """Whether the main process starts the database by itself."""
        return self.name == "embedded"

    @property
    def pool_min(self) -> int:
        """How many connections a process keeps open."""
        return int(self.args.get("cp_min", 1))

    @property
    def pool_max(self) -> int:
        """How many connections a process opens at most."""
        return int(self.args.get("cp_max", 10))

    @property
    def connection_args(self) -> dict[str, Any]:
        """What libpq is told, where the database is not embedded."""
        found = {
            ("dbname" if key == "database" else key): value
            for key, value in self.args.items()
            if not key.startswith("cp_")
        }
        if self.password is not None:
            found["password"] = str(self.password)
        return found


class LoggingConfig(Section, frozen=True, kw_only=True):
    """Logging: what log lines look like and where they go."""

    log_config: Annotated[
        Path | None,
        Doc(
            "A YAML file in the form of Python's logging.config.dictConfig; without one, log lines go to stderr.",
            example="example.org.log.config",
        ),
    ] = None


class SigningSeed(NamedTuple):
    """A private signing key as its file has it."""

    algorithm: str
    version: str
    seed: bytes

    @property
    def key_id(self) -> str:
        """`ed25519:version`."""
        return f"{self.algorithm}:{self.version}"


class KeysConfig(Section, frozen=True, kw_only=True):
    """Keys: what this server signs its events and requests with."""

    signing_key_path: Annotated[
        Path | None,
        Doc(
            "The file of the private signing key; `--generate-keys` makes one. By default "
            "`<server_name>.signing.key` beside the main configuration file.",
            example="example.org.signing.key",
        ),
    ] = None

    def read_signing_keys(self) -> tuple[SigningSeed, ...]:
        """The keys in the file, a line each: algorithm, version, base64 of the seed. Raises `OSError`, `ValueError`."""
        return read_seeds(self.signing_key_path or "")


def read_seeds(path: str) -> tuple[SigningSeed, ...]:
    """The keys in a file, a line each: algorithm, version, base64 of the seed. Raises `OSError`, `ValueError`."""
    with open(path, encoding="ascii") as file:
        return tuple(_seed(line) for line in file.read().splitlines() if line.strip())


def _seed(line: str) -> SigningSeed:
    words = line.split()
    if len(words) != 3 or words[0] != "ed25519":
        raise ValueError("a line is not of the form `ed25519 VERSION KEY`")
    try:
        seed = base64.b64decode(words[2] + "=" * (-len(words[2]) % 4), validate=True)
    except binascii.Error:
        seed = b""
    if len(seed) != 32:
        raise ValueError("a key is not the base64 of 32 bytes")
    return SigningSeed(words[0], words[1], seed)


class OutgoingConfig(Section, frozen=True, kw_only=True):
    """Outgoing requests: to hosts that users name, such as identity servers and policy servers."""

    ip_range_blacklist: Annotated[
        tuple[str, ...],
        Doc("Networks to which no such request goes, as `10.0.0.0/8`; by default all that are not public.", example=[]),
    ] = PRIVATE_NETWORKS
    ip_range_whitelist: Annotated[
        tuple[str, ...],
        Doc("Networks within those of `ip_range_blacklist` to which they may go.", example=["192.168.1.1/32"]),
    ] = ()
    use_insecure_ssl_client_just_for_testing_do_not_use: Annotated[
        bool, Doc("Whether to believe any identity server without a certificate. Only ever for tests.")
    ] = False


class MediaConfig(Section, frozen=True, kw_only=True):
    """Media: uploads and downloads."""

    enable_media_repo: Annotated[
        bool,
        Doc(
            "Whether the main process does the media repository's background work; false where a "
            "media_repository worker does."
        ),
    ] = True
    media_store_path: Annotated[Path, Doc("The directory that files are kept in.", example="media_store")] = (
        "media_store"
    )
    max_upload_size: Annotated[Size, Doc("The largest file that users may upload.")] = 50 * _MIB


class WorkersConfig(Section, frozen=True, kw_only=True):
    """Workers: what this process is, and how it reaches the main process.

    All but the secret belong into the worker's own file.
    """

    worker_app: Annotated[
        str | None, Doc("The application that a worker file is for.", example="synapse.app.synchrotron")
    ] = None
    worker_name: Annotated[
        str | None,
        Doc("How log lines and metrics call the process; by default the name of its file.", example="synchrotron1"),
    ] = None
    worker_replication_host: Annotated[str | None, Doc("The host of the main process.", example="127.0.0.1")] = None
    worker_replication_port: Annotated[
        Port | None, Doc("The port of its listener of type `replication`.", example=9092)
    ] = None
    worker_replication_http_port: Annotated[
        Port | None, Doc("The port of its http listener with the resource `replication`.", example=9093)
    ] = None
    worker_replication_secret: Annotated[
        Secret | None,
        Doc(
            "Proves to one another that main process and workers belong together. Needed where "
            "replication is reachable from other machines."
        ),
    ] = None
    worker_main_http_uri: Annotated[
        str | None, Doc("The main process's client listener, for frontend_proxy.", example="http://127.0.0.1:8008")
    ] = None
    worker_listeners: Annotated[
        tuple[Listener, ...],
        Doc(
            "Where the worker listens.", example=[{"type": "http", "port": 8083, "resources": [{"names": ["client"]}]}]
        ),
    ] = ()
    worker_daemonize: Annotated[bool, Doc("Whether the worker goes to the background by itself.")] = False
    worker_pid_file: Annotated[
        Path | None, Doc("Where the worker writes its process id.", example="synchrotron.pid")
    ] = None
    worker_log_config: Annotated[
        Path | None,
        Doc("The worker's own log configuration, in place of `log_config`.", example="synchrotron_log_config.yaml"),
    ] = None
    worker_duties: Annotated[
        tuple[DutyName, ...],
        Doc("The duties of a generic_worker, which serves whatever its listeners' resources name.", example=["pusher"]),
    ] = ()


class DutiesConfig(Section, frozen=True, kw_only=True):
    """Duties: what the main process does besides answering, unless a worker does it."""

    start_pushers: Annotated[bool, Doc("Send push notifications; false where a pusher worker does.")] = True
    notify_appservices: Annotated[bool, Doc("Send to application services; false where an appservice worker does.")] = (
        True
    )
    send_federation: Annotated[bool, Doc("Send to other servers; false where a federation_sender worker does.")] = True
    update_user_directory: Annotated[bool, Doc("Keep the user directory; false where a user_dir worker does.")] = True
    app_service_config_files: Annotated[
        tuple[Path, ...],
        Doc(
            "The registrations of application services (bridges and bots), which say what names are theirs.",
            example=["/etc/synapse/irc-bridge.yaml"],
        ),
    ] = ()


class MetricsConfig(Section, frozen=True, kw_only=True):
    """Metrics: figures for Prometheus."""

    enable_metrics: Annotated[bool, Doc("Whether listeners with the resource `metrics` answer with them.")] = False


class CachesConfig(Section, frozen=True, kw_only=True):
    """Caches: how much of the database is kept in memory (`caches:`)."""

    global_factor: Annotated[float, Doc("Multiplies the size of every cache.")] = 1.0
    per_cache_factors: Annotated[
        dict[str, float], Doc("A factor for a cache by its name, in place of the global one.", example={"events": 2.0})
    ] = {}  # noqa: RUF012  # msgspec copies it
    sync_response_cache_duration: Annotated[
        Duration, Doc("How long the answer of a sync with news is kept, for clients that lost it and ask again.")
    ] = 5 * _SECOND

    def size(self, name: str, entries: int) -> int:
        """How many entries the cache `name`, of normally so many, may have."""
        return max(1, int(entries * self.per_cache_factors.get(name, self.global_factor)))


class UserDirectoryConfig(Section, frozen=True, kw_only=True):
    """User directory: whom users find when they search (`user_directory:`)."""

    enabled: Annotated[bool, Doc("Whether users can search for users.")] = True
    search_all_users: Annotated[
        bool,
        Doc(
            "Whether they find everybody on this server, or only those whom they share a room with "
            "or who are in public rooms."
        ),
    ] = False
    prefer_local_users: Annotated[bool, Doc("Whether this server's own users come first.")] = False
    exclude_remote_users: Annotated[bool, Doc("Whether they find this server's own users alone.")] = False
    show_locked_users: Annotated[bool, Doc("Whether they find users whose accounts are locked.")] = False


class DirectoryRule(Section, frozen=True, kw_only=True):
    """A rule about aliases or the room directory. In patterns, `*` stands for anything and `?` for one character."""

    user_id: Annotated[str, Doc("A pattern for who asks.")] = "*"
    alias: Annotated[str, Doc("A pattern for the alias, or any alias of the room.")] = "*"
    room_id: Annotated[str, Doc("A pattern for the room.")] = "*"
    action: Annotated[Literal["allow", "deny"], Doc("What holds where all of it matches.")] = "allow"


class RoomDirectoryConfig(Section, frozen=True, kw_only=True):
    """Room directory: which rooms can be found, and who may make them so."""

    enable_room_list_search: Annotated[
        bool, Doc("Whether the room directory can be read; if not, it looks empty to everybody.")
    ] = True
    allow_public_rooms_without_auth: Annotated[
        bool, Doc("Whether it can be read without an account, as Matrix foresees it.")
    ] = True
    alias_creation_rules: Annotated[
        tuple[DirectoryRule, ...],
        Doc(
            "Who may make which aliases. The first rule that matches decides; what none matches is allowed.",
            example=[{"user_id": "@bot:*", "alias": "#bot-*", "action": "allow"}, {"action": "deny"}],
        ),
    ] = ()
    room_list_publication_rules: Annotated[
        tuple[DirectoryRule, ...],
        Doc(
            "Who may list which rooms in the room directory, likewise.",
            example=[{"user_id": "@admin:example.org", "action": "allow"}, {"action": "deny"}],
        ),
    ] = ()


class VoipConfig(Section, frozen=True, kw_only=True):
    """Calls: the TURN servers that clients are told of."""

    turn_uris: Annotated[
        tuple[str, ...], Doc("The TURN servers.", example=["turn:turn.example.org?transport=udp"])
    ] = ()
    turn_shared_secret: Annotated[
        Secret | None, Doc("The secret that is shared with the TURN servers; passwords are made from it.")
    ] = None
    turn_username: Annotated[
        str | None, Doc("A fixed user name, where there is no shared secret.", example="synapse")
    ] = None
    turn_password: Annotated[Secret | None, Doc("The password of the fixed user name.")] = None
    turn_user_lifetime: Annotated[Duration, Doc("How long the passwords made from the shared secret are valid.")] = (
        _HOUR
    )
    turn_allow_guests: Annotated[bool, Doc("Whether guests may use them too.")] = True
