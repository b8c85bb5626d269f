"""Work that is done once for all who ask at the same time, or shortly after."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.task import Clock

from synapse.sync.shared import SharedWork


@pytest.mark.parametrize(("kept", "later", "done"), [(5.0, 4.9, 1), (5.0, 5.0, 2), (0.0, 0.0, 2), (120.0, 119.0, 1)])
@pytest_twisted.ensureDeferred
async def test_results_are_kept_for_a_while(kept: float, later: float, done: int) -> None:
    clock, calls = Clock(), 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        return calls

    shared: SharedWork[int] = SharedWork(clock, lambda result: True, kept)
    assert await shared.do("key", work) == 1
    clock.advance(later)
    assert await shared.do("key", work) == done
