"""What befalls servers that federate (`tests.support.simulated_federation`): processes are killed, at any moment or
over a transaction; lines break, servers are cut off from each other; two senders believe to have the duty; and
moderators put all users of a server out of a room while it hears nothing, or the server itself by an access list.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence

from tests.support.far_crowd import Traveller
from tests.support.simulated_federation import SENDERS, SimulatedNetwork, SimulatedServer

_ALL = {"allow": ["*"], "deny": []}


class Troubles:
    """One thing after another, at random.

    :param members: the first has founded the rooms, and may do everything there.
    :param every: the mean of the seconds between them.
    """

    def __init__(self, net: SimulatedNetwork, members: Sequence[Traveller], rooms: Sequence[str], every: float) -> None:
        self._net = net
        self._world = net.world
        self._members = members
        self._rooms = rooms
        self._every = every
        self._rng = net.world.generator()
        self.done: Counter[str] = Counter()
        self.let_in_at: dict[str, float] = defaultdict(float)
        """By room: when all servers were let in again that an access list had kept out."""

    async def until(self, end: float) -> None:
        """Goes on until then; afterwards all reach all again."""
        weights: list[tuple[Callable[[], Awaitable[None]], int]] = [
            *((self._kill, 4), (self._break, 4), (self._cut, 3), (self._lose, 2), (self._take_lease, 2)),
            *((self._ambush, 2), (self._put_out, 2), (self._keep_out, 1)),
        ]
        kinds = dict(weights)
        while self._world.seconds() < end:
            await self._world.pause(self._rng.expovariate(1 / self._every))
            (trouble,) = self._rng.choices(list(kinds), list(kinds.values()))
            self.done[getattr(trouble, "__name__", "").strip("_")] += 1
            await trouble()
        self._net.mend()

    async def _kill(self) -> None:
        await self._restart(self._some_server(), self._rng.choice(["main", "reader", *SENDERS]))

    async def _restart(self, server: SimulatedServer, name: str) -> None:
        if name in server.servers:
            server.kill(name)
            await self._world.pause(self._rng.uniform(0.1, 2.0))
            await server.start_one(name)

    async def _ambush(self) -> None:
        """A process is killed over the next transaction that its server is sent."""
        server = self._some_server()
        arrived = server.next_transaction()
        late = self._world.callLater(5.0, server.expect_nothing)
        if await arrived:
            late.cancel()
            await self._world.pause(self._rng.uniform(0.0, 0.1))
            await self._restart(server, self._rng.choice(["main", "reader"]))

    async def _break(self) -> None:
        """A connection between processes breaks, or stalls."""
        pipe = self._rng.choice(self._world.pipes)
        if self._rng.random() < 0.3:
            pipe.abortConnection()
        else:
            self._rng.choice([pipe, pipe.other]).stalled_until = self._world.seconds() + self._rng.uniform(0.1, 3.0)

    async def _cut(self) -> None:
        """Servers do not reach each other for a while."""
        one, other = self._rng.sample(list(self._net.servers), 2)
        self._cut_off(one, other)

    def _cut_off(self, one: str, other: str) -> None:
        self._net.cut(one, other)
        if self._rng.random() < 0.7:
            self._net.cut(other, one)
        self._world.callLater(self._rng.uniform(0.5, 15.0), self._net.mend)

    async def _lose(self) -> None:
        """Requests and answers are lost for a while."""
        self._net.losing = self._rng.uniform(0.1, 0.6)
        self._world.callLater(self._rng.uniform(0.5, 10.0), self._net.mend)

    async def _take_lease(self) -> None:
        self._some_server().take_lease(self._rng.uniform(0.0, 10.0))

    async def _put_out(self) -> None:
        """All users of a server that is cut off are kicked or banned."""
        name, room_id = self._rng.choice(list(self._net.servers)[1:]), self._rng.choice(self._rooms)
        self._cut_off(next(iter(self._net.servers)), name)
        what = self._rng.choice(["kick", "kick", "ban"])
        for member in self._members:
            if member.server is self._net[name]:
                await self._members[0].govern(room_id, what, member)

    async def _keep_out(self) -> None:
        """The room's access list keeps a server out for a while."""
        server, room_id = self._rng.choice(list(self._net.servers.values())[1:]), self._rng.choice(self._rooms)
        await self._members[0].keep_out(room_id, {**_ALL, "deny": [server.server_name.partition(":")[0]]})
        await self._world.pause(self._rng.uniform(1.0, 6.0))
        await self._members[0].keep_out(room_id, _ALL)
        self.let_in_at[room_id] = self._world.seconds()

    def _some_server(self) -> SimulatedServer:
        return self._rng.choice(list(self._net.servers.values()))
