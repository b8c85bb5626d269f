"""What every group of services stands on: the part of the composition root that they share, as they see it.

Each group says in a protocol of its own what it uses besides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse.config import Config
    from synapse.replication.calls import MainProcess
    from synapse.replication.contacts import RoomsOfUsers
    from synapse.replication.notifier import Notifier
    from synapse.storage.database import Database
    from synapse.util.caches import Caches


class Base(Protocol):
    """The process, the database, and the other processes."""

    config: Config
    reactor: Any

    @property
    def is_main(self) -> bool: ...

    @property
    def database(self) -> Database: ...

    @property
    def main(self) -> MainProcess: ...

    @property
    def caches(self) -> Caches: ...

    @property
    def notifier(self) -> Notifier: ...

    @property
    def rooms_of_users(self) -> RoomsOfUsers: ...


def in_thread(function: Callable[..., Any], *args: Any) -> Awaitable[Any]:
    """Runs a blocking function on a thread of the reactor's pool."""
    from twisted.internet.threads import deferToThread

    return deferToThread(function, *args)
