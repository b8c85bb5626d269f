"""Lines of state groups: whatever the changes, each group's chain is short and spells the right state."""

from __future__ import annotations

import random

import pytest

from synapse.state.groups import MAX_REMEMBERED, Delta, Line, base_of, trailing_zeros


class Stored:
    """Groups as the database has them."""

    def __init__(self) -> None:
        self.base: dict[int, int | None] = {0: None}
        self.entries: dict[int, Delta] = {0: {("t", "0"): "$0"}}
        self.number: dict[int, int] = {0: 0}

    def chain(self, group: int) -> list[int]:
        chain = [group]
        while (base := self.base[chain[-1]]) is not None:
            chain.append(base)
        return chain

    def state(self, group: int) -> dict[tuple[str, str], str]:
        state: Delta = {}
        for part in reversed(self.chain(group)):
            state.update(self.entries[part])
        return {key: event_id for key, event_id in state.items() if event_id is not None}

    def since(self, group: int, number: int) -> tuple[int, Delta]:
        """As StateStore.since."""
        changes: Delta = {}
        parts = []
        for part in self.chain(group):
            if self.number[part] <= number:
                break
            parts.append(part)
        for step in reversed(parts):
            changes.update(self.entries[step])
        return part, changes


def grow(stored: Stored, line: Line, group: int, changes: Delta) -> Line:
    if line.next_base() is None:
        line.remember(*stored.since(line.group, base_of(line.number + 1)))
    longer, base, entries = line.append(group, changes)
    stored.base[group], stored.entries[group], stored.number[group] = base, entries, longer.number
    return longer


@pytest.mark.parametrize("forgets", [0.0, 0.1, 1.0])
def test_every_group_spells_its_state_in_a_short_chain(forgets: float) -> None:
    rng = random.Random(4)
    stored, line = Stored(), Line.first(0)
    state = stored.state(0)
    for group in range(1, 3000):
        changes: Delta = {("t", str(rng.randrange(200))): f"${group}"}
        if rng.random() < 0.1:
            changes[rng.choice(list(state))] = None
        if rng.random() < forgets:
            line = Line.unknown(line.group, line.number)
        line = grow(stored, line, group, changes)
        state.update({key: event_id for key, event_id in changes.items() if event_id is not None})
        for key in [key for key, event_id in changes.items() if event_id is None]:
            state.pop(key, None)
        if group % 97 == 0 or group < 80:
            assert stored.state(group) == state
        assert len(stored.chain(group)) <= 30
    assert sum(map(len, stored.entries.values())) < 3000 * 5


def test_chains_stay_within_fifty_links() -> None:
    def length(number: int) -> int:
        return 1 if number == 0 else 1 + length(base_of(number))

    assert max(length(number) for number in [8**7 - 1, 8**6 - 1, 7 * 8**6 - 1, 123456, 1, 8, 511]) <= 50


def test_a_room_whose_topic_changes_for_ever_stays_small() -> None:
    stored, line = Stored(), Line.first(0)
    for group in range(1, 5000):
        line = grow(stored, line, group, {("m.room.topic", ""): f"${group}"})
    assert all(len(entries) == 1 for entries in stored.entries.values())


def test_what_is_large_is_not_remembered_but_read_again() -> None:
    stored, line = Stored(), Line.first(0)
    for group in range(1, MAX_REMEMBERED + 100):
        line = grow(stored, line, group, {("m.room.member", f"@{group}"): f"${group}"})
    assert sum(len(level.changes) for level in line.levels if level is not None) <= MAX_REMEMBERED * 4
    assert len(stored.state(line.group)) == MAX_REMEMBERED + 100


def test_zeros_are_counted_in_base_eight() -> None:
    assert [trailing_zeros(n) for n in (1, 7, 8, 9, 64, 72, 512)] == [0, 0, 1, 0, 2, 1, 3]
    assert [base_of(n) for n in (1, 8, 9, 64, 72, 0o1234)] == [0, 0, 8, 0, 64, 0o1233]


def test_appending_leaves_the_line_as_it_was() -> None:
    line = Line.first(0)
    longer, _base, _entries = line.append(1, {("t", ""): "$1"})
    other, base, entries = line.append(2, {("t", ""): "$2"})
    assert (line.number, longer.group, other.group) == (0, 1, 2)
    assert (base, entries) == (0, {("t", ""): "$2"})
