"""A worker's end of replication: follows the streams of the main process, wherever it was interrupted.

Positions are all that has to be remembered. When the main process says that a stream is further than this process
knows, because the connection was away, or the worker too slow, or the main process was started anew, the rows in
between are read from the database, in pages; rows that arrive meanwhile only say how far there is still to go. A
stream that is kept in memory starts anew instead: its subscribers forget what they cannot vouch for. Streams to which
nobody in this process listens are not followed: every row wakes a process, which costs more than what it does with it.

Commands for the main process wait while there is no connection. Those that must not be lost are kept until the main
process has confirmed them (SYNC), and are sent again on the next connection.

A process gathers while nobody waits for an answer of it: rows that follow upon others are left in the socket for a
moment, and are then heard together, since being woken costs more than what a row has it do. Whoever asks for something
has what is in the socket heard first, so that it is answered as if nothing had been left there.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.python.failure import Failure

from synapse.metrics import table
from synapse.replication import protocol
from synapse.replication.outbox import Outbox
from synapse.replication.protocol import Command, LineReader, ProtocolError, State, WorkerSide
from synapse.replication.server import PING_SECONDS, SILENCE_SECONDS
from synapse.replication.streams import PAGE, STREAMS, Stream
from synapse.storage.errors import DatabaseClosed
from synapse.util.problems import why_not_connected
from synapse.util.transports import read_at_once

if TYPE_CHECKING:
    from synapse.replication.notifier import Notifier
    from synapse.storage.database import Database
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

DELAYS: Final = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 5.0)
"""Seconds between attempts to connect; the last one goes on."""
CONNECT_SECONDS: Final = 10.0
GREETING_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 1.0


class ReplicationClient:
    """Follows the main process.

    :param connect: connects a factory to the main process and returns the connector:
        `lambda factory: reactor.connectTCP(host, port, factory)`.
    :param where: what `connect` connects to, for log lines.
    :param present: the commands that tell who syncs here, for a main process that knows nothing of it.
    :param gather: the seconds for which the main process is not listened to after it has spoken, where it had last
        spoken not twice as long before.
    :param busy: whether somebody waits for an answer of this process; then nothing is gathered. When the first one
        comes, `listen` is to be called.
    """

    def __init__(
        self,
        reactor: Any,
        connect: Callable[[ClientFactory], Any],
        where: str,
        identity: Callable[[str], protocol.Identity],
        notifier: Notifier,
        db: Database,
        present: Callable[[], Iterable[Command]] = tuple,
        gather: float = 0.0,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self.reactor = reactor
        self.gather = gather
        self.busy = busy
        self.where = where
        self.notifier = notifier
        self.present = present
        self.outbox = Outbox()
        self._connect = connect
        self._identity = identity
        self._followers = {stream.name: Follower(stream, notifier, db, reactor) for stream in STREAMS}
        notifier.on_first_listener = self._follow
        self._connection: Connection | None = None
        self._attempts = 0
        self._stopped = False
        self._said = ""
        self._timer: Any = None
        self._connector: Any = None
        self._ready: Deferred[None] = Deferred()

    @property
    def connected(self) -> bool:
        """Whether the main process and this worker know each other, and rows flow."""
        return self._connection is not None and self._connection.following

    async def start(self) -> None:
        """Connects, and returns when every stream is followed for the first time."""
        self._dial()
        await self._ready

    def stop(self) -> None:
        """Ends the connection for good."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._connector is not None:
            self._connector.disconnect()
        if not self._ready.called:
            self._ready.cancel()

    def send(self, command: Command) -> None:
        """Tells the main process, if it is connected: for what is said anew on each connection (who syncs)."""
        if self.connected:
            assert self._connection is not None
            self._connection.send(command)

    def deliver(self, command: Command) -> Deferred[None]:
        """Tells the main process for certain, now or when it is there; fires when it has heard it."""
        done = self.outbox.add(command)
        self._flush()
        return done

    def listen(self) -> None:
        """Hears now what the main process has said already, if it was not listened to just now."""
        if self._connection is not None:
            self._connection.listen_now()

    # -- connections -----------------------------------------------------------------------------------------------

    def _dial(self) -> None:
        if not self._stopped:
            self._connector = self._connect(_Factory(self))

    def new_side(self) -> WorkerSide:
        """For the connections: a conversation with a nonce of its own."""
        return WorkerSide(self._identity(secrets.token_hex(16)))

    def followed(self, connection: Connection) -> None:
        """For the connections: the main process is who it should be."""
        self._connection = connection
        self._attempts = 0
        self._said = ""
        table.REPLICATION_CONNECTED.child().set(1)
        logger.info("Connected to the main process at %s", self.where)
        connection.send(protocol.ClearUserSyncs())
        for command in self.present():
            connection.send(command)
        for stream in self.notifier.listened_to:
            connection.send(protocol.Replicate(stream))
        self.outbox.connected()
        self._flush()

    def _follow(self, stream: str) -> None:
        self.send(protocol.Replicate(stream))

    def ended(self, connection: Connection | None, why: str) -> None:
        """For the connections: this one is over, or did not come about."""
        if connection is self._connection:
            self._connection = None
        table.REPLICATION_CONNECTED.child().set(0)
        if self._stopped:
            return
        delay = DELAYS[min(self._attempts, len(DELAYS) - 1)]
        self._attempts += 1
        if why != self._said:  # not the same line again and again
            logger.warning("Not connected to the main process at %s: %s", self.where, why)
            self._said = why
        self._timer = self.reactor.callLater(delay, self._dial)

    # -- what the main process says --------------------------------------------------------------------------------

    def heard(self, command: Command) -> None:
        """For the connections: a command of the main process."""
        if isinstance(command, protocol.Rdata):
            self._heard_row(command)
        elif isinstance(command, protocol.Position | protocol.Snapshot):
            follower = self._followers.get(command.stream)
            if follower is not None:
                follower.reached(command.token, anew=isinstance(command, protocol.Snapshot))
                self._check_ready()
        elif isinstance(command, protocol.Sync):
            self.outbox.confirmed(command.number)
            table.REPLICATION_UNDELIVERED.child().set(len(self.outbox))

    def _heard_row(self, command: protocol.Rdata) -> None:
        follower = self._followers.get(command.stream)
        if follower is None:
            return  # of a newer release
        try:
            follower.row(command.token, command.row)
        except msgspec.DecodeError as error:
            raise ProtocolError(f"A row of the stream {command.stream} is not what it should be: {error}.") from error

    def _flush(self) -> None:
        table.REPLICATION_UNDELIVERED.child().set(len(self.outbox))
        if self.connected:
            assert self._connection is not None
            for command in self.outbox.take():
                self._connection.send(command)

    def _check_ready(self) -> None:
        if not self._ready.called and all(self._followers[name].started for name in self.notifier.listened_to):
            self._ready.callback(None)


class Follower:
    """How far this process has come in one stream, and how it goes on."""

    def __init__(self, stream: Stream, notifier: Notifier, db: Database, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._notifier = notifier
        self._db = db
        self._batch: list[Any] = []
        self._target = 0
        self._catching_up = False  # until everything up to the target has been heard, however often that fails
        self._torn = False  # the first rows of the batch that is arriving were left to the database
        self.started = False
        self._live = table.REPLICATION_ROWS.child(stream.name, "live")
        self._read = table.REPLICATION_ROWS.child(stream.name, "read")
        self._gauge = table.REPLICATION_POSITION.child(stream.name)

    @property
    def position(self) -> int:
        return self._notifier.position(self._stream.name)

    def reached(self, position: int, anew: bool) -> None:
        """The main process is at `position`; rows up to there may not have come. `anew`: all that is true follows."""
        self._batch.clear()
        self._torn = False
        if anew or not self.started or position < self.position:
            if self.started and position < self.position and self._stream.in_database:
                logger.error("The stream %s went back from %d to %d", self._stream.name, self.position, position)
            self._start(position)
        elif position > self.position:
            if self._stream.in_database:
                self._catch_up(position)
            else:
                self._start(position)

    def row(self, position: int | None, row: str) -> None:
        """A row arrived; `position` None if more of the same position follow. Raises `msgspec.DecodeError`."""
        if self._catching_up or not self.started:
            self._torn = position is None
            if position is not None:
                self._target = max(self._target, position)
            return
        if self._torn:
            if position is not None:
                self.reached(max(position, self.position), anew=False)
            return
        self._batch.append(self._stream.decode(row))
        if position is None:
            return
        rows, self._batch = self._batch, []
        if position >= self.position:
            self._live.inc(len(rows))
            self._advance(position, [(position, each) for each in rows])

    def _start(self, position: int) -> None:
        self.started = True
        self._target = position
        self._gauge.set(position)
        self._notifier.start(self._stream.name, position)

    def _advance(self, position: int, rows: list[tuple[int, Any]]) -> None:
        self._gauge.set(position)
        self._notifier.on_advance(self._stream.name, position, rows)

    def _catch_up(self, position: int) -> None:
        self._target = max(self._target, position)
        if not self._catching_up:
            self._catching_up = True
            self._read_on()

    def _read_on(self) -> None:
        Deferred.fromCoroutine(self._read_all()).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if isinstance(failure.value, DatabaseClosed):
            return  # the process is ending
        logger.error("The stream %s cannot be read and is tried again", self._stream.name, exc_info=failure.value)
        self._clock.callLater(RETRY_SECONDS, self._read_on)

    async def _read_all(self) -> None:
        assert self._stream.read is not None, "only streams in the database are read from it"
        name = f"replication.read_{self._stream.name}"
        while self.position < self._target:
            after, target = self.position, self._target
            rows = list(await self._db.read(name, self._stream.read, after, target, PAGE))
            if self.position != after:
                continue  # the stream was started anew meanwhile
            whole = len(rows) < PAGE
            self._read.inc(len(rows))
            self._advance(target if whole else rows[-1][0], rows)
        self._catching_up = False


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, client: ReplicationClient) -> None:
        self._client = client

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return Connection(self._client)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        why = why_not_connected(reason.value)
        self._client.ended(None, f"nobody answers there ({why}); check that the main process runs.")


class Connection(Protocol):
    """One connection to the main process."""

    transport: Any

    def __init__(self, client: ReplicationClient) -> None:
        self._client = client
        self._side = client.new_side()
        self._lines = LineReader(protocol.MAX_LINE)
        self._heard = 0.0
        self._timer: Any = None
        self._resting: Any = None
        self._why = "the main process ended the connection."
        self._over = False

    @property
    def following(self) -> bool:
        return self._side.state is State.FOLLOWING and not self._over

    def connectionMade(self) -> None:
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self._heard = self._client.reactor.seconds()
        self._timer = self._client.reactor.callLater(GREETING_SECONDS, self._tick)
        self.send(self._side.greeting())

    def dataReceived(self, data: bytes) -> None:
        before, self._heard = self._heard, self._client.reactor.seconds()
        if self._heard - before < 2 * self._client.gather and self._may_rest():
            self._rest()
        try:
            for line in self._lines.receive(data):
                if self._over:
                    return
                self._receive(line)
        except ProtocolError as error:
            self._end(str(error))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = True
        for timer in (self._timer, self._resting):
            if timer is not None and timer.active():
                timer.cancel()
        self._client.ended(self, self._why)

    def send(self, command: Command) -> None:
        self.transport.write(f"{command.line()}\n".encode())

    def _receive(self, line: str) -> None:
        was = self._side.state
        command, answers = self._side.receive(line)
        for answer in answers:
            self.send(answer)
        if was is not State.FOLLOWING and self._side.state is State.FOLLOWING:
            self._client.followed(self)
        if command is not None:
            self._client.heard(command)

    def listen_now(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._listen_again()
            read_at_once(self.transport)

    def _may_rest(self) -> bool:
        return self._resting is None and self.following and not self._client.busy()

    def _rest(self) -> None:
        self.transport.pauseProducing()
        self._resting = self._client.reactor.callLater(self._client.gather, self._listen_again)

    def _listen_again(self) -> None:
        self._resting = None
        self.transport.resumeProducing()

    def _tick(self) -> None:
        silence = self._client.reactor.seconds() - self._heard
        if not self.following:
            self._end(
                "what answers there does not introduce itself; worker_replication_port must be the port of the main "
                "process's listener of type `replication`."
            )
        elif silence >= SILENCE_SECONDS:
            self._end(f"nothing was heard for {silence:.0f} seconds.")
        else:
            self.send(protocol.Ping(int(self._client.reactor.seconds() * 1000)))
            self._timer = self._client.reactor.callLater(PING_SECONDS, self._tick)

    def _end(self, sentence: str) -> None:
        self._why = sentence
        self._over = True
        self.transport.abortConnection()
