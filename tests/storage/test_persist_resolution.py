"""Branches that meet in the tables: the right state, whatever else is in the room, at a cost that does not grow with
it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import pytest_twisted

from synapse.api.room_versions import room_version
from synapse.http.request import Requester
from synapse.state.groups import Delta
from synapse.storage.database import Database
from synapse.storage.events import EventsStore
from synapse.storage.persist_resolution import Resolver
from synapse.storage.persist_state import BatchState, GroupIds
from synapse.storage.state import StateStore
from tests.storage.test_persist import make, persist
from tests.support.rooms import ALICE, SERVER, Cluster, check_invariants, start

FORKS = 6


async def room_of(cluster: Cluster, version: str, members: int) -> str:
    room_id = await cluster.main.room(room_version=version)
    for number in range(members):
        await cluster.main.memberships.join(Requester(f"@user{number}:{SERVER}", "D"), room_id)
    return room_id


async def fork(cluster: Cluster, room_id: str) -> list[int]:
    """Branches in each of which the topic is set and somebody is banned; their state groups."""
    head = await cluster.main.heads.get(room_id)
    assert head is not None
    ends = []
    for number in range(FORKS):
        topic = await make(
            cluster, room_id, ALICE, "m.room.topic", {"topic": str(number)}, state_key="", prev_events=head.prev_events
        )
        await persist(cluster, topic)
        user_id = f"@user{number}:{SERVER}"
        content = {"membership": "ban"}
        ban = await make(
            cluster, room_id, ALICE, "m.room.member", content, state_key=user_id, prev_events=[topic.event_id]
        )
        await persist(cluster, ban)
        ends.append(ban.event_id)
    groups = await cluster.main.events.state_groups(ends)
    return [groups[end] for end in ends]


class Spy:
    """Counts what the stores return."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.counts: Counter[str] = Counter()
        for store, name in (
            *((EventsStore, name) for name in ("with_auth_chains", "get_many", "citing", "in_auth_chains")),
            *((StateStore, name) for name in ("ids", "differences")),
        ):
            monkeypatch.setattr(store, name, self._counting(name, getattr(store, name)))

    def _counting(self, name: str, method: Any) -> Any:
        async def counting(store: Any, *args: Any) -> Any:
            result = await method(store, *args)
            inner = [value for value in result.values() if isinstance(value, dict)] if isinstance(result, dict) else []
            self.counts[name] += sum(map(len, inner)) if inner else len(result)
            return result

        return counting


async def resolve_in(cluster: Cluster, version: str, groups: list[int]) -> Delta:
    states = StateStore(cluster.db)
    batch = BatchState(GroupIds(states), states, cluster.main.events)
    return await Resolver(batch, cluster.main.events).meet(room_version(version), groups, groups[0])


@pytest.mark.parametrize("version", ["1", "11", "12"])
@pytest_twisted.ensureDeferred
async def test_the_cost_does_not_grow_with_the_room(
    database: Database, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    cluster = await start(database)
    counts = []
    for members in (FORKS, FORKS + 64):
        room_id = await room_of(cluster, version, members)
        groups = await fork(cluster, room_id)
        with monkeypatch.context() as context:
            spy = Spy(context)
            assert await resolve_in(cluster, version, groups)
        counts.append(spy.counts)
    assert counts[0] == counts[1]
    assert counts[0].total() < 400
    assert counts[0]["in_auth_chains"] == 0
    await check_invariants(cluster, database)
