"""Services that are made with the first request for them, for processes that may never get one.

Most servers run a `federation_reader`, and many federate with nobody: one that nobody asks follows no streams, each row
of which would wake it, and keeps no services. Both begin when another server has signed the first request. The services
are made with empty caches, as at the start of a process. Whoever asks waits until the main process has said at which
positions the streams are that they follow: all that comes after, they hear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from synapse.api.errors import unknown
from synapse.http.request import Handler, Request
from synapse.http.router import Router, served_by

if TYPE_CHECKING:
    from synapse.replication.notifier import Notifier

Make = Callable[[], object]

PATIENCE: Final = 10.0
"""Seconds that a request waits for the main process to tell where the streams are."""


class LateOwners:
    """What serves some endpoints: all of it is made when the first of these is asked for.

    :param notifier: what the owners listen to.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._makes: list[tuple[Make, frozenset[str]]] = []
        self._handlers: dict[str, Handler] = {}
        self._ready = False

    def mount(self, router: Router, make: Make, names: Iterable[str]) -> None:
        """Has what `make` returns serve the endpoints of these names."""
        mine = frozenset(names)
        self._makes.append((make, mine))
        for name in mine:
            router.mount(name, self._handler(name))

    def _handler(self, name: str) -> Handler:
        async def handle(request: Request, **params: str) -> Any:
            if not self._ready:
                await self._make_ready()
            return await self._handlers[name](request, **params)

        return handle

    async def _make_ready(self) -> None:
        """Raises MatrixError (503) if the main process cannot be heard."""
        while self._makes:
            make, names = self._makes[-1]
            owner = make()
            self._handlers.update(
                {name: getattr(owner, method) for name, method in served_by(type(owner)) if name in names}
            )
            self._makes.pop()
        if not await self._notifier.wait_until_started(PATIENCE):
            raise unknown("This process has yet to hear from the server's main process. Please try again later.", 503)
        self._ready = True
