"""A worker's end: catching up in pages, wrong ports by name, and what survives a broken connection."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransportWithDisconnection

from synapse.replication import client as client_module
from synapse.replication.client import Connection, Follower, ReplicationClient
from synapse.replication.notifier import Notifier
from synapse.replication.outbox import Outbox
from synapse.replication.protocol import FederationAck, Identity, InvalidateCache, Ping, Sync
from synapse.replication.streams import BY_NAME, ReceiptRow
from synapse.storage.database import Database
from synapse.storage.errors import DatabaseClosed
from synapse.storage.transaction import Transaction
from tests.support.reactor import real_reactor

INSERT = "INSERT INTO account_data (user_id, type, content, stream_id) VALUES %s"


def identity(nonce: str) -> Identity:
    return Identity("example.org", "1.0", nonce, None, "w1")


class Worker:
    """A client whose connections a test holds the other end of."""

    def __init__(self, db: Any = None, listens_to: Iterable[str] = tuple(BY_NAME), gather: float = 0.0) -> None:
        self.clock = Clock()
        self.requests = 0
        self.notifier = Notifier(self.clock)
        for stream in listens_to:
            self.notifier.subscribe(stream, lambda position, rows: None)
        self.factories: list[Any] = []
        self.transports: list[StringTransportWithDisconnection] = []
        self.client = ReplicationClient(
            self.clock,
            self._dial,
            "main:9092",
            identity,
            self.notifier,
            db,
            lambda: [Ping(7)],
            gather,
            lambda: self.requests > 0,
        )
        self.started = Deferred.fromCoroutine(self.client.start())
        self.started.addErrback(lambda _: None)

    def _dial(self, factory: Any) -> Worker:
        self.factories.append(factory)
        return self

    def disconnect(self) -> None:
        """What a connector does."""
        self.transports[-1].loseConnection()

    def connect(self) -> tuple[Connection, StringTransportWithDisconnection]:
        connection = self.factories.pop().buildProtocol(None)
        transport = StringTransportWithDisconnection()
        self.transports.append(transport)
        transport.protocol = connection
        transport.abortConnection = transport.loseConnection
        connection.makeConnection(transport)
        return connection, transport


def say(connection: Connection, *lines: str) -> None:
    connection.dataReceived("".join(f"{line}\n" for line in lines).encode())


def heard(transport: StringTransportWithDisconnection) -> list[str]:
    lines = transport.value().decode().splitlines()
    transport.clear()
    return lines


def positions(**known: int) -> list[str]:
    return [f"POSITION {name} {known.get(name, 1)}" for name in BY_NAME]


def test_a_worker_is_ready_when_it_follows_every_stream() -> None:
    worker = Worker()
    connection, transport = worker.connect()
    say(connection, "SERVER 1 example.org 1.0 n")
    name, *lines = heard(transport)
    assert name.startswith("NAME w1 1 example.org 1.0 ")
    assert lines == ["CLEAR_USER_SYNCS", "PING 7", *(f"REPLICATE {stream}" for stream in BY_NAME)]
    *most, last = positions(events=5)
    say(connection, *most)
    assert not worker.started.called
    say(connection, last)
    assert worker.started.called
    assert worker.notifier.position("events") == 5
    assert worker.client.connected


def test_a_worker_follows_only_what_somebody_listens_to() -> None:
    worker = Worker(listens_to=["caches"])
    connection, transport = worker.connect()
    say(connection, "SERVER 1 example.org 1.0 n")
    assert heard(transport)[-1] == "REPLICATE caches"
    say(connection, "POSITION caches 1")
    assert worker.started.called
    started: list[int] = []
    for _ in range(2):
        worker.notifier.subscribe("events", lambda position, rows: None, started.append)
    assert heard(transport) == ["REPLICATE events"]
    say(connection, "POSITION events 7")
    assert started == [7, 7]
    transport.loseConnection()
    worker.clock.advance(1)
    connection, transport = worker.connect()
    say(connection, "SERVER 1 example.org 1.0 n")
    assert heard(transport)[-2:] == ["REPLICATE events", "REPLICATE caches"]


@pytest.mark.parametrize("gather", [0.0, 1.0])
def test_a_worker_that_gathers_leaves_what_follows_soon(gather: float) -> None:
    worker = Worker(listens_to=["caches"], gather=gather)
    connection, transport = worker.connect()
    say(connection, "SERVER 1 example.org 1.0 n")
    states = []
    for wait in (2.5, 0.5, 0.5, 0.5, 1.0, 2.5):
        worker.clock.advance(wait)
        if transport.producerState == "producing":
            say(connection, "PING 1")
        states.append(transport.producerState)
    if gather:
        # The second comes soon after the first; the one after the pause comes soon, too.
        assert states == ["producing", "paused", "paused", "paused", "paused", "producing"]
    else:
        assert states == ["producing"] * 6


def test_nothing_is_gathered_while_somebody_waits() -> None:
    worker = Worker(listens_to=["caches"], gather=1.0)
    connection, transport = worker.connect()
    say(connection, "SERVER 1 example.org 1.0 n", "POSITION caches 1")
    say(connection, "PING 1")
    assert transport.producerState == "paused"
    worker.requests = 1
    worker.client.listen()
    assert transport.producerState == "producing"
    say(connection, "PING 1")
    assert transport.producerState == "producing"
    worker.client.listen()  # it does already
    worker.requests = 0
    say(connection, "PING 1")
    assert transport.producerState == "paused"
    worker.clock.advance(1)
    assert transport.producerState == "producing"


def test_who_asks_while_there_is_no_connection_is_not_held_up() -> None:
    Worker(listens_to=["caches"], gather=1.0).client.listen()


def test_a_connection_that_ends_while_it_gathers_leaves_nothing_behind() -> None:
    worker = Worker(listens_to=["caches"], gather=1.0)
    connection, transport = worker.connect()
    say(connection, "SERVER 1 example.org 1.0 n", "POSITION caches 1")
    say(connection, "PING 1")
    assert transport.producerState == "paused"
    worker.client.stop()
    assert not worker.clock.getDelayedCalls()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("HTTP/1.1 400 Bad Request", "An HTTP server answers there"),
        ("SERVER 1 other.org 1.0 n", "is that of other.org"),
        ("ERROR Without a worker_replication_secret, no.", "says: Without a worker_replication_secret"),
    ],
)
def test_a_wrong_port_is_named_once_and_tried_again(said: str, sentence: str, caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    for _ in range(3):
        connection, transport = worker.connect()
        say(connection, said)
        assert not transport.connected
        worker.clock.advance(5)
    assert caplog.text.count(sentence) == 1
    assert "main:9092" in caplog.text


def test_a_port_that_stays_silent_is_named(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    _, transport = worker.connect()
    worker.clock.advance(5)
    assert not transport.connected
    assert "does not introduce itself; worker_replication_port must be" in caplog.text


def test_a_main_process_that_falls_silent_is_left() -> None:
    worker = Worker()
    connection, transport = worker.connect()
    say(connection, "SERVER 1 example.org 1.0 n")
    worker.clock.pump([5] * 4)
    assert transport.connected
    say(connection, "PING 1")
    worker.clock.pump([5] * 5)
    assert transport.connected
    worker.clock.pump([5] * 2)
    assert not transport.connected


def test_attempts_to_connect_become_rarer() -> None:
    worker = Worker()
    waits: list[float] = []
    for _ in range(12):
        worker.connect()[1].loseConnection()
        (call,) = worker.clock.getDelayedCalls()
        waits.append(round(call.getTime() - worker.clock.seconds(), 3))
        worker.clock.advance(waits[-1])
    assert waits == [*client_module.DELAYS, *([5.0] * (12 - len(client_module.DELAYS)))]


def test_a_stopped_client_stays_away() -> None:
    worker = Worker()
    _, transport = worker.connect()
    worker.client.stop()
    assert not transport.connected
    assert not worker.clock.getDelayedCalls()


# -- following one stream ------------------------------------------------------------------------------------------


class Reading:
    """A follower of `account_data` over a real table."""

    def __init__(self, db: Database) -> None:
        self.notifier = Notifier(real_reactor())
        self.heard: list[tuple[int, str]] = []
        self.pages: list[int] = []
        self.notifier.subscribe("account_data", self._hear)
        self.follower = Follower(BY_NAME["account_data"], self.notifier, db, real_reactor())

    def _hear(self, position: int, rows: Any) -> None:
        self.pages.append(len(rows))
        self.heard += rows


def insert(txn: Transaction, after: int, until: int) -> None:
    txn.values(INSERT, [(f"@u{n}:x", "t", "{}", n) for n in range(after + 1, until + 1)])


def expected(after: int, until: int) -> list[tuple[int, str]]:
    return [(n, f"@u{n}:x") for n in range(after + 1, until + 1)]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE", 10)


@ensureDeferred
async def test_a_gap_is_read_from_the_database_in_pages(database: Database, small_pages: None) -> None:
    reading = Reading(database)
    reading.follower.reached(3, anew=False)
    await database.write("insert", insert, 0, 38)
    reading.follower.reached(38, anew=False)
    assert await reading.notifier.wait_until("account_data", 38)
    assert reading.heard == expected(3, 38)
    assert reading.pages == [10, 10, 10, 5]


@ensureDeferred
async def test_rows_that_arrive_meanwhile_are_neither_lost_nor_told_twice(
    database: Database, small_pages: None
) -> None:
    reading = Reading(database)
    reading.follower.reached(0, anew=False)
    await database.write("insert", insert, 0, 25)
    reading.follower.reached(20, anew=False)
    for position in range(21, 26):
        reading.follower.row(position, f'"@u{position}:x"')
    assert await reading.notifier.wait_until("account_data", 25)
    await deferLater(real_reactor(), 0)  # it is just about to be live
    reading.follower.row(26, '"@u26:x"')
    assert reading.heard == expected(0, 26)


@ensureDeferred
async def test_a_database_that_fails_is_asked_again(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    reading = Reading(database)
    monkeypatch.setattr(client_module, "RETRY_SECONDS", 0.01)
    reading.follower.reached(0, anew=False)
    await database.write("move", lambda txn: txn.execute("ALTER TABLE account_data RENAME TO elsewhere"))
    reading.follower.reached(2, anew=False)
    while "cannot be read and is tried again" not in caplog.text:
        await deferLater(real_reactor(), 0.01)
    await database.write("move", lambda txn: txn.execute("ALTER TABLE elsewhere RENAME TO account_data"))
    await database.write("insert", insert, 0, 2)
    assert await reading.notifier.wait_until("account_data", 2)


class Answers:
    """In the place of the database: whatever is read waits for the test."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, Deferred[Any]]] = []

    async def read(self, _name: str, _fn: Any, after: int, until: int, _page: int) -> Any:
        answer: Deferred[Any] = Deferred()
        self.asked.append((after, until, answer))
        return await answer


class Held:
    """A follower of `receipts` whose database and clock the test holds."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.database = Answers()
        self.told: list[tuple[int, str]] = []
        self.notifier = Notifier(self.clock)
        self.notifier.subscribe("receipts", lambda _, rows: self.told.extend((at, row.user_id) for at, row in rows))
        self.follower = Follower(BY_NAME["receipts"], self.notifier, self.database, self.clock)  # type: ignore[arg-type]
        self.follower.reached(1, anew=False)

    def row(self, position: int | None, user_id: str) -> None:
        self.follower.row(position, f'["!r","{user_id}"]')

    def answer(self, *rows: tuple[int, str]) -> tuple[int, int]:
        """Answers what was asked for; returns that."""
        after, until, answer = self.database.asked.pop(0)
        answer.callback([(position, ReceiptRow("!r", user_id)) for position, user_id in rows])
        return after, until


def test_rows_that_arrive_while_reading_fails_do_not_hide_the_gap(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    held.follower.reached(3, anew=False)
    held.database.asked.pop()[2].errback(RuntimeError("no disk"))
    held.row(4, "@c:x")
    assert held.told == []
    assert held.notifier.position("receipts") == 1
    held.clock.advance(client_module.RETRY_SECONDS)
    assert held.answer((2, "@a:x"), (3, "@b:x"), (4, "@c:x")) == (1, 4)
    held.row(5, "@d:x")
    assert held.told == [(2, "@a:x"), (3, "@b:x"), (4, "@c:x"), (5, "@d:x")]
    assert caplog.text.count("cannot be read and is tried again") == 1


def test_a_batch_that_begins_while_the_database_is_read_is_told_whole() -> None:
    held = Held()
    held.follower.reached(2, anew=False)
    held.row(None, "@b:x")  # and the rest is still on the way
    held.answer((2, "@a:x"))
    held.row(None, "@c:x")
    held.row(3, "@d:x")
    held.answer((3, "@b:x"), (3, "@c:x"), (3, "@d:x"))
    held.row(4, "@e:x")
    assert held.told == [(2, "@a:x"), (3, "@b:x"), (3, "@c:x"), (3, "@d:x"), (4, "@e:x")]


def test_a_process_that_ends_reads_no_more(caplog: pytest.LogCaptureFixture) -> None:
    held = Held()
    held.follower.reached(2, anew=False)
    held.database.asked.pop()[2].errback(DatabaseClosed("the end"))
    assert not held.clock.getDelayedCalls()
    assert not caplog.text


def test_half_a_batch_is_dropped_with_its_connection() -> None:
    notifier = Notifier(Clock())
    told: list[Any] = []
    notifier.subscribe("receipts", lambda position, rows: told.extend(rows))
    follower = Follower(BY_NAME["receipts"], notifier, None, Clock())  # type: ignore[arg-type]  # is not read from
    follower.reached(1, anew=False)
    follower.row(None, '["!r","@a:x"]')
    follower.reached(1, anew=False)
    follower.row(2, '["!r","@b:x"]')
    follower.row(3, '["!r","@c:x",true]')
    assert told == [(2, ReceiptRow("!r", "@b:x")), (3, ReceiptRow("!r", "@c:x", private=True))]


# -- the outbox ----------------------------------------------------------------------------------------------------


def test_what_was_not_confirmed_is_sent_again_and_in_order() -> None:
    outbox = Outbox()
    done = [outbox.add(FederationAck(n)) for n in range(3)]
    assert list(outbox.take()) == [FederationAck(0), FederationAck(1), FederationAck(2), Sync(1)]
    outbox.add(FederationAck(3))
    assert list(outbox.take()) == [FederationAck(3), Sync(2)]
    outbox.confirmed(1)
    assert all(each.called for each in done)
    outbox.add(FederationAck(4))
    outbox.connected()
    assert list(outbox.take()) == [FederationAck(3), FederationAck(4), Sync(3)]
    outbox.confirmed(3)
    assert len(outbox) == 0
    assert list(outbox.take()) == []


def test_too_many_commands_give_up_all_but_invalidations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synapse.replication.outbox.MOST", 2)
    outbox = Outbox()
    caches = [InvalidateCache(str(n)) for n in range(3)]
    outbox.add(caches[0])
    given_up = outbox.add(FederationAck(1))
    for cache in caches[1:]:
        outbox.add(cache)
    assert given_up.called
    assert outbox.dropped == 1
    assert list(outbox.take())[:-1] == caches


# -- over real sockets ---------------------------------------------------------------------------------------------


class _Http(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@ensureDeferred
async def test_an_http_port_is_named_over_a_real_connection(caplog: pytest.LogCaptureFixture) -> None:
    reactor = real_reactor()
    listening = reactor.listenTCP(0, Factory.forProtocol(_Http), interface="127.0.0.1")
    port = listening.getHost().port

    def connect(factory: Any) -> Any:
        return reactor.connectTCP("127.0.0.1", port, factory)

    no_database: Any = None
    client = ReplicationClient(reactor, connect, "there", identity, Notifier(reactor), no_database)
    Deferred.fromCoroutine(client.start()).addErrback(lambda _: None)
    while "An HTTP server answers there" not in caplog.text:
        await deferLater(reactor, 0.01)
    client.stop()
    await listening.stopListening()
