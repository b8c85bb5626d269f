"""Devices send one another messages and claim one another's keys while processes are killed: all comes once.

    SYNAPSE_RACES=50 ./tests/run tests/handlers/test_races_of_keys.py      # the seeds 1 to 50

Each device sends, uploads, claims and renames itself at random, and syncs on either synchrotron; some answers never
reach it. Connections break, processes are killed and started anew (`tests.support.simulation`). In the end every
message that was acknowledged has been told to its device, once and in its sender's order; no key has been given out
twice; and everybody has been told to look at the keys of whoever changed their device.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults

from synapse.storage.pool import PoolSettings
from tests.support.deferreds import started
from tests.support.simulated_cluster import CREATORS, SYNCHROTRONS, SimulatedCluster, User, simulated_cluster

DEVICES = 5
_LOST = (0, 502, 503)
_GIVEN = os.environ.get("SYNAPSE_RACES")
SEEDS = range(1, int(_GIVEN.partition("-")[2] or _GIVEN) + 1) if _GIVEN else range(1, 4)
SECONDS = 60.0 if _GIVEN else 12.0


@pytest.mark.parametrize("seed", SEEDS)
def test_all_comes_once(database_settings: PoolSettings, seed: int) -> None:
    with simulated_cluster(seed, database_settings) as cluster:
        run = Run(cluster)
        cluster.world.run(run.go())
        cluster.world.run(run.check())
        assert not cluster.complaints.said, "\n".join(cluster.complaints.said)


class Device:
    """One user's only device, and what it believes."""

    def __init__(self, number: int, run: Run) -> None:
        self.user = User(f"user{number}")
        self.id = self.user.user_id
        self.received: dict[str, list[int]] = defaultdict(list)
        self.looked: dict[str, float] = {}  # at whose keys it was told to look, and when last
        self.renamed = 0.0
        self._run = run
        self._rng = run.cluster.world.generator()
        self._since: str | None = None
        self._number = 0

    async def insist(self, method: str, path: str, body: Any = None) -> Any:
        """Asks until there is an answer."""
        for _ in range(80):
            code, answer = await self._run.cluster.request(self.user, method, path, body)
            if code not in _LOST:
                assert code == 200, (path, answer)
                return answer
            await self._run.cluster.world.pause(0.5)
        raise AssertionError("nobody answers any more")

    async def act_until(self, end: float) -> None:
        world = self._run.cluster.world
        while world.seconds() < end:
            await world.pause(self._rng.expovariate(1 / 0.5))
            act = self._rng.choices([self._send, self._upload, self._claim, self._rename], [6, 2, 4, 1])[0]
            await act()

    async def _send(self) -> None:
        self._number += 1
        targets = self._rng.sample(self._run.devices, self._rng.randrange(1, DEVICES))
        body = {"messages": {each.id: {self._rng.choice(["*", "DEVICE"]): {"n": self._number}} for each in targets}}
        await self.insist("PUT", f"/sendToDevice/test/{self._number}", body)
        for each in targets:
            self._run.sent[self.id, each.id].append(self._number)

    async def _upload(self) -> None:
        self._number += 1
        names = [f"x:{self._number}-{each}" for each in range(3)]
        self._run.uploaded[self.id].update(names)
        await self.insist("POST", "/keys/upload", {"one_time_keys": {name: name for name in names}})

    async def _claim(self) -> None:
        owner = self._rng.choice(self._run.devices)
        body = {"one_time_keys": {owner.id: {"DEVICE": "x"}}}
        code, answer = await self._run.cluster.request(self.user, "POST", "/keys/claim", body)
        assert code in (200, *_LOST), answer
        if code == 200:
            self._run.given_out(answer)

    async def _rename(self) -> None:
        self._number += 1
        self.renamed = self._run.cluster.world.seconds()
        await self.insist("PUT", "/devices/DEVICE", {"display_name": f"name {self._number}"})

    async def follow_until(self, end: float) -> None:
        world = self._run.cluster.world
        while world.seconds() < end:
            await self.sync(self._rng.choice([0, 1000, 10_000]), losing=0.2)
            await world.pause(self._rng.expovariate(1 / 0.3))

    async def sync(self, wait_ms: int = 0, losing: float = 0.0) -> bool:
        """Syncs once more; whether there may be more to come."""
        query: dict[str, Any] = {"timeout": wait_ms} | ({} if self._since is None else {"since": self._since})
        on = self._rng.choice(SYNCHROTRONS)
        code, answer = await self._run.cluster.request(self.user, "GET", "/sync", on=on, **query)
        if code in _LOST or self._rng.random() < losing:
            await self._run.cluster.world.pause(0.1)
            return True
        assert code == 200, answer
        for message in answer.get("to_device", {}).get("events", []):
            self.received[message["sender"]].append(message["content"]["n"])
        for user_id in answer.get("device_lists", {}).get("changed", []):
            self.looked[user_id] = self._run.cluster.world.seconds()
        moved, self._since = answer["next_batch"] != self._since, answer["next_batch"]
        return moved


class Run:
    """One run."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self._rng = cluster.world.generator()
        self.devices = [Device(number, self) for number in range(DEVICES)]
        self.sent: dict[tuple[str, str], list[int]] = defaultdict(list)
        self.uploaded: dict[str, set[str]] = defaultdict(set)
        self.given: dict[str, set[str]] = defaultdict(set)

    def given_out(self, answer: Any) -> None:
        for user_id, devices in answer["one_time_keys"].items():
            for name in devices["DEVICE"]:
                assert name in self.uploaded[user_id], name
                assert name not in self.given[user_id], f"{name} of {user_id} was given out twice"
                self.given[user_id].add(name)

    async def go(self) -> None:
        for device in self.devices:
            await self.cluster.add_user(device.user)
        room = await self.devices[0].insist("POST", "/createRoom", {"preset": "public_chat"})
        for device in self.devices:
            await device.insist("POST", f"/join/{room['room_id']}", {})
            await self.cluster.caught_up()
            await device.sync()
        end = self.cluster.world.seconds() + SECONDS
        doing: list[Deferred[None]] = [started(self._trouble(end))]
        for device in self.devices:
            doing += [started(device.act_until(end)), started(device.follow_until(end))]
        await gatherResults(doing)
        await self.cluster.caught_up()

    async def _trouble(self, end: float) -> None:
        world = self.cluster.world
        while world.seconds() < end:
            await world.pause(self._rng.expovariate(1 / 3.0))
            if world.pipes and self._rng.random() < 0.5:
                self._rng.choice(world.pipes).abortConnection()
                continue
            name = self._rng.choice(["main", "main", *CREATORS[:1], *SYNCHROTRONS])
            self.cluster.kill(name)
            await world.pause(self._rng.uniform(0.1, 2.0))
            await self.cluster.start_one(name)

    async def check(self) -> None:
        for device in self.devices:
            while await device.sync():
                pass
        assert sum(map(len, self.sent.values())) > SECONDS
        for sender in self.devices:
            for receiver in self.devices:
                assert receiver.received[sender.id] == self.sent[sender.id, receiver.id], (sender.id, receiver.id)
                if sender.renamed:
                    assert receiver.looked.get(sender.id, 0.0) >= sender.renamed, (sender.id, receiver.id)
        await self._claim_the_rest()

    async def _claim_the_rest(self) -> None:
        """Nothing is left that nobody can have; and what was lost on the way is not given out again."""
        wanted = {"one_time_keys": {device.id: {"DEVICE": "x"} for device in self.devices}}
        while answer := await self.devices[0].insist("POST", "/keys/claim", wanted):
            if not answer["one_time_keys"]:
                return
            self.given_out(answer)
