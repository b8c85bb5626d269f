"""Which class serves which endpoints, and how it is made from the services of a process.

One row per class: the names that it serves (a test compares them with its methods), and a function that makes it. Rows
import what they make only when it is made, so that a process loads the code of those endpoints alone that it serves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from synapse.api.routes import App, Endpoint
from synapse.http.server import Router

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Row:
    """A class of endpoints: the names of the route table that it serves, and how to make one.

    With `app`, it does so in that application alone, where it goes before a row for all.
    """

    names: tuple[str, ...]
    make: Callable[[Homeserver], object]
    app: App | None = None


def mount(router: Router, hs: Homeserver, endpoints: Iterable[Endpoint]) -> None:
    """Makes what serves these endpoints and mounts it. Whatever has no row is named in the log."""
    wanted = {endpoint.name for endpoint in endpoints}
    for row in rows_for(hs.application.app):
        mine = wanted.intersection(row.names)
        if mine:
            router.mount_object(row.make(hs), only=mine)
            wanted -= mine
    if wanted:
        logger.error("Nothing serves the endpoints %s", ", ".join(sorted(wanted)))


def rows_for(app: App) -> list[Row]:
    """The rows that hold in an application, its own first."""
    return [row for row in ROWS if row.app is app] + [row for row in ROWS if row.app is None]


# -- the process, discovery ------------------------------------------------------------------------------------------


def _operation(hs: Homeserver) -> object:
    from synapse.rest.operation import Operation

    return Operation(hs.config.server.server_name, hs.drain)


def _versions(hs: Homeserver) -> object:
    from synapse.rest.client.versions import Versions

    return Versions(hs.config.client_baseurl)


# -- all of them -----------------------------------------------------------------------------------------------------

ROWS: tuple[Row, ...] = (
    Row(("health", "metrics", "welcome"), _operation),
    Row(("versions", "well_known_client"), _versions),
)
