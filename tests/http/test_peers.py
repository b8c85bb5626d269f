"""Requests to other servers over real TLS: who must prove what, where they are looked for, what is kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from synapse.http.addresses import AddressFilter
from synapse.http.exchange import (
    AnswerLate,
    AnswerLost,
    AnswerTooLarge,
    ClientAnswer,
    ClientError,
    NotSent,
    _Connection,
)
from synapse.http.peers import PER_SERVER, PeerClient
from tests.support.deferreds import started
from tests.support.elsewhere import Asked, Certificates, Elsewhere, Told, elsewhere
from tests.support.reactor import HeldReactor, real_reactor

LOOPBACK = "127.0.0.1"


def port_of(server: Elsewhere) -> int:
    return int(server.name.rpartition(":")[2])


class Client:
    """A client that believes the test's authority."""

    def __init__(self, certificates: Certificates, *, verify: bool = True, blocked: tuple[str, ...] = ()) -> None:
        self.reactor: Any = real_reactor()
        addresses = AddressFilter(blocked)
        self.peers = PeerClient(self.reactor, addresses, lambda _: verify, (certificates.path,))

    async def ask(self, name: str, *places: tuple[str, int], path: str = "/", **more: Any) -> ClientAnswer:
        options = {"within": 10.0, "max_answer": 1000, **more}
        return await self.peers.request(name, places, "PUT", path, (("Host", name),), b"{}", **options)


async def echo(asked: Asked) -> Told:
    return Told(200, {"host": asked.headers["host"], "path": asked.path, "body": asked.body.decode()})


async def turns(seconds: float = 0.05) -> None:
    done: Deferred[None] = Deferred()
    real_reactor().callLater(seconds, done.callback, None)
    await done


async def until(is_so: Callable[[], bool]) -> None:
    """Lets the reactor turn until it is so; fails after a long while."""
    for _ in range(2000):
        if is_so():
            return
        await turns(0.01)
    raise AssertionError("what was waited for did not come about")


@pytest.mark.parametrize(
    ("certificate", "name", "believed"),
    [
        ("localhost", "localhost", True),
        ("matrix.example.org", "matrix.example.org", True),
        ("*.example.org", "matrix.example.org", True),
        ("matrix.example.org", "example.org", False),
        ("localhost", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", False),
        ("::1", "::1", True),
        ("127.0.0.1", "localhost", False),
        ("localhost", "123", False),
    ],
)
@pytest_twisted.ensureDeferred
async def test_the_certificate_must_be_of_the_name(tmp_path: Path, certificate: str, name: str, believed: bool) -> None:
    certificates = Certificates(tmp_path)
    async with elsewhere(certificates, echo, certificate) as server:
        client = Client(certificates)
        place = (LOOPBACK, port_of(server))
        if believed:
            answer = await client.ask(name, place, path="/_matrix/x")
            assert answer.json_object() == {"host": name, "path": "/_matrix/x", "body": "{}"}
        else:
            with pytest.raises(NotSent, match=f"certificate verify failed: it is not of the name {name}"):
                await client.ask(name, place)
            assert server.asked == [], "nothing is sent before it is known to whom"
            trusting = Client(certificates, verify=False)
            assert (await trusting.ask(name, place)).code == 200
            trusting.peers.close()
        client.peers.close()


@pytest_twisted.ensureDeferred
async def test_an_authority_that_is_not_listed_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    certificates = Certificates(tmp_path)
    async with elsewhere(Certificates(tmp_path / "other"), echo) as server:
        with pytest.raises(NotSent, match="certificate verify failed: it comes from no authority that"):
            await Client(certificates).ask("localhost", (LOOPBACK, port_of(server)))
        system: Any = PeerClient(real_reactor(), AddressFilter(()), lambda _: True)
        with pytest.raises(NotSent, match="certificate verify failed"):
            await system.request(
                "localhost", [(LOOPBACK, port_of(server))], "GET", "/", (), None, within=9, max_answer=9
            )


@pytest_twisted.ensureDeferred
async def test_an_expired_certificate_is_not_believed_and_said_to_be_one(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    async with elsewhere(certificates, echo, not_after=datetime(2020, 1, 1)) as server:
        with pytest.raises(NotSent, match="certificate verify failed: it has expired"):
            await Client(certificates).ask("localhost", (LOOPBACK, port_of(server)))
        assert server.asked == []


@pytest_twisted.ensureDeferred
async def test_why_nobody_answers_is_said_in_words(tmp_path: Path) -> None:
    client = Client(Certificates(tmp_path), blocked=("127.0.0.2/32",))
    unused = real_reactor().listenTCP(0, Factory(), interface=LOOPBACK)
    port = unused.getHost().port
    await unused.stopListening()
    with pytest.raises(NotSent, match=r"Nobody answers at localhost \(127.0.0.1:\d+\): Connection refused\."):
        await client.ask("localhost", (LOOPBACK, port))
    for host in ("127.0.0.2", "no-such-host.invalid"):
        with pytest.raises(NotSent, match="the name has no address, or none that this server may connect to"):
            await client.ask("localhost", (host, port))
    with pytest.raises(NotSent, match=r"Nobody answers at ::2 \(\[::2\]:1\)"):
        await client.ask("::2", ("::2", 1))


@pytest_twisted.ensureDeferred
async def test_the_places_are_tried_in_turn(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    unused = real_reactor().listenTCP(0, Factory(), interface=LOOPBACK)
    nobody = (LOOPBACK, unused.getHost().port)
    await unused.stopListening()
    async with elsewhere(certificates, echo) as good, elsewhere(certificates, echo, "other.example") as other:
        client = Client(certificates)
        places = [nobody, ("no-such-host.invalid", 1), (LOOPBACK, port_of(other)), ("localhost", port_of(good))]
        assert (await client.ask("localhost", *places)).code == 200
        assert (len(good.asked), len(other.asked)) == (1, 0)
        with pytest.raises(NotSent):
            await client.ask("localhost", nobody)
        with pytest.raises(NotSent):
            await client.ask("localhost")
        client.peers.close()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::ffff:127.0.0.1"])
@pytest_twisted.ensureDeferred
async def test_blocked_addresses_are_left_out(tmp_path: Path, host: str) -> None:
    certificates = Certificates(tmp_path)
    async with elsewhere(certificates, echo) as server:
        client = Client(certificates, blocked=("127.0.0.0/8", "::1/128"))
        with pytest.raises(NotSent):
            await client.ask("localhost", (host, port_of(server)))
        assert server.asked == []


@pytest_twisted.ensureDeferred
async def test_connections_are_kept_and_so_many_at_once(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    waiting: list[Deferred[None]] = []

    async def slow(asked: Asked) -> Told:
        if asked.path == "/slow":
            waiting.append(Deferred())
            await waiting[-1]
        return Told(200, {})

    async with elsewhere(certificates, slow) as server:
        client = Client(certificates)
        place = (LOOPBACK, port_of(server))
        for _ in range(3):
            await client.ask("localhost", place)
        assert client.peers._idle == 1
        asking = [started(client.ask("localhost", place, path="/slow")) for _ in range(PER_SERVER + 3)]
        await until(lambda: len(waiting) >= PER_SERVER)
        await turns()
        assert len(waiting) == PER_SERVER
        for _ in range(PER_SERVER + 3):
            await until(lambda: bool(waiting))
            waiting.pop(0).callback(None)
        for each in asking:
            assert (await each).code == 200
        assert client.peers._idle == PER_SERVER
        client.peers.close()
        await until(lambda: (client.peers._idle, len(client.peers._pools)) == (0, 0))


@pytest_twisted.ensureDeferred
async def test_what_is_idle_is_bounded_altogether(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synapse.http.peers.MAX_IDLE", 1)
    certificates = Certificates(tmp_path)
    async with elsewhere(certificates, echo) as one, elsewhere(certificates, echo) as two:
        client = Client(certificates)
        for server in (one, two, one):
            assert (await client.ask("localhost", (LOOPBACK, port_of(server)))).code == 200
            await until(lambda: (client.peers._idle, len(client.peers._pools)) == (1, 1))
        client.peers.close()


@pytest_twisted.ensureDeferred
async def test_no_connection_is_lost_sight_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More servers than connections may be kept to are asked over and over, many of them at the same time."""
    monkeypatch.setattr("synapse.http.peers.MAX_IDLE", 3)
    made: list[Any] = []
    monkeypatch.setattr(
        "synapse.http.exchange._Connection.connectionMade",
        lambda self, before=_Connection.connectionMade: (made.append(self), before(self)),
    )
    certificates = Certificates(tmp_path)
    async with elsewhere(certificates, echo) as server:
        client = Client(certificates, verify=False)
        place = (LOOPBACK, port_of(server))
        for _ in range(5):
            asking = [started(client.ask(f"server{number}.test", place)) for number in range(8)]
            for each in asking:
                assert (await each).code == 200
            pools = client.peers._pools.values()
            await until(lambda: client.peers._idle <= 3)
            assert sum(pool.idle for pool in pools) == client.peers._idle
            await until(lambda: sum(not each._lost for each in made) <= 3)
        client.peers.close()
        await until(lambda: all(each._lost for each in made))


@pytest_twisted.ensureDeferred
async def test_answers_have_a_size_and_a_time(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    arrived: Deferred[None] = Deferred()
    never: Deferred[None] = Deferred()

    async def answer(asked: Asked) -> Told:
        if asked.path == "/late":
            arrived.callback(None)
            await never
        return Told(302, b"x" * 1000, {"Location": "/elsewhere"})

    async with elsewhere(certificates, answer) as server:
        client = Client(certificates)
        place = (LOOPBACK, port_of(server))
        assert (await client.ask("localhost", place)).code == 302, "redirects are not followed"
        with pytest.raises(AnswerTooLarge):
            await client.ask("localhost", place, max_answer=999)
        clock = HeldReactor()
        impatient = PeerClient(clock, AddressFilter(()), lambda _: False)
        asked = started(impatient.request("localhost", [place], "GET", "/late", (), None, within=20.0, max_answer=1000))
        await arrived
        clock.advance(20.0)
        with pytest.raises(AnswerLate):
            await asked
        client.peers.close()
        impatient.close()


class Says(Protocol):
    """A server that takes connections, and says the same to everybody, or nothing."""

    def __init__(self, said: bytes) -> None:
        self._said = said

    def dataReceived(self, data: bytes) -> None:
        if self._said:
            self.transport.write(self._said)  # type: ignore[union-attr]


@pytest.mark.parametrize("tls", [True, False])
@pytest_twisted.ensureDeferred
async def test_who_does_not_speak_tls_or_http(tmp_path: Path, tls: bool) -> None:
    certificates = Certificates(tmp_path)
    factory: Any = Factory.forProtocol(lambda: Says(b"220 mail.example.org ESMTP\r\n\r\n"))
    reactor: Any = real_reactor()
    listen = (lambda: reactor.listenSSL(0, factory, certificates.options())) if tls else None
    port = listen() if listen is not None else reactor.listenTCP(0, factory)
    expected: type[ClientError] = AnswerLost if tls else NotSent
    with pytest.raises(expected):
        await Client(certificates).ask("localhost", (LOOPBACK, port.getHost().port))
    await port.stopListening()


@pytest.mark.parametrize(
    ("authorities", "name"), [(("/nonexistent/ca.pem",), "localhost"), ((), "a" * 300), ((), "a..b"), ((), "-")]
)
@pytest_twisted.ensureDeferred
async def test_what_cannot_even_be_begun(authorities: tuple[str, ...], name: str) -> None:
    client = PeerClient(real_reactor(), AddressFilter(()), lambda _: True, authorities)
    with pytest.raises(NotSent):
        await client.request(name, [(name, 1)], "GET", "/", (), None, within=10, max_answer=1)
    with pytest.raises(NotSent):
        await client.request(name, [(LOOPBACK, 1)], "GET", "/", (), None, within=10, max_answer=1)
    await turns(0)
    assert not client._pools, "nothing is kept of places where nobody is"


@pytest_twisted.ensureDeferred
async def test_a_handshake_has_a_time() -> None:
    clock = HeldReactor()
    reactor: Any = real_reactor()
    factory: Any = Factory.forProtocol(lambda: Says(b""))
    port = reactor.listenTCP(0, factory, interface=LOOPBACK)
    client = PeerClient(clock, AddressFilter(()), lambda _: True)
    asked = started(
        client.request("localhost", [(LOOPBACK, port.getHost().port)], "GET", "/", (), None, within=60, max_answer=1)
    )
    for _ in range(5):
        await turns()
        clock.advance(5.0)
    with pytest.raises(NotSent):
        await asked
    await port.stopListening()
