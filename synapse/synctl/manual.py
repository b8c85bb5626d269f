"""The parts of the documentation that are written from the route table: docs/workers.md's tables, contrib/nginx.

    python -m synapse.synctl.manual        # rewrites them; a test compares

Everything outside the markers of docs/workers.md is written by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from synapse.api.routes import WORKER_ROUTES, Affinity, App, Condition, WorkerRoute
from synapse.config.listeners import Listener, ListenerResource
from synapse.synctl import nginx
from synapse.synctl.proxy import Instance, plan

_BEGIN: Final = "<!-- begin routes of {app} -->\n"
_END: Final = "<!-- end -->\n"

# Several of what may be several, so that the sample shows how instances are chosen.
_SAMPLE: Final = (
    (App.SYNCHROTRON, 8083, 2, "client"),
    (App.FEDERATION_READER, 8085, 2, "federation"),
    (App.MEDIA_REPOSITORY, 8087, 1, "media"),
    (App.CLIENT_READER, 8088, 2, "client"),
    (App.USER_DIR, 8090, 1, "client"),
    (App.FRONTEND_PROXY, 8091, 1, "client"),
    (App.EVENT_CREATOR, 8092, 1, "client"),
)


def workers_page(current: str) -> str:
    """docs/workers.md with its tables as the route table has them."""
    for app in App:
        begin = _BEGIN.format(app=app)
        if begin in current:
            before, _, rest = current.partition(begin)
            current = f"{before}{begin}{route_table(app)}{_END}{rest.partition(_END)[2]}"
    return current


def route_table(app: App) -> str:
    """The expressions of an application as Markdown, in the order in which they are tried."""
    routes = [route for route in WORKER_ROUTES if route.app is app]
    if not routes:
        return "It answers no requests.\n"
    lines = ["```", *(route.described_regex for route in routes if _is_plain(route)), "```"]
    for heading, some in _groups(routes):
        lines += ["", heading, "", "```", *(_regex(route) for route in some), "```"]
    return "\n".join(line for line in lines) + "\n"


def _is_plain(route: WorkerRoute) -> bool:
    return route.described and not route.methods and route.when is None and route.affinity in _PLAIN


_PLAIN: Final = (Affinity.NONE, Affinity.USER)


def _groups(routes: list[WorkerRoute]) -> Iterable[tuple[str, list[WorkerRoute]]]:
    """The expressions with a condition, each kind under a sentence."""
    groups: dict[str, list[WorkerRoute]] = {}
    for route in routes:
        if not _is_plain(route):
            groups.setdefault(_sentence(route), []).append(route)
    return groups.items()


def _sentence(route: WorkerRoute) -> str:
    if not route.described:
        return "Younger paths that are routed alike:"
    if route.methods:
        return f"Only {' and '.join(route.methods)} requests:"
    if route.when is Condition.PRESENCE_OFF:
        return f"Only if `{route.when.value.replace(' is ', ': ')}` is in homeserver.yaml:"
    if route.affinity is Affinity.ONE:
        return "All requests must go to one and the same instance:"
    return "All requests with the same room must go to the same instance:"


def _regex(route: WorkerRoute) -> str:
    return route.described_regex if route.described else route.regex


def nginx_sample() -> str:
    """contrib/nginx/synapse.conf."""
    main = Instance("main", App.HOMESERVER, (_listener(8008, "client", "federation"),))
    workers = [
        Instance(
            f"{app.value.rpartition('.')[2]}{number + 1 if many > 1 else ''}", app, (_listener(port + number, name),)
        )
        for app, port, many, name in _SAMPLE
        for number in range(many)
    ]
    found = plan(main, workers, server_name="matrix.example.org", use_presence=False, max_upload_size=50 << 20)
    return nginx.render(found, command="synctl -a workers nginx")


def _listener(port: int, *names: str) -> Listener:
    resource = ListenerResource(names=names)  # type: ignore[arg-type]  # words of ResourceName
    return Listener(type="http", port=port, bind_address="127.0.0.1", resources=(resource,))


def main() -> None:
    """Rewrite the files."""
    root = Path(__file__).resolve().parents[2]
    page = root / "docs/workers.md"
    page.write_text(workers_page(page.read_text(encoding="utf-8")), encoding="utf-8")
    (root / "contrib/nginx/synapse.conf").write_text(nginx_sample(), encoding="utf-8")


if __name__ == "__main__":
    main()
