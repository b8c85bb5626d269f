"""The route table: every endpoint, who may serve it, and what proxies send where.

One source of truth. Servers mount from it, `synctl` writes proxy configurations from it, docs/workers.md prints it and
the tests walk it. It holds data alone: no handler is named here and nothing heavy is imported. The rows are in
`synapse.api.route_table`.
"""

from collections.abc import Iterator

from synapse.api.route_table import (
    accounts,
    conduct,
    contacts,
    federation,
    key_backup,
    keys,
    rooms,
    server,
    sso,
    user_admin,
)
from synapse.api.route_table.types import (
    DEFAULT_MAX_BODY,
    SAFE_METHODS,
    Affinity,
    App,
    Auth,
    Condition,
    Endpoint,
    WorkerRoute,
)
from synapse.api.route_table.workers import WORKER_ROUTES

__all__ = [
    "DEFAULT_MAX_BODY",
    "ENDPOINTS",
    "RESOURCES",
    "SAFE_METHODS",
    "WORKER_ROUTES",
    "Affinity",
    "App",
    "Auth",
    "Condition",
    "Endpoint",
    "WorkerRoute",
    "endpoints_for",
    "find",
    "resources_of",
    "route_of",
    "routes_for",
]

ENDPOINTS: tuple[Endpoint, ...] = (
    *accounts.ENDPOINTS,
    *accounts.PUSH,
    *sso.ENDPOINTS,
    *conduct.ENDPOINTS,
    *contacts.ENDPOINTS,
    *keys.ENDPOINTS,
    *key_backup.BACKUPS,
    *key_backup.KEYS,
    *rooms.MEMBERSHIP,
    *rooms.WRITING,
    *rooms.READING,
    *rooms.SYNCING,
    *rooms.FINDING,
    *rooms.REPORTING,
    *rooms.DIRECTORY,
    *server.MEDIA,
    *server.ADMIN,
    *server.SERVER,
    *user_admin.ENDPOINTS,
    *federation.FEDERATION,
)

# The resources that a listener may name, each with those that come along with it.
RESOURCES: dict[str, tuple[str, ...]] = {
    "client": ("client", "media", "static", "consent", "health"),
    "consent": ("consent", "health"),
    "federation": ("federation", "keys", "media", "openid", "health"),
    "media": ("media", "health"),
    "keys": ("keys", "health"),
    "openid": ("openid", "health"),
    "replication": ("replication", "health"),
    "metrics": ("metrics", "health"),
    "health": ("health",),
    "static": ("static", "health"),
}

# Served by every process, whatever its application.
_EVERYWHERE = frozenset(("health", "metrics"))

_BY_NAME: dict[str, Endpoint] = {endpoint.name: endpoint for endpoint in ENDPOINTS}


def find(name: str) -> Endpoint:
    """The endpoint of this name. Raises KeyError when the table has none."""
    return _BY_NAME[name]


def endpoints_for(app: App, *, use_presence: bool = True) -> tuple[Endpoint, ...]:
    """What an application serves.

    Everything in the main process, the endpoints of its routes in a worker, and those that operate a process in all.
    A generic worker may serve whatever any worker may; its configuration chooses.
    """
    return tuple(endpoint for endpoint in ENDPOINTS if _serves(app, endpoint, use_presence))


def routes_for(app: App, *, use_presence: bool = True) -> tuple[WorkerRoute, ...]:
    """What a proxy sends to an application, in the order in which it should try."""
    return tuple(r for r in WORKER_ROUTES if r.app is app and _holds(r, use_presence))


def route_of(method: str, path: str, *, use_presence: bool = True) -> WorkerRoute | None:
    """Where a proxy sends a request (decoded path), None for the main process."""
    return next((r for r in WORKER_ROUTES if _holds(r, use_presence) and r.takes(method, path)), None)


def resources_of(names: list[str] | tuple[str, ...]) -> frozenset[str]:
    """All resources that a listener carries when it names these. Raises KeyError for a name that is none."""
    return frozenset(resource for name in names for resource in RESOURCES[name])


def _serves(app: App, endpoint: Endpoint, use_presence: bool) -> bool:
    if app is App.HOMESERVER or endpoint.resource in _EVERYWHERE:
        return True
    return any(_holds(r, use_presence) for r in _routes_to(app, endpoint))


def _routes_to(app: App, endpoint: Endpoint) -> Iterator[WorkerRoute]:
    return (r for r in endpoint.routes if app in (r.app, App.GENERIC_WORKER))


def _holds(route: WorkerRoute, use_presence: bool) -> bool:
    return route.when is not Condition.PRESENCE_OFF or not use_presence
