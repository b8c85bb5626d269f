"""Servers of several processes in one `Simulation` that federate over lines which break: each server is one main
process, a federation_reader and two federation_senders, as they are in production, over a real database of its own.

    with simulated_federation(seed, postgres, ["one", "two"]) as net:
        net.world.run(coroutine())
        net.cut("one", "two"), net.mend(), net["one"].kill("sender1")

What one server asks of another takes the way that a proxy would have it take, to whichever process serves it, and may
be lost on the way there or back, be late, or come to a process that is killed over it. `net.sent` is every transaction
that arrived.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import unquote, urlsplit

import orjson
from nacl.signing import SigningKey
from signedjson.key import encode_signing_key_base64
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.python.failure import Failure

from synapse.api.routes import App
from synapse.http.client import AnswerLate, AnswerLost, AnswerTooLarge, ClientAnswer, NotSent
from synapse.http.request import RawRequest
from synapse.storage.pool import PoolSettings
from tests.support.deferreds import started
from tests.support.homeserver import TestServer
from tests.support.postgres import PostgresServer
from tests.support.simulated_cluster import SimulatedCluster
from tests.support.simulation import Chance, Complaints, Life, Simulation

PORT = 8448
DUTY = "federation_sender"
SENDERS = ("sender1", "sender2")
WORKERS = {"reader": App.FEDERATION_READER, **dict.fromkeys(SENDERS, App.FEDERATION_SENDER)}
OPTIONS: dict[str, Any] = {"send_federation": False, "allow_device_name_lookup_over_federation": True}
_BAD_GATEWAY = ClientAnswer(502, {}, b"{}")


class Sent(NamedTuple):
    """A transaction that has been answered, whether or not the answer arrived. Servers by their short names."""

    at: float
    by: str
    process: str
    to: str
    txn_id: str
    event_ids: tuple[str, ...]


class SimulatedLease:
    """In the place of a `Lease`: the lock is an entry of the server's, which goes with the process that holds it."""

    def __init__(self, server: SimulatedServer, process: str, duty: Any) -> None:
        self.name: str = duty.lease.name
        self._server = server
        self._process = process
        self._life = server.life(process)
        self._duty = duty
        self.held = False

    async def acquire(self) -> bool:
        """See `Lease`."""
        if not self.held:
            asked: Deferred[None] = Deferred()
            self._life.callLater(self._server.world.latency, asked.callback, None)
            await asked
            if self._server.holder is None:
                self._server.holder = self
                self.held = True
        return self.held

    def release(self) -> None:
        """See `Lease`."""
        self.held = False
        if self._server.holder is self:
            self._server.holder = None

    @property
    def process(self) -> str:
        return self._process

    def notice(self) -> None:
        """The process finds out that the lock is not its own any more."""
        self.held = False
        self._duty._lost()


class SimulatedServer(SimulatedCluster):
    """One of the servers."""

    def __init__(self, network: SimulatedNetwork, name: str, settings: PoolSettings, options: dict[str, Any]) -> None:
        super().__init__(network.world, settings, WORKERS, ("main",), options)
        self.name = name
        self.server_name = f"{name}.test:{PORT}"
        self.complaints = network.complaints
        self.holder: SimulatedLease | None = None
        self._network = network
        self._expecting: list[Deferred[bool]] = []

    def life(self, process: str) -> Life:
        return self._lives[process]

    def _make(self, name: str, options: dict[str, Any]) -> TestServer:
        server = super()._make(name, options)
        server.hs.federation.__dict__["transport"] = Road(self._network, self, name)
        return server

    async def start_one(self, name: str) -> None:
        """Starts a process, with what it does besides answering."""
        await super().start_one(name)
        hs = self.servers[name].hs
        if name == "main":
            await hs.reading.begin()
            await hs.edus.begin()
        for each in (*hs.receiving.background, *hs.edus.background, *hs.federation.background):
            each.start()
        for duty in hs.duties:
            if duty.lease.name == DUTY:
                vars(duty)["lease"] = SimulatedLease(self, name, duty)
                duty.start()

    def kill(self, name: str) -> None:
        """See `SimulatedCluster`. The database lets go of what the process held."""
        super().kill(name)
        if self.holder is not None and self.holder.process == name:
            self.holder = None

    def take_lease(self, unnoticed: float) -> None:
        """The database gives the duty of whoever sends to somebody else, who notices only after so many seconds."""
        holder, self.holder = self.holder, None
        if holder is not None:
            self.life(holder.process).callLater(unnoticed, holder.notice)

    def next_transaction(self) -> Deferred[bool]:
        """Fires when another server begins to send one, or with False when it is not expected any more."""
        self._expecting.append(Deferred())
        return self._expecting[-1]

    def expect_nothing(self, has_come: bool = False) -> None:
        """Whoever waits for the next transaction goes on."""
        expecting, self._expecting = self._expecting, []
        for each in expecting:
            each.callback(has_come)

    async def answer(self, request: RawRequest, rng: Any) -> ClientAnswer:
        """What comes of a request of another server. Raises AnswerLost."""
        name = rng.choice(self.serving(request.method, urlsplit(request.target).path))
        if name not in self.servers:
            return _BAD_GATEWAY
        if "/send/" in request.target:
            self.expect_nothing(has_come=True)
        answering = started(self.servers[name].hs.router.handle(request))
        answer, _ = await DeferredList(
            [answering, self.life(name).death()], fireOnOneCallback=True, fireOnOneErrback=True
        )
        if answer is not None:
            return ClientAnswer(answer.code, {k.lower(): v for k, v in answer.headers}, answer.body)
        # What the dead process had begun ends here, rather than when somebody collects the garbage.
        answering.addErrback(lambda failure: failure.trap(CancelledError))
        self.complaints.of_the_dead = True
        answering.cancel()
        self.complaints.of_the_dead = False
        if rng.random() < 0.5:
            return _BAD_GATEWAY
        raise AnswerLost("The connection has ended.")

    async def stop(self) -> None:
        for server in self.servers.values():
            for duty in server.hs.duties:
                if duty.lease.name == DUTY:
                    await duty.stop()
        await super().stop()


class SimulatedNetwork:
    """The servers by their short names, and the lines between them."""

    def __init__(self, world: Simulation) -> None:
        self.world = world
        self.servers: dict[str, SimulatedServer] = {}
        self.sent: list[Sent] = []
        self.complaints = Complaints()
        self.losing = 0.0
        """How probable it is that a request, or its answer, is lost."""
        self._cut: set[tuple[str, str]] = set()
        self._seed = world.generator().random()
        self._roads: dict[tuple[str, str], random.Random] = {}

    def __getitem__(self, name: str) -> SimulatedServer:
        return self.servers[name]

    def cut(self, one: str, other: str) -> None:
        """The one server does not reach the other one any more (which may still reach it)."""
        self._cut.add((one, other))

    def mend(self) -> None:
        """All reach all again."""
        self._cut.clear()
        self.losing = 0.0

    async def carry(self, by: SimulatedServer, process: str, request: RawRequest, destination: str) -> ClientAnswer:
        """The answer of a server. Raises ClientError."""
        name = destination.removesuffix(f".test:{PORT}")
        server = self.servers.get(name)
        rng = self._fate(by.name, name)
        chance = Chance(rng, self.world.latency)
        await self.world.pause(chance.delay())
        if server is None or (by.name, name) in self._cut or rng.random() < self.losing:
            raise NotSent(f"{destination} cannot be reached.")
        answer = await server.answer(request, rng)
        self._note(by, process, name, request, answer)
        await self.world.pause(chance.delay())
        if (by.name, name) in self._cut or rng.random() < self.losing:
            raise AnswerLost(f"{destination} did not answer.")
        return answer

    def _fate(self, by: str, to: str) -> random.Random:
        """What becomes of one request. It does not depend on what servers ask others at the same moment."""
        road = self._roads.setdefault((by, to), random.Random(f"{self._seed} {by} {to}"))
        return random.Random(road.random())

    def _note(self, by: SimulatedServer, process: str, to: str, request: RawRequest, answer: ClientAnswer) -> None:
        path = urlsplit(request.target).path
        if "/send/" in path and answer.code == 200:
            event_ids = tuple(orjson.loads(answer.body)["pdus"])
            txn_id = unquote(path.rpartition("/")[2])
            self.sent.append(Sent(self.world.seconds(), by.name, process, to, txn_id, event_ids))


class Road:
    """In the place of a process's `HttpsTransport`: the way to the other servers."""

    def __init__(self, network: SimulatedNetwork, server: SimulatedServer, process: str) -> None:
        self._network = network
        self._server = server
        self._process = process

    async def send(
        self,
        destination: str,
        method: str,
        path: str,
        body: bytes | None,
        headers: tuple[tuple[str, str], ...],
        *,
        within: float,
        max_answer: int,
    ) -> ClientAnswer:
        life = self._server.life(self._process)
        request = RawRequest(method, path, {k.lower(): v for k, v in headers}, body or b"")
        done: Deferred[ClientAnswer] = Deferred()

        def arrived(result: Any) -> None:
            if not done.called:
                (done.errback if isinstance(result, Failure) else done.callback)(result)

        late = life.callLater(within, arrived, Failure(AnswerLate(f"{destination} is late.")))
        # It comes as an event of the process that waits for it, which may be dead by then.
        carrying = started(self._network.carry(self._server, self._process, request, destination))
        carrying.addBoth(lambda result: life.callLater(0, arrived, result) and None)
        try:
            answer = await done
        finally:
            if late.active():
                late.cancel()
        if len(answer.body) > max_answer:
            raise AnswerTooLarge("The answer is too long.")
        return answer


@contextmanager
def simulated_federation(
    seed: int, postgres: PostgresServer, names: Sequence[str], **options: Any
) -> Iterator[SimulatedNetwork]:
    """Started servers. The ids that they invent come of the seed as well."""
    world = Simulation(seed)
    network = SimulatedNetwork(world)
    databases: list[str] = []
    at_once = mock.patch("twisted.internet.threads.deferToThread", maybeDeferred)
    tokens = mock.patch("secrets.token_bytes", world.generator().randbytes)
    choices = mock.patch("synapse.state.heads.random", world.generator())
    with network.complaints, tokens, choices, at_once, tempfile.TemporaryDirectory(prefix="synapse-keys-") as keys:
        try:
            for name in names:
                databases.append(postgres.create(f"{name}.test:{PORT}"))
                _prepare(network, name, postgres.settings(databases[-1]), Path(keys), options)
                world.run(network[name].start())
            yield network
        finally:
            for server in network.servers.values():
                world.run(server.stop())
            for database in databases:
                postgres.drop(database)


def _prepare(network: SimulatedNetwork, name: str, settings: PoolSettings, keys: Path, options: dict[str, Any]) -> None:
    key: Any = SigningKey(network.world.generator().randbytes(32))
    key.alg, key.version = "ed25519", name
    path = keys / f"{name}.key"
    path.write_text(f"ed25519 {name} {encode_signing_key_base64(key)}\n")
    own = {"server_name": f"{name}.test:{PORT}", "signing_key_path": str(path), **OPTIONS, **options}
    network.servers[name] = SimulatedServer(network, name, settings, own)
