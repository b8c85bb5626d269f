"""What resolution looks at: it grows with the conflict, and not with the room."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from benchmarks.state_resolution import BigRoom
from synapse.events.event import StateKey
from synapse.state import resolution
from synapse.state.resolution import Loaded, NeedEvents


class Looked:
    """Answers a resolution, and counts what was asked for."""

    def __init__(self, room: BigRoom) -> None:
        self.room = room
        self.events = 0
        self.entries = 0
        self.candidates = 0
        self.rounds = 0

    def load(self, request: NeedEvents) -> Loaded:
        self.rounds += 1
        self.events += len(request.ids)
        return self.room.load(request)

    def in_chain(self, candidates: frozenset[str]) -> Collection[str]:
        self.candidates += len(candidates)
        return candidates

    def look_up(self, keys: frozenset[StateKey]) -> dict[StateKey, str]:
        self.entries += len(keys)
        return self.room.entries(keys)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        return self.events, self.entries, self.candidates, self.rounds


def looked_at(version: str, members: int, forks: int) -> tuple[int, int, int, int]:
    room = BigRoom(version, members)
    _unconflicted, conflicted = resolution.separate(room.forks(forks))
    looked = Looked(room)
    steps = resolution.resolve_conflict(room.version, conflicted)
    resolution.run(steps, looked.load, looked.in_chain, looked.look_up)
    return looked.counts


@pytest.mark.parametrize("version", ["1", "11", "12"])
def test_it_does_not_grow_with_the_room(version: str) -> None:
    small, large = looked_at(version, 500, 5), looked_at(version, 2000, 5)
    assert small == large
    assert large[0] < 60


@pytest.mark.parametrize("version", ["1", "11", "12"])
def test_it_grows_with_the_conflict_in_proportion(version: str) -> None:
    few, many = looked_at(version, 500, 5), looked_at(version, 500, 50)
    assert few[0] < many[0] <= 10 * few[0]
    assert many[3] == few[3]  # each round of questions asks about all forks
