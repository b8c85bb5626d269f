"""The composition root: one lazily built, typed attribute per service.

Each property imports what it builds, so that a process loads only the services that it uses. Services take what they
need in their constructor; only the app layer (and the factories in `synapse.rest.registry`) ever sees this object.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from synapse.app._accounts import Accounts
    from synapse.app.applications import Application
    from synapse.config import Config
    from synapse.config.listeners import Listener
    from synapse.handlers.auth import Authenticator
    from synapse.http.drain import Drain
    from synapse.http.ratelimit import RateLimits
    from synapse.http.server import Router
    from synapse.http.site import Site
    from synapse.metrics.sources import ReactorLag


class Homeserver:
    """Everything that one process is made of.

    :param config: the settings of this process, main and worker files merged.
    :param application: what this process serves and which duties it has.
    :param reactor: the event loop; tests pass one whose clock they hold.
    """

    def __init__(self, config: Config, application: Application, reactor: IReactorTime) -> None:
        self.config = config
        self.application = application
        self.reactor = reactor

    @property
    def is_main(self) -> bool:
        """True in the one process that writes the streams."""
        return self.application.name == "homeserver"

    # -- storage: infrastructure -------------------------------------------------------------------------------

    # -- replication ---------------------------------------------------------------------------------------------

    # -- http ----------------------------------------------------------------------------------------------------

    @cached_property
    def drain(self) -> Drain:
        """The requests in flight, and the end of them."""
        from synapse.http.drain import Drain

        return Drain(self.reactor)

    @cached_property
    def ratelimits(self) -> RateLimits:
        """How often somebody may do something."""
        from synapse.http.ratelimit import RateLimits

        return RateLimits(self.config.ratelimiting.by_name, self.reactor)

    @cached_property
    def router(self) -> Router:
        """Every endpoint that this process serves, over whichever listener."""
        from synapse.api.errors import unknown
        from synapse.http.server import Router
        from synapse.rest.registry import mount
        from synapse.storage.errors import DatabaseUnavailable

        router = Router(self.drain, self.authenticator, self.ratelimits)
        router.translate(
            DatabaseUnavailable, lambda _: unknown("The server's database is not available. Please try again.", 503)
        )
        mount(router, self, self.application.endpoints)
        return router

    @cached_property
    def lag(self) -> ReactorLag:
        """Measures how busy the reactor is."""
        from synapse.metrics.sources import ReactorLag

        return ReactorLag(self.reactor)

    def site(self, listener: Listener) -> Site:
        """What serves the connections of an http or metrics listener."""
        from synapse.http.site import build_site

        return build_site(self.router, listener, self.reactor)

    # -- accounts, devices, keys, media, directory -------------------------------------------------------------

    @cached_property
    def accounts(self) -> Accounts:
        """Users, sessions, devices, profiles, settings, keys, media, the user directory."""
        from synapse.app._accounts import Accounts

        return Accounts(self)

    @property
    def authenticator(self) -> Authenticator:
        """Who asks."""
        return self.accounts.authenticator

    # -- rooms: writing ------------------------------------------------------------------------------------------

    # -- rooms: reading and sync ---------------------------------------------------------------------------------
