"""The replication protocol: what a main process and a worker say to one another, line by line. Pure.

A line is a command's name and its arguments, in UTF-8, ended by a newline. A conversation reads like this (M is the
main process, which listens; W a worker; `nc` will do to play one):

    W: NAME synchrotron1 1 example.org 0.1.0 5f1c…        who I am, which versions I speak, whose I am; a nonce
    M: SERVER 1 example.org 0.1.0 93ab…                   the same of the main process
    W: AUTH 4be2…                                         where there is a secret, each proves that it has it
    M: AUTH 77d0…
    W: REPLICATE events                                   I follow this stream (`*`: all of them)
    M: POSITION events 1712                               it has got so far; what came before is in the database
    M: SNAPSHOT typing 1690                               of a stream that is in memory, all that is true now follows
    M: RDATA typing 1690 ["!r",["@a:example.org"]]
    M: RDATA events batch ["e","!r","$x",…]               a row; more rows of the same position follow
    M: RDATA events 1713 ["s","!r","m.room.name",…]       the last row of position 1713
    W: INVALIDATE_CACHE ["access_tokens","…"]
    W: SYNC 17                                            tell me when you have heard everything so far
    M: SYNC 17
    M: PING 1700000000000
    M: ERROR This is why the connection ends now.

Both sides speak first, so that whoever reaches the wrong port gets an answer that says so.

The two sides are `MainSide` and `WorkerSide`: they are given the other's commands and say what to send, what
happened, or raise `ProtocolError`, whose message is for the log and for the other side. They do no I/O and know no
time.

    NAMING --NAME--> PROVING --AUTH--> FOLLOWING          (MainSide; without a secret, PROVING is left out)
    GREETING --SERVER--> PROVING --AUTH--> FOLLOWING      (WorkerSide)
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Final

OLDEST_VERSION: Final = 1
NEWEST_VERSION: Final = 1

MAX_LINE: Final = 1024 * 1024
"""Bytes of a line that either side sends, once they know each other; before that, far less."""
MAX_FIRST_LINE: Final = 1024


class ProtocolError(Exception):
    """The other side said something that ends the conversation; the message says what, and what to do."""


# -- commands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """A line. Arguments are words without blanks, numbers, or, as the last one, the rest of the line (`rest`)."""

    NAME: ClassVar[str]
    REST: ClassVar[bool] = False  # whether the last argument is the rest of the line, blanks included

    def line(self) -> str:
        """The line, without its end."""
        arguments = [str(getattr(self, field.name)) for field in fields(self)]
        return " ".join([self.NAME, *arguments])


@dataclass(frozen=True, slots=True)
class Server(Command):
    """Main process: who it is. `versions` is `N` or `N-M`."""

    NAME = "SERVER"
    versions: str
    server_name: str
    release: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Name(Command):
    """Worker: who it is."""

    NAME = "NAME"
    instance: str
    versions: str
    server_name: str
    release: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Auth(Command):
    """Both: proof of knowing the secret."""

    NAME = "AUTH"
    proof: str


@dataclass(frozen=True, slots=True)
class Replicate(Command):
    """Worker: sends this stream's rows from now on; `*` for all."""

    NAME = "REPLICATE"
    stream: str


@dataclass(frozen=True, slots=True)
class Position(Command):
    """Main process: the stream has got this far, and rows up to here may not have been sent."""

    NAME = "POSITION"
    stream: str
    token: int


@dataclass(frozen=True, slots=True)
class Snapshot(Command):
    """Main process: the rows that follow, up to this position, are all that is true."""

    NAME = "SNAPSHOT"
    stream: str
    token: int


@dataclass(frozen=True, slots=True)
class Rdata(Command):
    """Main process: a row, as JSON; `token` is its position, or None (`batch`) if more rows of the position follow."""

    NAME = "RDATA"
    REST = True
    stream: str
    token: int | None
    row: str

    def line(self) -> str:
        return f"RDATA {self.stream} {'batch' if self.token is None else self.token} {self.row}"


@dataclass(frozen=True, slots=True)
class Ping(Command):
    """Both: still here; `now` in milliseconds since the epoch."""

    NAME = "PING"
    now: int


@dataclass(frozen=True, slots=True)
class Sync(Command):
    """Worker: say this back when everything before it was heard; main process: it was."""

    NAME = "SYNC"
    number: int


@dataclass(frozen=True, slots=True)
class Error(Command):
    """Both: why the connection is about to end."""

    NAME = "ERROR"
    REST = True
    sentence: str

    def line(self) -> str:
        return f"ERROR {' '.join(self.sentence.split())}"


@dataclass(frozen=True, slots=True)
class UserSync(Command):
    """Worker: JSON `[user_id, device_id | null, presence, whether it syncs]`."""

    NAME = "USER_SYNC"
    REST = True
    json: str


@dataclass(frozen=True, slots=True)
class ClearUserSyncs(Command):
    """Worker: nobody syncs here; those who do are told next."""

    NAME = "CLEAR_USER_SYNCS"


@dataclass(frozen=True, slots=True)
class FederationAck(Command):
    """Worker: everything up to this position of the events stream is sent to other servers, or queued for them."""

    NAME = "FEDERATION_ACK"
    token: int


@dataclass(frozen=True, slots=True)
class RemovePusher(Command):
    """Worker: a push gateway has refused for good: JSON `[app_id, pushkey, user_id]`."""

    NAME = "REMOVE_PUSHER"
    REST = True
    json: str


@dataclass(frozen=True, slots=True)
class InvalidateCache(Command):
    """Worker: what all processes are to forget: JSON `[cache, key | null]`."""

    NAME = "INVALIDATE_CACHE"
    REST = True
    json: str


@dataclass(frozen=True, slots=True)
class UserIp(Command):
    """Worker: where a device was seen: JSON `[user_id, device_id, ip, user_agent, milliseconds]`."""

    NAME = "USER_IP"
    REST = True
    json: str


COMMANDS: Final[dict[str, type[Command]]] = {
    kind.NAME: kind
    for kind in (
        Server, Name, Auth, Replicate, Position, Snapshot, Rdata, Ping, Sync, Error,
        UserSync, ClearUserSyncs, FederationAck, RemovePusher, InvalidateCache, UserIp,
    )
}  # fmt: skip


def parse(line: str) -> Command:
    """The command in a line (without its end). Raises `ProtocolError`."""
    if line.startswith("RDATA "):  # most lines are
        return _parse_rdata(line)
    name, _, rest = line.partition(" ")
    kind = COMMANDS.get(name)
    if kind is None:
        raise ProtocolError(f"{_shown(line)} is no command of the replication protocol.")
    declared = fields(kind)
    words = rest.split(" ", len(declared) - 1 if kind.REST else -1) if rest else []
    if len(words) != len(declared) or "" in words:
        raise ProtocolError(f"{name} has {len(declared)} arguments, which {_shown(line)} has not.")
    return kind(*(_argument(field.type, word, line) for field, word in zip(declared, words, strict=True)))


def _parse_rdata(line: str) -> Rdata:
    parts = line.split(" ", 3)
    if len(parts) != 4:
        raise ProtocolError(f"RDATA has 3 arguments, which {_shown(line)} has not.")
    _, stream, token, row = parts
    return Rdata(stream, None if token == "batch" else _argument("int", token, line), row)


def _argument(kind: Any, word: str, line: str) -> Any:
    if kind != "int":
        return word
    if not word.isdecimal() or len(word) > 19:
        raise ProtocolError(f"{_shown(word)} in {_shown(line)} should be a number.")
    return int(word)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


class LineReader:
    """Cuts what arrives into lines. `limit` is how long one may be, and may be changed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._rest = b""

    def receive(self, data: bytes) -> list[str]:
        """The lines that are complete now. Raises `ProtocolError` for one that is too long or not UTF-8."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > self.limit or any(len(line) > self.limit for line in lines):
            raise ProtocolError(f"A line has more than {self.limit} bytes.")
        try:
            return [line.removesuffix(b"\r").decode() for line in lines if line.strip()]
        except UnicodeDecodeError:
            raise ProtocolError("What was sent is not UTF-8.") from None


# -- the two sides -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Identity:
    """Who one side is. `nonce` is fresh for each connection and cannot be guessed; `secret` None: none is needed."""

    server_name: str
    release: str
    nonce: str
    secret: str | None = None
    instance: str = ""  # of a worker


class State(enum.Enum):
    """How far a conversation has come."""

    GREETING = "greeting"
    PROVING = "proving"
    FOLLOWING = "following"


_HTTP_METHODS: Final = ("GET ", "POST ", "PUT ", "HEAD ", "DELETE ", "OPTIONS ", "CONNECT ", "PATCH ")

TO_MAIN: Final = (
    Replicate, Ping, Sync, UserSync, ClearUserSyncs, FederationAck, RemovePusher, InvalidateCache, UserIp,
)  # fmt: skip
TO_WORKER: Final = (Position, Snapshot, Rdata, Ping, Sync)


class MainSide:
    """The main process's side of one conversation."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._other: Name | None = None
        self.state = State.GREETING
        self.version = OLDEST_VERSION

    @property
    def instance(self) -> str:
        """The worker's name; "" as long as it has not said it."""
        return "" if self._other is None else self._other.instance

    def greeting(self) -> Server:
        """What is said first."""
        mine = self._identity
        return Server(_my_versions(), mine.server_name, mine.release, mine.nonce)

    def receive(self, line: str) -> tuple[Command | None, list[Command]]:
        """A line from the worker: the command to carry out, if any, and what to answer. Raises `ProtocolError`."""
        if self.state is State.GREETING and line.startswith(_HTTP_METHODS):
            raise ProtocolError(
                "This is the replication port, which does not speak HTTP; worker_replication_http_port is the port "
                "of the main process's http listener with the resource `replication`."
            )
        command = parse(line)
        if isinstance(command, Error):
            raise ProtocolError(f"The worker {self.instance} says: {command.sentence}")
        if isinstance(command, Name):
            return None, self._named(command)
        if isinstance(command, Auth):
            return None, self._proved(command)
        if self.state is State.PROVING or (self.state is State.GREETING and self._identity.secret is not None):
            raise ProtocolError("Say NAME first, and prove with AUTH that you know worker_replication_secret.")
        if not isinstance(command, TO_MAIN):
            raise ProtocolError(f"{command.NAME} is for a main process to say.")
        self.state = State.FOLLOWING  # a person with netcat need not introduce themselves, where there is no secret
        return command, []

    def _named(self, name: Name) -> list[Command]:
        if self._other is not None:
            raise ProtocolError("NAME was said already.")
        if name.server_name != self._identity.server_name:
            raise ProtocolError(
                f"The worker {name.instance} belongs to the server {name.server_name}, and this is the main process of "
                f"{self._identity.server_name}; check worker_replication_host and worker_replication_port."
            )
        self.version = _negotiated(name.versions, f"the worker {name.instance} (release {name.release})")
        self._other = name
        self.state = State.FOLLOWING if self._identity.secret is None else State.PROVING
        return []

    def _proved(self, auth: Auth) -> list[Command]:
        if self.state is not State.PROVING or self._other is None or self._identity.secret is None:
            raise ProtocolError("Nobody asked for AUTH here; the main process has no worker_replication_secret.")
        proof = _Proof(self._identity.secret, self.greeting(), self._other)
        if not hmac.compare_digest(auth.proof.encode(), proof.of_worker().encode()):
            raise ProtocolError("The worker's worker_replication_secret is not the one of the main process.")
        self.state = State.FOLLOWING
        return [Auth(proof.of_main())]


class WorkerSide:
    """The worker's side of one conversation."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._other: Server | None = None
        self.state = State.GREETING
        self.version = OLDEST_VERSION

    def greeting(self) -> Name:
        """What is said first."""
        mine = self._identity
        return Name(mine.instance, _my_versions(), mine.server_name, mine.release, mine.nonce)

    def receive(self, line: str) -> tuple[Command | None, list[Command]]:
        """A line from the main process:

        The command to carry out, if any, and what to answer. Raises `ProtocolError`.
        """
        if self.state is State.GREETING:
            return None, self._greeted(line)
        command = parse(line)
        if isinstance(command, Error):
            raise ProtocolError(f"The main process says: {command.sentence}")
        if isinstance(command, Auth):
            self._proved(command)
            return None, []
        if self.state is State.PROVING:
            raise ProtocolError(
                "The main process does not prove that it knows worker_replication_secret; give both the same one."
            )
        if not isinstance(command, TO_WORKER):
            raise ProtocolError(f"{command.NAME} is for a worker to say.")
        return command, []

    def _greeted(self, line: str) -> list[Command]:
        if line.startswith(("HTTP/", "<")):
            raise ProtocolError(
                "An HTTP server answers there; worker_replication_port must be the port of the main process's listener "
                "of type `replication`."
            )
        if line.startswith("ERROR "):
            raise ProtocolError(f"The main process says: {line.removeprefix('ERROR ')}")
        if not line.startswith("SERVER "):
            raise ProtocolError(
                f"No main process answers there, but something that says {_shown(line)}; "
                "check worker_replication_host and worker_replication_port."
            )
        server = parse(line)
        assert isinstance(server, Server), "the line begins with its name"
        if server.server_name != self._identity.server_name:
            raise ProtocolError(
                f"The main process there is that of {server.server_name}, and this worker belongs to "
                f"{self._identity.server_name}; check worker_replication_host and worker_replication_port."
            )
        self.version = _negotiated(server.versions, f"the main process (release {server.release})")
        self._other = server
        if self._identity.secret is None:
            self.state = State.FOLLOWING
            return []
        self.state = State.PROVING
        return [Auth(_Proof(self._identity.secret, server, self.greeting()).of_worker())]

    def _proved(self, auth: Auth) -> None:
        if self.state is not State.PROVING or self._other is None or self._identity.secret is None:
            raise ProtocolError("Nobody asked for AUTH here.")
        proof = _Proof(self._identity.secret, self._other, self.greeting())
        if not hmac.compare_digest(auth.proof.encode(), proof.of_main().encode()):
            raise ProtocolError("The main process's worker_replication_secret is not the one of this worker.")
        self.state = State.FOLLOWING


class _Proof:
    """What either side can say only if it knows the secret; bound to both nonces, so that it cannot be said again."""

    def __init__(self, secret: str, server: Server, name: Name) -> None:
        self._secret = secret.encode()
        self._about = f"{server.line()}\n{name.line()}"

    def of_worker(self) -> str:
        return self._of("worker")

    def of_main(self) -> str:
        return self._of("main")

    def _of(self, side: str) -> str:
        return hmac.new(self._secret, f"{side}\n{self._about}".encode(), hashlib.sha256).hexdigest()


def _my_versions() -> str:
    return str(OLDEST_VERSION) if OLDEST_VERSION == NEWEST_VERSION else f"{OLDEST_VERSION}-{NEWEST_VERSION}"


def _negotiated(versions: str, other: str) -> int:
    """The newest version that both speak."""
    oldest, _, newest = versions.partition("-")
    if not (oldest.isdecimal() and (newest or oldest).isdecimal()):
        raise ProtocolError(f"{_shown(versions)} names no versions of the replication protocol.")
    common = min(int(newest or oldest), NEWEST_VERSION)
    if common < max(int(oldest), OLDEST_VERSION):
        raise ProtocolError(
            f"This process speaks versions {_my_versions()} of the replication protocol, and {other} {versions}; "
            "run releases that are not so far apart."
        )
    return common
