"""Properties are tried in the same way each time, however busy the machine is."""

from __future__ import annotations

from itertools import count
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st


def test_making_up_examples_may_take_long_and_does_so_in_the_same_way_each_time() -> None:
    seen: list[list[int]] = []
    for _ in range(2):
        seen.append([])

        @settings(max_examples=20)
        @given(st.integers())
        def collect(value: int) -> None:
            seen[-1].append(value)

        with patch("time.perf_counter", count(0.0, 60.0).__next__):
            collect()
    assert seen[0] == seen[1]
    assert len(seen[0]) >= 20
