"""Users of several processes do what comes to their minds, at once and one after another, while rows arrive late and
the writer is started anew: what is in the database, and in each memory, stays true.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, gatherResults

from synapse.api.errors import MatrixError
from synapse.http.request import Requester
from synapse.storage.database import Database
from tests.support.deferreds import started
from tests.support.rooms import ALICE, BOB, CAROL, DAVE, Cluster, RoomProcess, check_invariants, start

USERS = [ALICE, BOB, CAROL, DAVE]


class Crowd:
    """Users who act at random, by a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rooms: list[str] = []
        self.sent: list[tuple[str, str]] = []
        self.refused = 0
        self.done = 0
        self.number = 0

    async def act(self, process: RoomProcess) -> None:
        user, room_id = self.rng.choice(USERS), self.rng.choice(self.rooms)
        action: Callable[[RoomProcess, Requester, str], Awaitable[Any]] = self.rng.choices(
            [self._say, self._enter, self._leave, self._govern, self._decorate, self._redact, self._empower],
            [8, 3, 2, 3, 2, 1, 1],
        )[0]
        try:
            await action(process, user, room_id)
            self.done += 1
        except MatrixError as error:
            if error.code not in (403, 404):
                raise
            self.refused += 1

    async def _say(self, process: RoomProcess, user: Requester, room_id: str) -> None:
        self.number += 1
        event_id = await process.say(user, room_id, txn_id=f"t{self.number}")
        self.sent.append((room_id, event_id))

    async def _enter(self, process: RoomProcess, user: Requester, room_id: str) -> None:
        await process.memberships.join(user, room_id)

    async def _leave(self, process: RoomProcess, user: Requester, room_id: str) -> None:
        if user is not ALICE:
            await process.memberships.leave(user, room_id)

    async def _govern(self, process: RoomProcess, user: Requester, room_id: str) -> None:
        memberships = process.memberships
        what = self.rng.choice([memberships.invite, memberships.kick, memberships.ban, memberships.unban])
        await what(user, room_id, {"user_id": self.rng.choice(USERS[1:]).user_id})

    async def _decorate(self, process: RoomProcess, user: Requester, room_id: str) -> None:
        self.number += 1
        key = self.rng.choice(["m.room.name", "m.room.topic"])
        await process.set(user, room_id, key, {key.rpartition(".")[2]: str(self.number)})

    async def _redact(self, process: RoomProcess, user: Requester, room_id: str) -> None:
        self.number += 1
        if self.sent:
            room_id, event_id = self.rng.choice(self.sent)
            await process.redactions.redact(user, room_id, event_id, {}, f"r{self.number}")

    async def _empower(self, process: RoomProcess, user: Requester, room_id: str) -> None:
        key = ("m.room.power_levels", "")
        content = dict((await process.state.current(room_id, [key]))[key].event.content)
        users = {**content["users"], self.rng.choice(USERS[1:]).user_id: self.rng.choice([0, 50, 100])}
        await process.set(user, room_id, key[0], {**content, "users": users})


@pytest.mark.parametrize(("seed", "version"), [(1, "12"), (2, "12"), (3, "10"), (4, "11")])
@pytest_twisted.ensureDeferred
async def test_a_crowd(database: Database, seed: int, version: str) -> None:
    crowd = Crowd(seed)
    cluster = await start(database, workers=2)
    crowd.rooms = [await cluster.main.room(room_version=version, joined=[BOB]) for _ in range(2)]
    for round_number in range(12):
        await _round(crowd, cluster)
        if round_number % 4 == 3:
            await check_invariants(cluster, database)
            cluster = await start(database, workers=2)
    await check_invariants(cluster, database)
    assert crowd.done > 60
    assert crowd.refused > 5


async def _round(crowd: Crowd, cluster: Cluster) -> None:
    lagging = crowd.rng.choice([None, *cluster.workers])
    if lagging is not None:
        lagging.lagging = True
    processes = [cluster.main, *cluster.workers]
    jobs: list[Deferred[None]] = [started(crowd.act(crowd.rng.choice(processes))) for _ in range(12)]
    if lagging is not None:
        # Everybody else comes to an end; then the rows arrive.
        started(_then_catch_up(crowd, cluster, lagging))
    await gatherResults(jobs)
    await crowd.act(crowd.rng.choice(processes))


async def _then_catch_up(crowd: Crowd, cluster: Cluster, lagging: RoomProcess) -> None:
    for _ in range(crowd.rng.randrange(4)):
        await cluster.main.set(ALICE, crowd.rooms[0], "m.room.topic", {"topic": str(crowd.rng.random())})
    lagging.lagging = False
    lagging.catch_up()
