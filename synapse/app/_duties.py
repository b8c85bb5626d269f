"""What a process does besides answering: the duties of its application, each under its lease.

A duty that has no service yet is held all the same, so that a second instance stands by as it will have to, and an
administrator sees on which process the duty lies.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Protocol

from synapse.app.applications import Duty as Name
from synapse.replication.leases import Duty
from synapse.replication.vacancies import PAUSE, Vacancies
from synapse.storage.locks import LocksStore
from synapse.util.repeating import Repeating

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver
    from synapse.config import Config


class Performer(Protocol):
    """What performs a duty."""

    async def begin(self) -> None: ...

    async def end(self) -> None: ...


class Nothing:
    """Performs what there is nothing to do for."""

    async def begin(self) -> None:
        pass

    async def end(self) -> None:
        pass


_PERFORMERS: dict[Name, Callable[[Homeserver], Performer]] = {
    Name.PUSHER: lambda hs: hs.pushing.sending,
    Name.FEDERATION_SENDER: lambda hs: hs.sending.sending,
    Name.USER_DIRECTORY: lambda hs: hs.accounts.directory_follower,
    Name.MEDIA_REPOSITORY: lambda hs: hs.accounts.media_upkeep,
}


_HANDED_ON: dict[Name, str] = {
    Name.PUSHER: "nobody's phone is told of anything. Start a synapse.app.pusher, or set `start_pushers: true`.",
    Name.APPSERVICE: "application services are told nothing. Start a synapse.app.appservice, or set "
    "`notify_appservices: true`.",
    Name.FEDERATION_SENDER: "other servers are sent nothing. Start a synapse.app.federation_sender, or set "
    "`send_federation: true`.",
    Name.USER_DIRECTORY: "users are searched for as they were. Start a synapse.app.user_dir, or set "
    "`update_user_directory: true`.",
}
"""Duties without which something is missing, when the configuration hands them to workers, and what to do then."""


def left_to_workers(config: Config, kept: Collection[Name]) -> list[Name]:
    """Of the duties that a main process does not keep, those that somebody has to perform all the same."""
    needed = _HANDED_ON.keys() - set(kept)
    if not config.duties.app_service_config_files:
        needed -= {Name.APPSERVICE}
    if config.federating.federation_domain_whitelist == ():
        needed -= {Name.FEDERATION_SENDER}
    return sorted(needed) if config.is_main else []


def vacancies_of(hs: Homeserver) -> list[Repeating]:
    """What looks, in the main process, whether somebody performs what it does not perform itself."""
    needed = left_to_workers(hs.config, hs.application.duties)
    if not needed:
        return []
    vacancies = Vacancies(LocksStore(hs.database), {name.value: _HANDED_ON[name] for name in needed})
    return [Repeating(hs.reactor, PAUSE, "Looking for duties that nobody performs", vacancies.look)]


def duties_of(hs: Homeserver) -> list[Duty]:
    """The duties of a process, in the order of their names, not yet started."""
    return [_duty(hs, name) for name in sorted(hs.application.duties)]


def _duty(hs: Homeserver, name: Name) -> Duty:
    make = _PERFORMERS.get(name)
    performer: Performer = Nothing() if make is None else make(hs)
    return Duty(hs.reactor, hs.database.pool.settings, name.value, performer.begin, performer.end)
