"""A process as `synapse.app._start` starts it, with services that need no database; for the tests beside it.

    python -m tests.app.fake_process -c homeserver.yaml

Under /fake it serves now, flight (how many other requests there are), slow (answers when the file `$FAKE_GO` exists),
poll (answers when the process leaves) and end (the services can do no more). `$FAKE_LEASE` is a file that stands for
the lease `main`. With `$FAKE_ALONE`, it never gets to join the others.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from synapse.app import _start
from synapse.app._notify import notify
from synapse.config import Config
from synapse.storage.errors import DatabaseProblem


class FakeServices:
    def __init__(self, config: Config, reactor: Any, give_up: Any) -> None:
        from synapse.http.drain import Drain
        from synapse.http.router import Router

        self.reactor = reactor
        self._give_up = give_up
        self.drain = Drain(reactor)
        self.router = Router(self.drain)
        self.router.mount_prefix("/fake/", "client", "fake", self._answer)
        self._lease = os.environ.get("FAKE_LEASE")
        self._go = Path(os.environ.get("FAKE_GO", "/"))
        self._polls: list[Any] = []
        self.drain.on_begin(self._wake)

    async def _answer(self, request: Any) -> dict[str, Any]:
        from twisted.internet.defer import Deferred
        from twisted.internet.task import deferLater

        what = request.raw.target.rpartition("/")[2]
        if what == "slow":
            while not self._go.exists():
                await deferLater(self.reactor, 0.02)
        if what == "end":
            self._give_up(DatabaseProblem("The lease is lost."))
        if what == "poll":
            waiting: Deferred[None] = Deferred()
            self._polls.append(waiting)
            await waiting
        return {"pid": os.getpid(), "others": self.drain.in_flight - 1}

    def _wake(self) -> None:
        for waiting in self._polls:
            waiting.callback(None)

    async def join(self, *, wait: bool) -> None:
        from twisted.internet.defer import Deferred
        from twisted.internet.task import deferLater

        if "FAKE_ALONE" in os.environ:
            self._joining: Deferred[None] = Deferred()
            notify("ALONE=1")
            await self._joining
        while self._lease is not None:
            try:
                os.close(os.open(self._lease, os.O_CREAT | os.O_EXCL))
                return
            except FileExistsError:
                if not wait:
                    raise DatabaseProblem("Another main process is running; stop it first.") from None
            await deferLater(self.reactor, 0.02)

    def factory_for(self, listener: Any) -> Any:
        from synapse.http.site import build_site

        return build_site(self.router, listener, self.reactor)

    async def start_duties(self) -> None: ...

    async def stop(self) -> None:
        if "FAKE_ALONE" in os.environ:
            self._joining.cancel()
        if self._lease is not None:
            os.unlink(self._lease)


def _ready(config: Config) -> None:
    if "FAKE_DATABASE_PROBLEM" in os.environ:
        raise DatabaseProblem(os.environ["FAKE_DATABASE_PROBLEM"])


if __name__ == "__main__":
    _start._prepare_database = _ready
    _start._services = FakeServices
    sys.exit(_start.main(sys.argv[1:]))
