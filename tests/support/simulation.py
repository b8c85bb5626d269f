"""A reactor whose time, connections and database threads are made up, so that whole processes race repeatably.

Everything that takes time in the real world takes a random time here, drawn from seeded generators: bytes on a wire,
a transaction on its way to the database, its result on the way back. Each wire has a generator of its own, and each
pool one for each kind of transaction, so that it does not matter in which order a process does what it does at one
moment. Then there is no chance left: whatever happens next is the call of the clock that is due next. What runs is what
runs in production, down to HTTP between processes and the database's SQL, but the operating system's part.

    world = Simulation(seed)
    result = world.run(coroutine())          # goes on until it has its result
"""

from __future__ import annotations

import logging
import random
from bisect import insort
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from synapse.storage.pool import Job, PoolSettings, connect

T = TypeVar("T")

START_SECONDS = 1_700_000_000.0
_LOCAL = IPv4Address("TCP", "127.0.0.1", 1)


class Simulation(Clock):
    """The reactor of all processes of one run.

    :param latency: the mean of every delay, in seconds.
    """

    def __init__(self, seed: int, latency: float = 0.004) -> None:
        super().__init__()
        self.rightNow = START_SECONDS
        self.pipes: list[Pipe] = []
        self.latency = latency
        self._seed = seed
        self._generators = count()
        self._ports: dict[int, Any] = {}
        self._next_port = 10_000

    def generator(self) -> random.Random:
        """A new generator of chance, that comes of the seed."""
        return random.Random(f"{self._seed} {next(self._generators)}")

    def chance(self) -> Chance:
        """The delays of one thing that takes time."""
        return Chance(self.generator(), self.latency)

    def pause(self, seconds: float) -> Deferred[None]:
        """Fires when so much time has gone by."""
        waiting: Deferred[None] = Deferred()
        self.callLater(seconds, waiting.callback, None)
        return waiting

    def run(self, coroutine: Coroutine[Deferred[Any], Any, T], limit: float = 3600.0) -> T:
        """Lets time go by until the coroutine has its result; raises what it raises."""
        ends = self.seconds() + limit
        results: list[Any] = []
        Deferred.fromCoroutine(coroutine).addBoth(results.append)
        calls = self.calls
        while not results:
            self._sortCalls()
            assert calls, "nothing happens any more, and there is no result"
            assert calls[0].getTime() < ends, "there is no result in that time"
            self.advance(max(0.0, calls[0].getTime() - self.seconds()))
        if isinstance(results[0], Failure):
            results[0].raiseException()
        result: T = results[0]
        return result

    # -- the order of calls: as a Clock's, which sorts them all whenever one is added ----------------------------------

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:
        call = DelayedCall(self.rightNow + delay, callable, args, kw, self.calls.remove, self._sooner, self.seconds)
        insort(self.calls, call)
        return call

    def _sooner(self, call: DelayedCall) -> None:
        self.calls.remove(call)
        insort(self.calls, call)

    def _sortCalls(self) -> None:
        """Has the first call be the one that is due next. Those that were put off stay where they were until then."""
        while self.calls and self.calls[0].delayed_time:
            call = self.calls.pop(0)
            call.activate_delay()
            insort(self.calls, call)

    # -- what the code under test calls ------------------------------------------------------------------------------

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.callLater(0, callable, *args, **kwargs)

    def callInThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.callLater(0, callable, *args, **kwargs)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        port = port or self._next_port
        self._next_port = max(self._next_port, port) + 1
        self._ports[port] = factory
        return Port(self, port)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30.0, bindAddress: Any = None
    ) -> Connector:
        connector = Connector()
        self.callLater(self.latency, self._connect, port, factory, connector)
        return connector

    def close_port(self, port: int) -> None:
        self._ports.pop(port, None)

    def abort_all(self, port: int) -> None:
        """Breaks the connections to a port."""
        for pipe in list(self.pipes):
            if pipe.port == port:
                pipe.abortConnection()

    def _connect(self, port: int, factory: Any, connector: Connector) -> None:
        if connector.killed:
            return
        if port not in self._ports:
            failure: Failure = Failure(ConnectionRefusedError())
            factory.clientConnectionFailed(connector, failure)
            return
        near, far = Pipe(self, port), Pipe(self, port)
        near.other, far.other = far, near
        self.pipes += [near]
        connector.pipe = near
        far.protocol, near.protocol = self._ports[port].buildProtocol(_LOCAL), factory.buildProtocol(_LOCAL)
        far.protocol.makeConnection(far)
        near.protocol.makeConnection(near)


class Life:
    """The reactor as one process sees it, which may be killed: from then on nothing of it happens any more."""

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self._alive = True
        self._ports: list[Port] = []
        self._connectors: list[Connector] = []
        self._waiting: list[Deferred[None]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._world.callLater(delay, self._call, callable, args, kwargs)

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.callLater(0, callable, *args, **kwargs)

    callInThread = callFromThread

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Port:
        self._ports.append(self._world.listenTCP(port, factory))
        return self._ports[-1]

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30.0, bindAddress: Any = None
    ) -> Connector:
        connector = Connector() if not self._alive else self._world.connectTCP(host, port, factory)
        self._connectors.append(connector)
        return connector

    def death(self) -> Deferred[None]:
        """Fires when the process is killed, at once if it has been."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if not self._alive:
            waiting.callback(None)
        return waiting

    def kill(self) -> None:
        """Ends the process as `kill -9` does, at this moment."""
        self._alive = False
        for port in self._ports:
            self._world.abort_all(port.number)
            port.stopListening()
        for connector in self._connectors:
            connector.kill()
        for waiting in self._waiting:
            if not waiting.called:
                waiting.callback(None)

    def _call(self, callable: Callable[..., Any], args: Any, kwargs: Any) -> None:
        if self._alive:
            callable(*args, **kwargs)


class Chance:
    """Delays: mostly about the mean, sometimes much longer."""

    def __init__(self, rng: random.Random, mean: float) -> None:
        self._rng, self._mean = rng, mean

    def delay(self) -> float:
        slow = 20.0 if self._rng.random() < 0.02 else 1.0
        return self._rng.expovariate(1.0) * self._mean * slow


class Port:
    """What `listenTCP` gives."""

    def __init__(self, world: Simulation, number: int) -> None:
        self._world, self.number = world, number

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", self.number)

    def stopListening(self) -> None:
        self._world.close_port(self.number)


class Connector:
    """What `connectTCP` gives."""

    pipe: Pipe | None = None
    killed = False

    def disconnect(self) -> None:
        if self.pipe is not None:
            self.pipe.loseConnection()

    def kill(self) -> None:
        self.killed = True
        if self.pipe is not None:
            self.pipe.abortConnection()


class Pipe:
    """One end of a connection: the transport of a protocol. What is written arrives in order, some time later."""

    def __init__(self, world: Simulation, port: int) -> None:
        self.port = port
        self.other: Pipe
        self.protocol: Any = None
        self.connected = True
        self.disconnecting = False
        self.stalled_until = 0.0
        self._world = world
        self._chance = world.chance()
        self._sent: deque[bytes | None] = deque()  # to the other end; None is the end
        self._producer: Any = None

    def write(self, data: bytes) -> None:
        if self.connected and not self.disconnecting and data:
            self._send(data)

    def writeSequence(self, parts: list[bytes]) -> None:
        self.write(b"".join(parts))

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._send(None)

    loseWriteConnection = loseConnection

    def abortConnection(self) -> None:
        """Ends both sides; what is under way is lost."""
        for end in (self, self.other):
            if end.connected:
                end.connected = False
                end._sent.clear()
                self._world.callLater(end._chance.delay(), end._lost)

    def _send(self, item: bytes | None) -> None:
        self._sent.append(item)
        wait = max(0.0, self.stalled_until - self._world.seconds())
        self._world.callLater(wait + self._chance.delay(), self._deliver)

    def _deliver(self) -> None:
        if not self._sent:
            return  # aborted meanwhile
        item = self._sent.popleft()
        if item is None:
            for end in (self, self.other):
                if end.connected:
                    end.connected = False
                    end._lost()
        elif self.other.connected:
            self.other.protocol.dataReceived(item)

    def _lost(self) -> None:
        if self in self._world.pipes:
            self._world.pipes.remove(self)
        self.protocol.connectionLost(Failure(ConnectionDone()))

    # -- what else transports have -----------------------------------------------------------------------------------

    def getPeer(self) -> IPv4Address:
        return _LOCAL

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer

    def unregisterProducer(self) -> None:
        self._producer = None

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def setTcpNoDelay(self, on: bool) -> None: ...

    def setTcpKeepAlive(self, on: bool) -> None: ...


class SimulatedPool:
    """Stands in for `ConnectionPool`: a transaction happens at one moment, before and after which time goes by."""

    def __init__(self, world: Life, settings: PoolSettings) -> None:
        self.settings = settings
        self.size, self.waiting = 1, 0
        self._world = world
        self._seed = world.generator().random()
        self._chances: dict[str, Chance] = {}
        self._connection = connect(settings)

    def run(self, job: Job) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        fn: Any = getattr(job, "_fn", job)
        chance = self._chance(getattr(fn, "__qualname__", ""))
        self._world.callLater(chance.delay(), self._do, job, done, chance.delay())
        return done

    def _chance(self, name: str) -> Chance:
        if name not in self._chances:
            self._chances[name] = Chance(random.Random(f"{self._seed} {name}"), self._world.latency)
        return self._chances[name]

    def _do(self, job: Job, done: Deferred[Any], way_back: float) -> None:
        try:
            result = job(self._connection)
        except Exception:
            failure: Failure = Failure()
            failure.cleanFailure()
            self._world.callLater(way_back, done.errback, failure)
        else:
            self._world.callLater(way_back, done.callback, result)

    def close(self) -> None:
        self._connection.close()

    def join(self, timeout: float) -> None: ...


class Complaints(logging.Handler):
    """Remembers what was logged as an error while it is open: in these runs there is no reason for any."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []
        self.of_the_dead = False  # what is said now is said by a process that has been killed

    def emit(self, record: logging.LogRecord) -> None:
        if not self.of_the_dead:
            self.said.append(self.format(record))

    def __enter__(self) -> Complaints:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)
