"""The applications: what each kind of process serves, and which duties it has.

Data alone. What an application serves follows from the route table; how a duty is done is the business of the service
of its name (`synapse.app._duties`), under the lease of its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from synapse.api.routes import App, Endpoint, endpoints_for

if TYPE_CHECKING:
    from synapse.config import Config


class Duty(StrEnum):
    """Work that one process of a server does for all. The value is the name of its lease."""

    PUSHER = "pusher"
    APPSERVICE = "appservice"
    FEDERATION_SENDER = "federation_sender"
    USER_DIRECTORY = "user_directory"
    MEDIA_REPOSITORY = "media_repository"


@dataclass(frozen=True, slots=True)
class Application:
    """What a process of one kind is for.

    :param app: its name in `worker_app`.
    :param endpoints: what it serves, listeners permitting.
    :param duties: what it does besides; in the main process, what is left to it.
    :param many: whether several may run at once for more throughput; of the others, all but one stand by.
    """

    app: App
    endpoints: tuple[Endpoint, ...]
    duties: frozenset[Duty]
    many: bool

    @property
    def name(self) -> str:
        """`homeserver`, `synchrotron`, …"""
        return self.app.removeprefix("synapse.app.")


_DUTIES: Final[dict[App, Duty]] = {
    App.PUSHER: Duty.PUSHER,
    App.APPSERVICE: Duty.APPSERVICE,
    App.FEDERATION_SENDER: Duty.FEDERATION_SENDER,
    App.USER_DIR: Duty.USER_DIRECTORY,
    App.MEDIA_REPOSITORY: Duty.MEDIA_REPOSITORY,
}
_SINGLE: Final = frozenset(
    {App.HOMESERVER, App.PUSHER, App.APPSERVICE, App.FEDERATION_SENDER, App.MEDIA_REPOSITORY},
)


def application_of(config: Config) -> Application:
    """The application that a process with this configuration is."""
    app = App(config.app)
    endpoints = endpoints_for(app, use_presence=config.use_presence)
    return Application(app, endpoints, _duties_of(app, config), app not in _SINGLE)


def _duties_of(app: App, config: Config) -> frozenset[Duty]:
    if app is App.HOMESERVER:
        return _left_to_main(config)
    if app is App.GENERIC_WORKER:
        return frozenset(Duty(name) for name in config.workers.worker_duties)
    return frozenset({_DUTIES[app]}) if app in _DUTIES else frozenset()


def _left_to_main(config: Config) -> frozenset[Duty]:
    """What the shared configuration does not hand to a worker."""
    kept = {
        Duty.PUSHER: config.duties.start_pushers,
        Duty.APPSERVICE: config.duties.notify_appservices,
        Duty.FEDERATION_SENDER: config.duties.send_federation,
        Duty.USER_DIRECTORY: config.duties.update_user_directory,
        Duty.MEDIA_REPOSITORY: config.media.enable_media_repo,
    }
    return frozenset(duty for duty, keeps in kept.items() if keeps)
