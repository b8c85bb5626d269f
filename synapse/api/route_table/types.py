"""The vocabulary of the route table: what an endpoint and a worker's route are.

Plain values without behaviour that would need a server: `synctl` imports them to write proxy configurations.
The tables themselves are in the neighbouring modules, the assembled whole in `synapse.api.routes`.
"""

import re
from dataclasses import dataclass
from enum import Enum, StrEnum

# Prefixes under which a client endpoint answers when the workers' description names none for it.
CLIENT = ("r0", "v3")
# The three sets of prefixes that the workers' description names, and v3, the name of today's API.
CLASSIC = ("api/v1", "r0", "unstable", "v3")
SYNC = ("v2_alpha", "r0", "v3")
EVENTS = ("api/v1", "v2_alpha", "r0", "v3")
INITIAL_SYNC = ("api/v1", "r0", "v3")
REGISTER = ("r0", "unstable", "v3")
MEDIA = ("r0", "v1", "v3")
RELATIONS = ("unstable", "v1")

KIB = 1024
MIB = 1024 * KIB
# An event is at most 64 KiB of canonical JSON; the same event may arrive escaped and indented.
DEFAULT_MAX_BODY = 256 * KIB

SAFE_METHODS = frozenset(("GET", "HEAD"))


class App(StrEnum):
    """The process types; the value is what `worker_app` says and what `python -m` runs."""

    HOMESERVER = "synapse.app.homeserver"
    PUSHER = "synapse.app.pusher"
    SYNCHROTRON = "synapse.app.synchrotron"
    APPSERVICE = "synapse.app.appservice"
    FEDERATION_READER = "synapse.app.federation_reader"
    FEDERATION_SENDER = "synapse.app.federation_sender"
    MEDIA_REPOSITORY = "synapse.app.media_repository"
    CLIENT_READER = "synapse.app.client_reader"
    USER_DIR = "synapse.app.user_dir"
    FRONTEND_PROXY = "synapse.app.frontend_proxy"
    EVENT_CREATOR = "synapse.app.event_creator"
    GENERIC_WORKER = "synapse.app.generic_worker"


class Affinity(Enum):
    """How a proxy must choose among several instances of one application."""

    NONE = "any instance"
    USER = "all requests of one user to one instance"
    ROOM = "all requests for one room to one instance"
    ONE = "all requests to one and the same instance"


class Auth(Enum):
    """Whose word an endpoint takes."""

    NONE = "anybody"
    USER = "an access token"
    OPTIONAL = "an access token if one is sent"
    SERVICE = "anybody; an application service may show its token"
    ADMIN = "the access token of a server administrator"
    SERVER = "a signed request of another server"
    SECRET = "the secret that the processes of one server share"


class Condition(Enum):
    """What the shared configuration must say for a worker's route to hold."""

    PRESENCE_OFF = "use_presence is false"


@dataclass(frozen=True, slots=True)
class WorkerRoute:
    """One regular expression of the workers' description: what a proxy sends to an application.

    `pattern` is the expression to the letter, with `{versions}` where it lists prefixes; it is meant for the decoded
    path, as nginx's `location` sees it.
    """

    app: App
    pattern: str
    versions: tuple[str, ...] = ()  # the prefixes as described
    added: tuple[str, ...] = ()  # prefixes that came later and are routed alike
    methods: tuple[str, ...] = ()  # () is every method
    affinity: Affinity = Affinity.NONE
    when: Condition | None = None
    described: bool = True  # False: not in the workers' description; the same thing under a newer path

    @property
    def regex(self) -> str:
        """The expression with all prefixes, for a proxy."""
        return self._with(self.versions + self.added)

    @property
    def described_regex(self) -> str:
        """The expression exactly as the workers' description prints it."""
        return self._with(self.versions)

    def _with(self, versions: tuple[str, ...]) -> str:
        return self.pattern.replace("{versions}", "(" + "|".join(versions) + ")")

    def takes(self, method: str, path: str) -> bool:
        """Whether a proxy sends this request to the application (the condition aside)."""
        return (not self.methods or method in self.methods) and re.search(self.regex, path) is not None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One operation: a path template, its methods, and who may serve and call it.

    Templates: `{name}` stands for one non-empty segment, given percent-decoded to the handler under that name;
    `{version}` for any of `versions`; `[...]` at the end may be left out or empty, its parameter is "" then.
    """

    name: str
    path: str
    methods: tuple[str, ...]
    versions: tuple[str, ...] = ()
    routes: tuple[WorkerRoute, ...] = ()  # by which a proxy hands it to workers; the main process serves everything
    auth: Auth = Auth.USER
    guests: bool = False
    ratelimit: str | None = (
        None  # name of a rate-limit setting, held against the user, or the address where there is none
    )
    resource: str = "client"
    max_body: int = DEFAULT_MAX_BODY  # bytes; not looked at when the body is streamed
    streams_body: bool = False  # the handler reads the body as it comes (uploads)
    long_poll: bool = False  # may wait for news; answered at once when the process leaves

    @property
    def apps(self) -> tuple[App, ...]:
        """The worker applications that may serve it, besides the main process."""
        return tuple(dict.fromkeys(route.app for route in self.routes))

    @property
    def affinity(self) -> Affinity:
        return next((r.affinity for r in self.routes if r.affinity is not Affinity.NONE), Affinity.NONE)

    def paths(self) -> tuple[str, ...]:
        """The template once per version, and with and without its optional end."""
        filled = [self.path.replace("{version}", v) for v in self.versions] if self.versions else [self.path]
        return tuple(path for template in filled for path in _with_and_without_end(template))

    def pattern(self) -> str:
        """A regular expression over the raw path of the request line.

        There a slash inside a segment is still %2F; on a path that a proxy has decoded it would not match.
        """
        path, _, optional = self.path.rstrip("]").partition("[")
        versions = "(?:" + "|".join(re.escape(v) for v in self.versions) + ")"
        return f"^{_expression(path, versions)}" + (
            f"(?:{_expression(optional, versions, '*')})?$" if optional else "$"
        )

    def example(self, version: str | None = None, **values: str) -> str:
        """A path that leads here; parameters not given are called by their names."""
        path = self.path.partition("[")[0].replace("{version}", version or (self.versions or ("",))[-1])
        return re.sub(r"\{(\w+)\}", lambda m: values.get(m[1], m[1]), path)


def _expression(template: str, versions: str, repeat: str = "+") -> str:
    parts = re.split(r"(\{\w+\})", template)
    return "".join(
        versions if p == "{version}" else f"[^/?]{repeat}" if p.startswith("{") else re.escape(p) for p in parts
    )


def _with_and_without_end(template: str) -> tuple[str, ...]:
    if not template.endswith("]"):
        return (template,)
    path, _, optional = template.rstrip("]").partition("[")
    return path, path + optional
