"""Ten clients act at random for a simulated minute on a server of six processes: in the end, all agree.

    SYNAPSE_RACES=50 ./tests/run tests/handlers/test_races.py          # the seeds 1 to 50
    SYNAPSE_RACES=17-17 ./tests/run tests/handlers/test_races.py       # one of them

Two event creators write into the same rooms; connections between processes break and stall, and processes are killed
and started anew. Then the database, each
synchrotron's sync and /state must say what the events' graph, resolved from its beginning, says; nothing that was
acknowledged may be missing, and nothing be there twice.
"""

from __future__ import annotations

import os
from unittest import mock

import pytest
from twisted.internet.defer import Deferred, gatherResults

from synapse.handlers import event_creation
from synapse.metrics import table
from synapse.storage.pool import PoolSettings
from tests.support.crowd import Journal, Member
from tests.support.deferreds import started
from tests.support.postgres import SERVER_NAME
from tests.support.room_dag import Dag, StateMap, check_room
from tests.support.rooms import check_memory
from tests.support.simulated_cluster import CREATORS, SYNCHROTRONS, SimulatedCluster, simulated_cluster

CLIENTS = 10
VERSIONS = ("12", "11", "10", "7", "6", "5", "2", "1")
SECONDS = 60.0
SHORT_SECONDS = 12.0


def _seeds() -> tuple[list[int], float]:
    given = os.environ.get("SYNAPSE_RACES")
    if given is None:
        return [1, 2, 3], SHORT_SECONDS
    first, dash, last = given.partition("-")
    return (list(range(int(first), int(last) + 1)) if dash else list(range(1, int(first) + 1))), SECONDS


SEEDS, DURATION = _seeds()


@pytest.mark.parametrize("seed", SEEDS)
def test_all_agree_in_the_end(database_settings: PoolSettings, seed: int) -> None:
    # In every other run, nobody builds an event anew because the room has moved on: its state branches and is resolved.
    attempts = 1 if seed % 2 else event_creation.ATTEMPTS
    resolutions = table.EVENTS_RESOLUTIONS.child()
    before = resolutions.value
    with mock.patch.object(event_creation, "ATTEMPTS", attempts), simulated_cluster(seed, database_settings) as cluster:
        run = Run(cluster)
        cluster.world.run(run.go())
        cluster.world.run(run.check_tables())
        cluster.world.run(run.check_readers())
        assert not cluster.complaints.said, "\n".join(cluster.complaints.said)
        answers = run.journal.answers
        events = sum(len(dag.events) for dag in run.dags.values())
        resolved = resolutions.value - before
        print(f"seed {seed}: {dict(answers)}, {events} events, {resolved:g} resolutions, {run.killed} killed")
        assert attempts > 1 or resolved > 0
        assert answers["200"] > DURATION
        assert answers["403 M_FORBIDDEN"] > 0


class Run:
    """One run."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self._rng = self.world.generator()
        self.journal = Journal()
        self.rooms: list[str] = []
        self.dags: dict[str, Dag] = {}
        self.killed = 0
        self.members = [Member(number, cluster, self.journal, self.rooms) for number in range(CLIENTS)]
        for member in self.members:
            member.everybody = self.members

    async def go(self) -> None:
        for member in self.members:
            await self.cluster.add_user(member.user)
        for version in ("12", self._rng.choice(VERSIONS), self._rng.choice(VERSIONS)):
            await self._make_room(version)
        end = self.world.seconds() + DURATION
        doing: list[Deferred[None]] = [started(self._trouble(end))]
        doing += [started(member.enter_all()) for member in self.members]
        for member in self.members:
            doing += [started(member.act_until(end)), started(member.follow_until(end))]
        await gatherResults(doing)
        await self.cluster.caught_up()

    async def _make_room(self, version: str) -> None:
        users = {member.user_id: 50 for member in self.members[1:4]}
        if version != "12":
            users[self.members[0].user_id] = 100
        body = {
            "preset": "public_chat",
            "room_version": version,
            "power_level_content_override": {"users": users, "events": {"test.colour": 0}},
        }
        code, answer = await self.cluster.request(self.members[0].user, "POST", "/createRoom", body)
        assert code == 200, answer
        self.rooms.append(answer["room_id"])

    async def _trouble(self, end: float) -> None:
        """Connections between the processes break or stall, and processes are killed, to be started anew."""
        rng = self._rng
        while self.world.seconds() < end:
            await self.world.pause(rng.expovariate(1 / 4.0))
            if rng.random() < 0.2:
                await self._kill(rng.choice(["main", *CREATORS, *SYNCHROTRONS]))
                continue
            pipe = rng.choice(self.world.pipes)
            if rng.random() < 0.3:
                pipe.abortConnection()
            else:
                rng.choice([pipe, pipe.other]).stalled_until = self.world.seconds() + rng.uniform(0.1, 3.0)

    async def _kill(self, name: str) -> None:
        self.cluster.kill(name)
        self.killed += 1
        await self.world.pause(self._rng.uniform(0.1, 2.0))
        await self.cluster.start_one(name)

    # -- afterwards ------------------------------------------------------------------------------------------------

    async def check_tables(self) -> None:
        """What the database holds is what the events say, and all that was acknowledged is there."""
        hs = self.cluster.servers["main"].hs
        for room_id in self.rooms:
            self.dags[room_id] = await check_room(hs.database, room_id, SERVER_NAME, hs.rooms.signer.key)
            for name in ("main", *CREATORS):
                await check_memory(hs.database, room_id, self.cluster.servers[name].hs.rooms.memory)
        for event_id, what in self.journal.events.items():
            event = self.dags[what.room_id].events[event_id]
            assert (event.sender, event.type, event.state_key) == (what.sender, what.type, what.state_key)
            assert event.content == what.content

    async def check_readers(self) -> None:
        """What clients are told is true, by whichever process."""
        for member in self.members:
            await self._check_views(member)
            for synchrotron in SYNCHROTRONS:
                member.start_over()
                await self._check_views(member, synchrotron)
            await self._check_state(member)

    async def _check_views(self, member: Member, on: str | None = None) -> None:
        while await member.sync(on=on):
            pass
        for room_id, dag in self.dags.items():
            membership = dag.membership(member.user_id)
            view = member.views.get(room_id)
            if membership == "join":
                assert view is not None, (room_id, member.user_id)
                assert view.membership == "join", (room_id, member.user_id)
                assert _believed(view.state, dag, member, on) == dag.present, (room_id, member.user_id, on)
            elif view is not None:
                assert view.membership == ("leave" if membership == "ban" else membership)

    async def _check_state(self, member: Member) -> None:
        asked = [(on, "state") for on in ("main", "reader")] + [(on, "initialSync") for on in SYNCHROTRONS]
        for room_id, dag in self.dags.items():
            if dag.membership(member.user_id) != "join":
                continue
            for on, path in asked:
                code, answer = await self.cluster.request(member.user, "GET", f"/rooms/{room_id}/{path}", on=on)
                assert code == 200, answer
                events = answer if path == "state" else answer["state"]
                assert {(e["type"], e["state_key"]): e["event_id"] for e in events} == dag.present


def _believed(told: StateMap, dag: Dag, member: Member, on: str | None) -> StateMap:
    """What a client has been told, but for what no sync could have told it.

    That an entry has no event any more, there is no way to say to whom it was told before (`on` None: the client has
    followed). And in the classic form, the last event of a timeline counts, even where an earlier one overruled it.
    """
    believed = told if on else {key: event_id for key, event_id in told.items() if key in dag.present}
    if member.state_after:
        return believed
    return believed | {key: dag.present[key] for key in dag.overruled if key in believed}
