"""What a process does besides answering: the duties of its application, each under its lease.

A duty that has no service yet is held all the same, so that a second instance stands by as it will have to, and an
administrator sees on which process the duty lies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from synapse.app.applications import Duty as Name
from synapse.replication.leases import Duty

if TYPE_CHECKING:
    from synapse.app._homeserver import Homeserver


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


def duties_of(hs: Homeserver) -> list[Duty]:
    """The duties of a process, in the order of their names, not yet started."""
    return [_duty(hs, name) for name in sorted(hs.application.duties)]


def _duty(hs: Homeserver, name: Name) -> Duty:
    make = _PERFORMERS.get(name)
    performer: Performer = Nothing() if make is None else make(hs)
    return Duty(hs.reactor, hs.database.pool.settings, name.value, performer.begin, performer.end)
