"""The scenarios of the budget table: 20 users, 20 rooms of 11 members.

Each scenario prepares what it needs, then hands `Meter.measure` the operations that count. What an operation may
cost is in `BUDGETS`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.client import Client, Registrar
from benchmarks.costs import Processes

USERS = 20
ROOMS = 20
MEMBERS = 11
MANY = 1000

# scenario: (milliseconds of CPU an operation in the server's processes, the same in the database's)
BUDGETS: dict[str, tuple[float, float]] = {
    "send": (2.5, 1.0),
    "send_64": (1.5, 0.5),
    "join": (4.0, 2.0),
    "create_room": (12.0, 5.0),
    "first_sync": (8.0, 4.0),
    "first_sync_1000": (300.0, 100.0),
    "idle_sync": (0.4, 0.0),
    "deliver": (0.8, 0.3),
    "page": (1.5, 1.0),
}

_PAUSE = 0.005  # seconds, so that the client does wait when the message comes

Operation = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Result:
    """What one scenario cost."""

    name: str
    operations: int
    seconds: float
    latencies: list[float]
    server_ms: float
    database_ms: float

    def quantile(self, q: float) -> float:
        """Latency in milliseconds below which the share `q` of the operations lies."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] * 1000


@dataclass
class World:
    """The users and rooms that the scenarios work with."""

    registrar: Registrar
    run: str  # begins the names of all users of this run
    users: list[Client] = field(default_factory=list)
    rooms: list[str] = field(default_factory=list)
    kept: dict[str, Any] = field(default_factory=dict)  # what one scenario has made and others use

    def members(self, room: int) -> list[Client]:
        """The members of the room with this number, its creator first."""
        return [self.users[(room + i) % len(self.users)] for i in range(MEMBERS)]


class Meter:
    """Runs operations and counts what they cost the processes under measurement."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    async def measure(self, name: str, operations: Iterable[Operation], *, at_once: int = 1) -> Result:
        """Run all operations, `at_once` of them at a time; the CPU of the processes is divided by their number."""
        latencies: list[float] = []
        source = iter(operations)

        async def work() -> None:
            for operation in source:
                start = time.perf_counter()
                await operation()
                latencies.append(time.perf_counter() - start)

        await asyncio.sleep(0.3)  # let work that earlier scenarios left behind end, so that it is not counted here
        before, start = self._processes.costs(), time.perf_counter()
        await asyncio.gather(*(work() for _ in range(at_once)))
        seconds = time.perf_counter() - start
        await asyncio.sleep(0.3)  # and let what these operations set in motion be counted
        used = self._processes.costs() - before
        count = max(1, len(latencies))
        return Result(name, count, seconds, latencies, used.server * 1000 / count, used.database * 1000 / count)


async def build_world(registrar: Registrar, run: str) -> World:
    """Create the users and the rooms, and let their members join."""
    world = World(registrar, run, [await registrar.register(f"{run}-{number}") for number in range(USERS)])
    for number in range(ROOMS):
        creator = world.users[number % USERS]
        world.rooms.append(await creator.create_room(preset="public_chat", name=f"Benchmark {number}"))
        for member in world.members(number)[1:]:
            await member.join(world.rooms[-1])
    return world


def _sends(world: World, count: int) -> Iterable[Operation]:
    for i in range(count):
        room = i % len(world.rooms)
        sender = world.members(room)[i // len(world.rooms) % MEMBERS]
        yield partial(sender.send, world.rooms[room], f"message {i}")


async def send(world: World, meter: Meter, count: int) -> Result:
    """Messages one after another, over all rooms."""
    for operation in _sends(world, ROOMS):  # warm
        await operation()
    return await meter.measure("send", _sends(world, count))


async def send_64(world: World, meter: Meter, count: int) -> Result:
    """Messages, 64 of them under way at any time."""
    return await meter.measure("send_64", _sends(world, count), at_once=64)


async def join(world: World, meter: Meter, count: int) -> Result:
    """Joins of public rooms."""
    operations: list[Operation] = []
    while len(operations) < count:
        room = await world.users[0].create_room(preset="public_chat")
        operations += [partial(user.join, room) for user in world.users[1:]]
    return await meter.measure("join", operations[:count])


async def create_room(world: World, meter: Meter, count: int) -> Result:
    """Rooms with a name, created one after another."""
    return await meter.measure(
        "create_room",
        (partial(world.users[i % USERS].create_room, preset="private_chat", name=f"Room {i}") for i in range(count)),
    )


async def first_sync(world: World, meter: Meter, count: int) -> Result:
    """Syncs without a token of a user who is in all twenty rooms."""
    reader = world.users[0]
    joined = set((await reader.request("GET", "/_matrix/client/v3/joined_rooms"))["joined_rooms"])
    for room in world.rooms:
        if room not in joined:
            await reader.join(room)
    for room in joined.difference(world.rooms):  # of other scenarios
        await reader.request("POST", f"/_matrix/client/v3/rooms/{room}/leave", {})
    return await meter.measure("first_sync", (lambda: reader.sync() for _ in range(count)))


async def first_sync_1000(world: World, meter: Meter, count: int) -> Result:
    """Syncs without a token of a user who is in a thousand rooms, most of them quiet ones of three."""
    reader, *others = world.users[-3:]
    for number in range(MANY):
        room = await reader.create_room(preset="public_chat", name=f"Quiet {number}")
        for other in others:
            await other.join(room)
    return await meter.measure("first_sync_1000", (lambda: reader.sync() for _ in range(count)))


async def idle_sync(world: World, meter: Meter, count: int) -> Result:
    """Incremental syncs that have nothing to say."""
    reader = world.users[1]
    since = (await reader.sync())["next_batch"]
    since = (await reader.sync(since))["next_batch"]
    return await meter.measure("idle_sync", (lambda: reader.sync(since) for _ in range(count)))


async def deliver(world: World, meter: Meter, count: int) -> Result:
    """A message to one client that waits in a long poll; the cost of sending it, measured apart, is taken off.

    It is measured in the same rhythm: after a pause, processors are slower to do the same work.
    """
    members = world.members(0)
    sender, reader = members[0], members[1]
    since = (await reader.sync())["next_batch"]

    async def one() -> None:
        nonlocal since
        waiting = asyncio.ensure_future(reader.sync(since, timeout_ms=30_000))
        await asyncio.sleep(_PAUSE)
        event_id = await sender.send(world.rooms[0], "for the one who waits")
        seen = False
        while not seen:
            answer = await waiting
            since = answer["next_batch"]
            rooms = answer.get("rooms", {}).get("join", {})
            seen = any(e["event_id"] == event_id for room in rooms.values() for e in room["timeline"]["events"])
            if not seen:
                waiting = asyncio.ensure_future(reader.sync(since, timeout_ms=30_000))

    async def unread() -> None:
        await asyncio.sleep(_PAUSE)
        await sender.send(world.rooms[0], "for nobody who waits")

    result = await meter.measure("deliver", (one for _ in range(count)))
    alone = await meter.measure("send", (unread for _ in range(count)))
    return Result(
        "deliver",
        result.operations,
        result.seconds,
        result.latencies,
        max(0.0, result.server_ms - alone.server_ms),
        max(0.0, result.database_ms - alone.database_ms),
    )


async def page(world: World, meter: Meter, count: int) -> Result:
    """Pages of 50 messages, newest first."""
    sender = world.members(0)[0]
    for i in range(60):
        await sender.send(world.rooms[0], f"page {i}")
    return await meter.measure("page", (lambda: sender.page(world.rooms[0], 50) for _ in range(count)))


SCENARIOS: dict[str, tuple[Callable[[World, Meter, int], Awaitable[Result]], int]] = {
    "send": (send, 600),
    "send_64": (send_64, 2000),
    "join": (join, 190),
    "create_room": (create_room, 60),
    "first_sync": (first_sync, 60),
    "idle_sync": (idle_sync, 1000),
    "deliver": (deliver, 300),
    "page": (page, 200),
    "first_sync_1000": (first_sync_1000, 5),  # the last, since its users are in many rooms from then on
}
