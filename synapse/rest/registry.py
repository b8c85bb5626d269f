"""Which class serves which endpoints, and how it is made from the services of a process.

One row per class: the names that it serves (a test compares them with its methods), and a function that makes it. The
rows are in `synapse.rest.rows`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from synapse.api.routes import App, Auth, Endpoint
from synapse.http.server import Router
from synapse.rest.late import LateOwners
from synapse.rest.rows import accounts, conduct, contacts, extras, federation, keys, rooms, server, sso, user_admin
from synapse.rest.rows.types import Row

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver

logger = logging.getLogger(__name__)


ROWS: tuple[Row, ...] = (
    *server.ROWS,
    *accounts.ROWS,
    *conduct.ROWS,
    *contacts.ROWS,
    *extras.ROWS,
    *federation.ROWS,
    *keys.ROWS,
    *rooms.ROWS,
    *sso.ROWS,
    *user_admin.ROWS,
)


def mount(router: Router, hs: Homeserver, endpoints: Iterable[Endpoint]) -> None:
    """Makes what serves these endpoints and mounts it. Whatever has no row is named in the log.

    In a `federation_reader`, what only other servers can ask for is made when the first of them does.
    """
    auth = {endpoint.name: endpoint.auth for endpoint in endpoints}
    wanted = set(auth)
    late = LateOwners(hs.notifier) if hs.application.app is App.FEDERATION_READER else None
    for row in rows_for(hs.application.app):
        mine = wanted.intersection(row.names)
        if late is not None and mine and all(auth[name] is Auth.SERVER for name in mine):
            late.mount(router, partial(row.make, hs), mine)
        elif mine:
            router.mount_object(row.make(hs), only=mine)
        wanted -= mine
    if hs.application.app is App.FRONTEND_PROXY and hs.accounts.frontend_proxy is not None:
        router.mount_fallback(hs.accounts.frontend_proxy.forward)  # what it does not serve, the main process may
    if wanted:
        logger.error("Nothing serves the endpoints %s", ", ".join(sorted(wanted)))


def rows_for(app: App) -> list[Row]:
    """The rows that hold in an application, its own first."""
    return [row for row in ROWS if row.app is app] + [row for row in ROWS if row.app is None]
