"""The composition root: one lazily built, typed attribute per service.

Each property imports what it builds, so that a process loads only the services that it uses. Services take what they
need in their constructor; only the app layer (and the factories in `synapse.rest.registry`) ever sees this object.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime

    from synapse.app.applications import Application
    from synapse.config import Config


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

    # -- accounts, devices, keys, media, directory -------------------------------------------------------------

    # -- rooms: writing ------------------------------------------------------------------------------------------

    # -- rooms: reading and sync ---------------------------------------------------------------------------------
