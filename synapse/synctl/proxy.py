"""What a reverse proxy has to do for a cluster: which requests go to which processes, and how it chooses among several.

Derived from the route table and from the listeners in the configuration files; `synapse.synctl.nginx` and
`synapse.synctl.haproxy` write it down in the words of those programs. Pure: files are read by `synapse.synctl.cluster`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from synapse.api.routes import ENDPOINTS, WORKER_ROUTES, Affinity, App, Condition, WorkerRoute, resources_of
from synapse.config.listeners import Listener, bracketed

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_SUFFIX = {Affinity.NONE: "", Affinity.USER: "_by_user", Affinity.ROOM: "_by_room", Affinity.ONE: "_one"}


@dataclass(frozen=True, slots=True)
class Instance:
    """One process that a proxy may send requests to."""

    name: str
    app: App
    listeners: tuple[Listener, ...]


@dataclass(frozen=True, slots=True)
class Server:
    """One address of a backend: `127.0.0.1:8083`, or a unix socket's path."""

    name: str
    address: str

    @property
    def is_socket(self) -> bool:
        return self.address.startswith("/")


@dataclass(frozen=True, slots=True)
class Backend:
    """A group of instances that serve the same requests."""

    name: str
    servers: tuple[Server, ...]
    affinity: Affinity = Affinity.NONE


@dataclass(frozen=True, slots=True)
class Rule:
    """Requests that do not belong to the main process. Rules are tried in order; the first that holds decides."""

    regex: str  # over the path as the client sent it, without the query
    methods: tuple[str, ...]  # () is every method
    backend: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a proxy has to know."""

    server_name: str
    backends: tuple[Backend, ...]
    rules: tuple[Rule, ...]
    main: str  # the backend of every other request
    max_body: int  # bytes; uploads are no larger, but many keys at once may be where uploads are small
    remarks: tuple[str, ...] = ()  # what the administrator should know

    @property
    def affinities(self) -> frozenset[Affinity]:
        """How proxies have to choose among several instances, wherever there are several."""
        return frozenset(backend.affinity for backend in self.backends)

    def backend_for(self, method: str, path: str) -> str:
        """The backend of a request; `path` as the client sent it, without the query."""
        for rule in self.rules:
            if (not rule.methods or method in rule.methods) and re.search(rule.regex, path):
                return rule.backend
        return self.main


@dataclass
class _Planner:
    instances: list[Instance]
    use_presence: bool
    backends: dict[str, Backend] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def backend(self, app: App, resource: str, affinity: Affinity) -> str | None:
        """The name of the backend for these requests, made at first use; None when no instance can take them."""
        servers = self._servers(app, resource)
        if not servers:
            return None
        if len(servers) == 1:
            affinity = Affinity.NONE
        name = f"synapse_{app.value.rpartition('.')[2]}{self._variant(app, resource, servers)}{_SUFFIX[affinity]}"
        chosen = servers[:1] if affinity is Affinity.ONE else servers
        self.backends.setdefault(name, Backend(name, chosen, affinity))
        return name

    def _variant(self, app: App, resource: str, servers: tuple[Server, ...]) -> str:
        """Tells apart the backends of an application whose resources are on different ports."""
        usual = next((s for r in ("client", "federation", "media", "keys") if (s := self._servers(app, r))), servers)
        return "" if servers == usual else f"_{resource}"

    def _servers(self, app: App, resource: str) -> tuple[Server, ...]:
        """Who can take such requests: the application's instances or, where there is none, generic workers."""
        own = [instance for instance in self.instances if instance.app is app]
        generic = [instance for instance in self.instances if instance.app is App.GENERIC_WORKER]
        found = []
        for instance in own or generic:
            address = next((a for listener in instance.listeners if (a := _address(listener, resource))), None)
            if address is not None:
                found.append(Server(instance.name, address))
        return tuple(found)

    def rules(self) -> Iterable[Rule]:
        for route in WORKER_ROUTES:
            if route.when is Condition.PRESENCE_OFF and self.use_presence:
                continue
            backend = self._backend_of(route)
            if backend is not None:
                # HEAD is GET without the body, wherever GET is taken.
                methods = (*route.methods, "HEAD") if "GET" in route.methods else route.methods
                yield Rule(route.regex, methods, backend)

    def _backend_of(self, route: WorkerRoute) -> str | None:
        resource = resource_of(route)
        backend = self.backend(route.app, resource, route.affinity)
        if backend is None and any(instance.app is route.app for instance in self.instances):
            self._remark_missing(route.app, resource)
        return backend

    def _remark_missing(self, app: App, resource: str) -> None:
        remark = (
            f"No instance of {app} has an http listener without TLS for the resource {resource}: "
            "the main process serves its requests."
        )
        if remark not in self.remarks:
            self.remarks.append(remark)


def plan(
    main: Instance, workers: list[Instance], *, server_name: str, use_presence: bool, max_upload_size: int
) -> Plan:
    """The plan for these processes. Raises ValueError, with a sentence, if a proxy cannot reach the main process."""
    planner = _Planner([main, *workers], use_presence)
    default = planner.backend(App.HOMESERVER, "client", Affinity.NONE)
    if default is None:
        raise ValueError(
            "the main process has no http listener without TLS that serves the resource `client`; add one for the proxy"
        )
    rules = tuple(planner.rules())
    federation = planner.backend(App.HOMESERVER, "federation", Affinity.NONE)
    if federation is not None and federation != default:
        # These come last: what no worker takes goes to the listener that carries federation.
        rules += (Rule("^/_matrix/(federation|key)/", (), federation),)
    return Plan(
        server_name,
        tuple(planner.backends.values()),
        _without_idle_tail(rules, default),
        default,
        max(max_upload_size, *(endpoint.max_body for endpoint in ENDPOINTS)),
        tuple(planner.remarks),
    )


def _without_idle_tail(rules: tuple[Rule, ...], default: str) -> tuple[Rule, ...]:
    """Rules at the end that say what happens anyway are left out."""
    while rules and rules[-1].backend == default:
        rules = rules[:-1]
    return rules


def resource_of(route: WorkerRoute) -> str:
    """The listener resource that carries a route."""
    carried = next((endpoint.resource for endpoint in ENDPOINTS if route in endpoint.routes), None)
    if carried is not None:
        return carried
    # Federation's routes are in the table before all of their endpoints are.
    if "/federation/" in route.regex:
        return "federation"
    return "keys" if "/key/" in route.regex else "client"


def _address(listener: Listener, resource: str) -> str | None:
    """Where a proxy on this machine reaches the resource on this listener, if it does."""
    if listener.type != "http" or listener.tls or resource not in resources_of(tuple(listener.names)):
        return None
    if listener.path is not None:
        return listener.path
    addresses = sorted(listener.addresses, key=lambda address: ":" in address)  # IPv4 first: always there
    return f"{bracketed(_ANY_ADDRESS.get(addresses[0], addresses[0]))}:{listener.port}"
