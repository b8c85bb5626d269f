"""The stretches of a timeline that somebody may search."""

from __future__ import annotations

import pytest

from synapse.handlers.search_rooms import stretches
from synapse.storage.timeline import OLDEST
from synapse.storage.user_rooms import Step
from synapse.sync.visibility import History

BEGINNING = OLDEST - 1


def history(*changes: tuple[int, str]) -> History:
    made = History()
    for stream, value in changes:
        made.streams.append(stream)
        made.values.append(value)
    return made


@pytest.mark.parametrize(
    ("changes", "steps", "until", "expected"),
    [
        # Shared before and after: everything, in one piece, though there is a mark in it.
        ([], [(10, "join")], 99, [(BEGINNING, 99)]),
        ([], [(10, "join"), (20, "leave")], 20, [(BEGINNING, 19)]),
        # Never joined: nothing.
        ([], [(10, "invite")], 99, []),
        # Only while joined.
        ([(1, "joined")], [(10, "join"), (20, "leave"), (30, "join")], 99, [(BEGINNING, 0), (9, 19), (29, 99)]),
        # From the invitation on.
        ([(1, "invited")], [(5, "invite"), (10, "join")], 99, [(BEGINNING, 0), (4, 99)]),
        ([(1, "joined")], [(5, "invite"), (10, "join")], 99, [(BEGINNING, 0), (9, 99)]),
        # A stricter visibility for a while.
        ([(5, "joined"), (8, "world_readable")], [(10, "join")], 99, [(BEGINNING, 4), (7, 99)]),
        ([(5, "joined")], [(1, "join"), (10, "leave")], 10, [(BEGINNING, 9)]),
    ],
)
def test_stretches(
    changes: list[tuple[int, str]], steps: list[tuple[int, str]], until: int, expected: list[tuple[int, int]]
) -> None:
    windows = stretches("!r", history(*changes), [Step("!r", *step) for step in steps], until)
    assert [(window.after, window.until) for window in windows] == expected
