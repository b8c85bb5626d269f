"""The life of a process between its start and its end: preparing, serving, leaving.

The order of the start: addresses (a port in use is found first), database, the process's part in the cluster (the lease
`main`, or the connection to the main process), listeners, READY, duties. A process that takes over from another
(`$SYNAPSE_REPLACES`) lets connections queue up at its own sockets, says STANDBY, and then waits for its part.

The order of the end, on SIGTERM or SIGINT: no new connections; requests in flight are answered, long polls at once, for
at most half a minute; then duties end and leases are let go. A second signal cuts that short. SIGHUP reopens log files
and reads certificates again.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from synapse.app import _notify, _reactor
from synapse.app._daemon import PidFile
from synapse.app._errors import as_sentence
from synapse.app._listeners import Listeners
from synapse.metrics import table

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from synapse.config import Config
    from synapse.config.listeners import Listener
    from synapse.http.drain import Drain

logger = logging.getLogger(__name__)

# How long requests in flight may take after the process was told to stop, and everything else after that, in seconds.
PATIENCE: Final = 30.0
CLOSING: Final = 5.0
# Connections that are kept alive stay open for half a second more: a proxy may just be sending a request on one.
GRACE: Final = 0.6


class Services(Protocol):
    """What a process is for, as its start and end see it."""

    @property
    def drain(self) -> Drain:
        """The requests in flight."""

    async def join(self, *, wait: bool) -> None:
        """Become part of the cluster: as its main process, or connected to it.

        :param wait: whether another main process may still be there, and will leave.
        """

    def factory_for(self, listener: Listener) -> Any:
        """What serves the connections of a listener."""

    async def start_duties(self) -> None:
        """Begin with what is done besides answering."""

    async def stop(self) -> None:
        """End duties, let go of leases, close connections."""


Build = Callable[[Any, Callable[[Exception], None]], Services]


class Process:
    """One process. `check`, then `run`, once.

    :param replaces: the process that this one takes over from, if any.
    """

    def __init__(self, config: Config, *, replaces: int | None = None) -> None:
        self._config = config
        self._replaces = replaces
        self._listeners = Listeners(config, beside=replaces is not None)
        self._pid_file = self._make_pid_file()
        self._leaving = False
        self._ended = False
        self._status = 0

    def _make_pid_file(self) -> PidFile | None:
        if self._config.pid_file is None:
            return None
        option = "pid_file" if self._config.is_main else "worker_pid_file"
        return PidFile(self._config.pid_file, option, self._config.place(option), self._replaces)

    def check(self) -> None:
        """Find what stands in the way already: ourselves, running; somebody on our ports. Raises `ConfigError`."""
        if self._pid_file is not None:
            self._pid_file.check()
        self._listeners.bind()

    def close(self) -> None:
        """Leave nothing behind of what `check` and `run` made."""
        self._listeners.drain()
        if self._pid_file is not None:
            self._pid_file.remove()

    def run(self, build: Build, ready: Callable[[], None]) -> int:
        """Start, serve, and return the exit status in the end.

        :param build: makes the services from the reactor, which exists only now, and what ends the process at once.
        :param ready: is called when the process serves.
        """
        self._reactor = _reactor.install()
        self._services = build(self._reactor, self._give_up)
        self._tell_ready = ready
        self._reactor.callWhenRunning(self._begin)
        self._reactor.run()
        return self._status

    def _begin(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._told_to_stop))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._told_to_reload))
        self._spawn(self._start).addErrback(self._failed)

    async def _sleep(self, seconds: float) -> None:
        from twisted.internet.task import deferLater

        await deferLater(self._reactor, seconds)

    @staticmethod
    def _spawn(function: Callable[[], Any]) -> Deferred[Any]:
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(function())

    # -- the start -------------------------------------------------------------------------------------------------

    async def _start(self) -> None:
        takes_over = self._replaces is not None
        if takes_over and self._config.is_main:
            self._stand_by()  # the lease comes only when the old process goes
        _notify.notify_status("waiting for the lease" if self._config.is_main else "connecting to the main process")
        await self._services.join(wait=takes_over)
        if takes_over and not self._config.is_main:
            self._stand_by()
        if self._leaving:
            return
        self._listeners.accept(self._reactor, self._services.factory_for)
        if self._pid_file is not None:
            self._pid_file.write()
        self._say_ready()
        await self._services.start_duties()

    def _stand_by(self) -> None:
        """From here on the process that we replace may leave: connections wait for us."""
        self._listeners.queue()
        _notify.notify(_notify.STANDBY)

    def _say_ready(self) -> None:
        logger.info("%s of %s serves", self._config.app, self._config.server.server_name)
        _notify.notify(_notify.READY, "STATUS=serving", f"MAINPID={os.getpid()}")
        self._tell_ready()

    def _failed(self, failure: Failure) -> None:
        if self._leaving:  # what it waited for was given up
            logger.info("The start was broken off: %s", failure.value.__class__.__name__)
            return
        self._report(failure.value)
        self._told_to_stop()

    def _give_up(self, error: Exception) -> None:
        """Nothing more may be done, not even for those who wait."""
        self._report(error)
        self._leaving = True
        _notify.notify(_notify.STOPPING)
        self._end()

    def _report(self, error: Any) -> None:
        sentence = as_sentence(error)
        if sentence is None:
            traceback.print_exception(error)
        else:
            print(sentence, file=sys.stderr, flush=True)
        logger.critical("%s", sentence or f"The process failed: {error}")
        self._status = 1

    # -- the end ---------------------------------------------------------------------------------------------------

    def _told_to_stop(self) -> None:
        if self._leaving:
            logger.warning("Told to stop again: leaving at once")
            self._end()
            return
        self._leaving = True
        self._spawn(self._leave).addErrback(lambda failure: logger.error("The end failed", exc_info=failure.value))

    async def _leave(self) -> None:
        _notify.notify(_notify.STOPPING)
        logger.info("Leaving: answering what is in flight")
        self._listeners.drain()
        self._services.drain.begin()
        _notify.notify_status("answering what is in flight")
        if table.HTTP_CONNECTIONS.child().value:
            await self._sleep(GRACE)
        if not await self._services.drain.idle(PATIENCE):
            logger.warning("Leaving with %d requests unanswered", self._services.drain.in_flight)
        self._reactor.callLater(CLOSING, self._end)  # should something hang
        try:
            await self._services.stop()
        finally:
            self._end()

    def _end(self) -> None:
        if self._reactor.running and not self._ended:
            self._ended = True
            self._reactor.stop()

    def _told_to_reload(self) -> None:
        from synapse.logging import setup

        _notify.notify(_notify.RELOADING)
        setup.reopen()
        self._listeners.reload_certificates()
        logger.info("Reopened log files")
        _notify.notify(_notify.READY)
