"""The main process's end of replication: tells workers how streams advance, and carries out what they ask.

Only live rows are sent. A connection that does not take them as fast as they come gets none while its buffer is full;
when it has room again it is told the streams' positions, and reads what it missed from the database at its own pace.
So a slow worker costs the main process neither memory nor time, and is never disconnected for being slow.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure

from synapse.metrics import table
from synapse.replication import protocol
from synapse.replication.protocol import Command, LineReader, MainSide, ProtocolError, State
from synapse.replication.streams import BY_NAME, STREAMS, Rows
from synapse.util.transports import write_at_once

if TYPE_CHECKING:
    from synapse.replication.notifier import Notifier
    from synapse.util.clock import Clock

logger = logging.getLogger(__name__)

PING_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 30.0
"""A connection on which nothing was heard for so long is ended."""
INTRODUCTION_SECONDS: Final = 10.0

Snapshot = Callable[[], list[Any]]


class WorkerCommands(Protocol):
    """What workers can ask for over the connection. `instance` is the worker's name."""

    def user_sync(self, instance: str, user_id: str, device_id: str | None, presence: str, syncing: bool) -> None:
        """A device has begun or ended to sync there."""

    def clear_user_syncs(self, instance: str) -> None:
        """Nobody syncs there: the worker has started, or its connection has ended."""

    def federation_ack(self, instance: str, token: int) -> None:
        """The events stream is sent to other servers up to there."""

    def remove_pusher(self, app_id: str, pushkey: str, user_id: str) -> None:
        """A push gateway has refused a pusher for good."""

    def invalidate_cache(self, cache: str, key: str | tuple[str, ...] | None) -> None:
        """All processes are to forget this."""

    def user_ip(self, user_id: str, device_id: str, ip: str, user_agent: str, at: int) -> None:
        """A device was seen."""


class ReplicationServer(Factory):
    """Makes the connections, and tells them all what the streams say.

    :param snapshots: for each stream that is kept in memory and told as a snapshot, the rows that are true now.
    :param secret: what both sides must know; with None, only connections from this machine are taken.
    """

    noisy = False

    def __init__(
        self,
        clock: Clock,
        notifier: Notifier,
        commands: WorkerCommands,
        server_name: str,
        release: str,
        secret: str | None = None,
        snapshots: dict[str, Snapshot] | None = None,
    ) -> None:
        self.clock = clock
        self.notifier = notifier
        self.commands = commands
        self.snapshots = snapshots or {}
        self.secret = secret
        self._server_name = server_name
        self._release = release
        self.connections: set[Connection] = set()
        for stream in STREAMS:
            notifier.subscribe(stream.name, self._teller(stream.name))

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        nonce = secrets.token_hex(16)
        identity = protocol.Identity(self._server_name, self._release, nonce, self.secret)
        return Connection(self, MainSide(identity))

    def close(self) -> None:
        """Ends all connections, because the process leaves."""
        for connection in list(self.connections):
            connection.close()

    def _teller(self, name: str) -> Callable[[int, Rows], None]:
        return lambda position, rows: self._tell(name, position, rows)

    def _tell(self, name: str, position: int, rows: Rows) -> None:
        followers = [connection for connection in self.connections if name in connection.following]
        if not followers:
            return
        data = encode_rows(name, position, rows)
        sent = 0
        for connection in followers:
            sent += connection.tell(name, data)
        if rows and sent:
            table.REPLICATION_ROWS_SENT.child(name).inc(sent * len(rows))


class Connection(TwistedProtocol):
    """One connection of a worker; also the push producer that its transport pauses when the buffer is full."""

    transport: Any

    def __init__(self, server: ReplicationServer, side: MainSide) -> None:
        self._server = server
        self._side = side
        self._lines = LineReader(protocol.MAX_FIRST_LINE)
        self._paused = False
        self._behind: dict[str, None] = {}  # streams whose rows were left out, in order
        self._heard = 0.0
        self._timer: Any = None
        self.following: set[str] = set()

    # -- what the transport calls ----------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        if hasattr(self.transport, "setTcpNoDelay"):
            self.transport.setTcpNoDelay(True)
        if self._server.secret is None and not is_local(self.transport.getPeer()):
            self._end("Without a worker_replication_secret, replication is for this machine only.")
            return
        self._server.connections.add(self)
        table.REPLICATION_CONNECTIONS.child().set(len(self._server.connections))
        self._heard = self._server.clock.seconds()
        self._timer = self._server.clock.callLater(PING_SECONDS, self._tick)
        self._send(self._side.greeting())

    def dataReceived(self, data: bytes) -> None:
        self._heard = self._server.clock.seconds()
        try:
            for line in self._lines.receive(data):
                self._receive(line)
        except ProtocolError as error:
            self._end(str(error))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self not in self._server.connections:
            return
        self._server.connections.discard(self)
        table.REPLICATION_CONNECTIONS.child().set(len(self._server.connections))
        if self._side.instance:
            logger.info("The worker %s is not connected any more", self._side.instance)
            self._server.commands.clear_user_syncs(self._side.instance)

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        behind, self._behind = self._behind, {}
        for name in behind:
            self._tell_position(name)

    def stopProducing(self) -> None:
        pass

    # -- telling ---------------------------------------------------------------------------------------------------

    def tell(self, name: str, data: bytes) -> bool:
        """Sends rows if there is room; otherwise the stream's position follows when there is."""
        if self._paused:
            if name not in self._behind:
                self._behind[name] = None
                table.REPLICATION_SKIPPED.child(name).inc()
            return False
        write_at_once(self.transport, data)
        return True

    def close(self) -> None:
        self.transport.loseConnection()

    def _tell_position(self, name: str) -> None:
        position = self._server.notifier.position(name)
        snapshot = self._server.snapshots.get(name)
        if snapshot is None:
            self._send(protocol.Position(name, position))
            return
        self._send(protocol.Snapshot(name, position))
        self.transport.write(encode_rows(name, position, [(position, row) for row in snapshot()]))

    def _send(self, command: Command) -> None:
        self.transport.write(f"{command.line()}\n".encode())

    def _end(self, sentence: str) -> None:
        who = self._side.instance or getattr(self.transport.getPeer(), "host", "somebody")
        logger.warning("The replication connection of %s ends: %s", who, sentence)
        self._send(protocol.Error(sentence))
        self._lines = LineReader(0)  # nothing more is heard
        self.transport.loseConnection()

    def _tick(self) -> None:
        self._timer = self._server.clock.callLater(PING_SECONDS, self._tick)
        silence = self._server.clock.seconds() - self._heard
        if silence >= SILENCE_SECONDS or (self._side.state is not State.FOLLOWING and silence >= INTRODUCTION_SECONDS):
            self._timer.cancel()
            self._send(protocol.Error(f"Nothing was heard for {silence:.0f} seconds."))
            self.transport.abortConnection()
        elif not self._paused:
            self._send(protocol.Ping(int(self._server.clock.seconds() * 1000)))

    # -- hearing ---------------------------------------------------------------------------------------------------

    def _receive(self, line: str) -> None:
        was = self._side.state
        command, answers = self._side.receive(line)
        for answer in answers:
            self._send(answer)
        if was is not State.FOLLOWING and self._side.state is State.FOLLOWING:
            self._lines.limit = protocol.MAX_LINE
            if self._side.instance:
                logger.info("The worker %s is connected", self._side.instance)
                self._server.commands.clear_user_syncs(self._side.instance)
        if command is not None:
            table.REPLICATION_COMMANDS.child(command.NAME).inc()
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        if isinstance(command, protocol.Replicate):
            self._follow(command.stream)
        elif isinstance(command, protocol.Sync):
            self._send(command)
        elif not isinstance(command, protocol.Ping):
            carry_out(command, self._side.instance, self._server.commands)

    def _follow(self, stream: str) -> None:
        names = [each.name for each in STREAMS] if stream == "*" else [stream]
        if stream != "*" and stream not in BY_NAME:
            # A newer worker may know streams that we do not; there is nothing to say of them.
            logger.warning("The worker %s asks for an unknown stream %s", self._side.instance, stream)
            return
        for name in names:
            self.following.add(name)
            self._tell_position(name)


class _UserSync(msgspec.Struct, array_like=True):
    user_id: str
    device_id: str | None
    presence: str
    syncing: bool


class _Pusher(msgspec.Struct, array_like=True):
    app_id: str
    pushkey: str
    user_id: str


class _Invalidation(msgspec.Struct, array_like=True):
    cache: str
    key: str | tuple[str, ...] | None


class _Sighting(msgspec.Struct, array_like=True):
    user_id: str
    device_id: str
    ip: str
    user_agent: str
    at: int


def carry_out(command: Command, instance: str, commands: WorkerCommands) -> None:
    """Has a worker's command done. Raises `ProtocolError` where its JSON is not what it should be."""
    try:
        if isinstance(command, protocol.UserSync):
            sync = msgspec.json.decode(command.json, type=_UserSync)
            commands.user_sync(instance, sync.user_id, sync.device_id, sync.presence, sync.syncing)
        elif isinstance(command, protocol.ClearUserSyncs):
            commands.clear_user_syncs(instance)
        elif isinstance(command, protocol.FederationAck):
            commands.federation_ack(instance, command.token)
        elif isinstance(command, protocol.RemovePusher):
            pusher = msgspec.json.decode(command.json, type=_Pusher)
            commands.remove_pusher(pusher.app_id, pusher.pushkey, pusher.user_id)
        elif isinstance(command, protocol.InvalidateCache):
            invalidation = msgspec.json.decode(command.json, type=_Invalidation)
            commands.invalidate_cache(invalidation.cache, invalidation.key)
        elif isinstance(command, protocol.UserIp):
            seen = msgspec.json.decode(command.json, type=_Sighting)
            commands.user_ip(seen.user_id, seen.device_id, seen.ip, seen.user_agent, seen.at)
    except msgspec.DecodeError as error:
        raise ProtocolError(f"The argument of {command.NAME} is not what it should be: {error}.") from error


def encode_rows(name: str, position: int, rows: Rows) -> bytes:
    """The lines that bring a follower to `position`."""
    lines: list[bytes] = []
    encode = BY_NAME[name].encode
    last = len(rows) - 1
    for index, (at, row) in enumerate(rows):
        more = index < last and rows[index + 1][0] == at
        token = b"batch" if more else b"%d" % at
        lines.append(b"RDATA %s %s %s\n" % (name.encode(), token, encode(row)))
    if not rows or rows[-1][0] < position:
        lines.append(b"POSITION %s %d\n" % (name.encode(), position))
    return b"".join(lines)


def is_local(peer: Any) -> bool:
    """Whether the other side of a connection is on this machine."""
    if isinstance(peer, UNIXAddress):
        return True
    host = str(getattr(peer, "host", ""))
    return host == "::1" or host.startswith(("127.", "::ffff:127."))
