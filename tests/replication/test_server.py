"""The main process's end: who may connect, what is sent to whom, and what a slow worker costs."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection

from synapse.replication.notifier import Notifier
from synapse.replication.protocol import Identity, WorkerSide, parse
from synapse.replication.server import Connection, ReplicationServer, encode_rows
from synapse.replication.streams import ReceiptRow

LOCAL = IPv4Address("TCP", "127.0.0.1", 1)


class Commands:
    """Remembers what workers asked for."""

    def __init__(self) -> None:
        self.log: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self.log.append((name, *arguments))


class Main:
    """A server with connections that a test holds both ends of."""

    def __init__(self, secret: str | None = None, snapshots: dict[str, Any] | None = None) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.notifier = Notifier(self.clock)
        self.commands = Commands()
        self.server = ReplicationServer(
            self.clock, self.notifier, self.commands, "example.org", "1.0", secret, snapshots
        )

    def connect(self, peer: Any = LOCAL) -> tuple[Connection, StringTransportWithDisconnection]:
        connection = self.server.buildProtocol(peer)
        transport = StringTransportWithDisconnection(peerAddress=peer)
        transport.protocol = connection
        transport.abortConnection = transport.loseConnection
        connection.makeConnection(transport)
        return connection, transport

    def worker(self, *streams: str) -> tuple[Connection, StringTransportWithDisconnection]:
        """A worker that has introduced itself and follows these streams."""
        connection, transport = self.connect()
        say(connection, "NAME w1 1 example.org 1.0 nonce", *(f"REPLICATE {stream}" for stream in streams))
        heard(transport)
        return connection, transport


def say(connection: Connection, *lines: str) -> None:
    connection.dataReceived("".join(f"{line}\n" for line in lines).encode())


def heard(transport: StringTransportWithDisconnection) -> list[str]:
    """The lines since the last time."""
    lines = transport.value().decode().splitlines()
    transport.clear()
    return lines


def test_a_conversation_as_netcat_shows_it() -> None:
    main = Main(snapshots={"typing": lambda: [("!r", ["@a:example.org"])]})
    main.notifier.start("events", 1712)
    main.notifier.start("typing", 1690)
    connection, transport = main.connect()
    say(connection, "REPLICATE events", "REPLICATE typing", "SYNC 3")
    main.notifier.on_advance("receipts", 5, [(5, ReceiptRow("!r", "@a:example.org"))])
    main.notifier.on_advance("account_data", 7, [(6, "@a:example.org"), (6, "@b:example.org"), (7, "@a:example.org")])
    say(connection, "REPLICATE account_data", "REPLICATE of_the_future")
    main.notifier.on_advance("account_data", 9, [(8, "@c:example.org")])
    greeting, *lines = heard(transport)
    assert greeting.startswith("SERVER 1 example.org 1.0 ")
    assert lines == [
        "POSITION events 1712",
        "SNAPSHOT typing 1690",
        'RDATA typing 1690 ["!r",["@a:example.org"]]',
        "SYNC 3",
        "POSITION account_data 7",
        'RDATA account_data 8 "@c:example.org"',
        "POSITION account_data 9",
    ]


def test_rows_of_one_position_stay_together() -> None:
    rows = [(1, "@a:x"), (2, "@b:x"), (2, "@c:x")]
    assert encode_rows("account_data", 2, rows).decode().splitlines() == [
        'RDATA account_data 1 "@a:x"',
        'RDATA account_data batch "@b:x"',
        'RDATA account_data 2 "@c:x"',
    ]
    assert encode_rows("account_data", 5, []) == b"POSITION account_data 5\n"


def test_a_slow_worker_costs_nothing_and_is_told_where_to_go_on() -> None:
    main = Main()
    slow, to_slow = main.worker("receipts")
    _, to_quick = main.worker("receipts")
    slow.pauseProducing()
    for position in range(1, 1001):
        main.notifier.on_advance("receipts", position, [(position, ReceiptRow("!r", "@a:x"))])
    main.clock.pump([4.0] * 6)
    assert to_slow.value() == b"", "nothing is buffered for it, not even pings"
    assert len([line for line in heard(to_quick) if line.startswith("RDATA")]) == 1000
    assert to_slow.connected, "being slow is no reason to be disconnected"
    slow.resumeProducing()
    assert heard(to_slow) == ["POSITION receipts 1000"]
    main.notifier.on_advance("receipts", 1001, [(1001, ReceiptRow("!r", "@a:x"))])
    assert heard(to_slow) == ['RDATA receipts 1001 ["!r","@a:x"]']


def test_a_slow_worker_gets_the_snapshot_and_not_the_history() -> None:
    main = Main(snapshots={"typing": lambda: [("!r", ["@z:x"])]})
    slow, transport = main.worker("typing")
    slow.pauseProducing()
    for position in range(1, 100):
        main.notifier.on_advance("typing", position, [(position, ("!r", [f"@{position}:x"]))])
    slow.resumeProducing()
    assert heard(transport) == ["SNAPSHOT typing 99", 'RDATA typing 99 ["!r",["@z:x"]]']


@pytest.mark.parametrize(
    ("peer", "secret", "taken"),
    [
        (LOCAL, None, True),
        (UNIXAddress(None), None, True),
        (IPv4Address("TCP", "10.0.0.7", 1), None, False),
        (IPv4Address("TCP", "10.0.0.7", 1), "secret", True),
    ],
)
def test_without_a_secret_only_this_machine_is_let_in(peer: Any, secret: str | None, taken: bool) -> None:
    _, transport = Main(secret).connect(peer)
    assert transport.connected == taken
    assert heard(transport)[0].startswith("SERVER" if taken else "ERROR Without a worker_replication_secret")


def test_nothing_is_said_or_done_before_the_secret_is_proved() -> None:
    main = Main("secret")
    connection, transport = main.connect()
    say(connection, 'INVALIDATE_CACHE ["c","k"]')
    assert "ERROR Say NAME first, and prove" in heard(transport)[-1]
    assert not transport.connected
    assert main.commands.log == []


def test_a_worker_that_knows_the_secret_is_let_in() -> None:
    main = Main("secret")
    connection, transport = main.connect()
    side = WorkerSide(Identity("example.org", "1.0", "nonce", "secret", "w1"))
    say(connection, side.greeting().line())
    ((greeting,),) = [heard(transport)]
    say(connection, *(answer.line() for answer in side.receive(greeting)[1]))
    (proof,) = heard(transport)
    side.receive(proof)
    say(connection, "REPLICATE events")
    assert heard(transport) == ["POSITION events 0"]


def test_http_gets_a_sentence() -> None:
    connection, transport = Main().connect()
    say(connection, "GET / HTTP/1.1", "Host: x", "")
    assert heard(transport)[-1].startswith("ERROR This is the replication port, which does not speak HTTP")
    assert not transport.connected


def test_commands_are_carried_out() -> None:
    main = Main()
    connection, _ = main.worker()
    main.commands.log.clear()
    say(
        connection,
        'USER_SYNC ["@a:x",null,"online",true]',
        "CLEAR_USER_SYNCS",
        "FEDERATION_ACK 12",
        'REMOVE_PUSHER ["app","key","@a:x"]',
        'INVALIDATE_CACHE ["cache",["a","b"]]',
        'INVALIDATE_CACHE ["cache",null]',
        'USER_IP ["@a:x","D","::1","agent \\n",5]',
    )
    assert main.commands.log == [
        ("user_sync", "w1", "@a:x", None, "online", True),
        ("clear_user_syncs", "w1"),
        ("federation_ack", "w1", 12),
        ("remove_pusher", "app", "key", "@a:x"),
        ("invalidate_cache", "cache", ("a", "b")),
        ("invalidate_cache", "cache", None),
        ("user_ip", "@a:x", "D", "::1", "agent \n", 5),
    ]


def test_a_command_with_wrong_json_ends_the_connection_with_a_sentence() -> None:
    connection, transport = Main().worker()
    say(connection, "USER_SYNC [1]")
    assert "ERROR The argument of USER_SYNC is not what it should be" in heard(transport)[-1]


def test_a_worker_that_goes_away_syncs_nobody() -> None:
    main = Main()
    _, transport = main.worker()
    main.commands.log.clear()
    transport.loseConnection()
    assert main.commands.log == [("clear_user_syncs", "w1")]
    assert not main.server.connections
    assert not main.clock.getDelayedCalls()


def test_silence_ends_a_connection_and_pings_prevent_it() -> None:
    main = Main()
    _, to_quiet = main.worker()
    lively, to_lively = main.worker()
    for _ in range(8):
        main.clock.advance(5)
        if to_lively.connected:
            say(lively, "PING 1")
    assert (to_quiet.connected, to_lively.connected) == (False, True)
    assert any(line.startswith("PING 1005000") for line in heard(to_lively))


def test_who_does_not_introduce_themselves_is_sent_away() -> None:
    main = Main("secret")
    _, transport = main.connect()
    main.clock.pump([5, 5])
    assert not transport.connected


def test_a_line_without_end_is_not_kept() -> None:
    connection, transport = Main().connect()
    connection.dataReceived(b"x" * 5000)
    assert "ERROR A line has more than 1024 bytes" in heard(transport)[-1]
    assert not transport.connected
    connection.dataReceived(b"more\n")
    assert parse("PING 1")
